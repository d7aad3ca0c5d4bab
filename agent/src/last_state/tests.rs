use std::{collections::VecDeque, fs, num::NonZeroU16};

use clusterlink_model::{Action, Import, Labels, LbScheme, ObjectName, Policy, PolicyName};
use tokio::sync::mpsc;

use super::*;

fn origin() -> Origin {
    Origin {
        boot: "boot-1".into(),
        peer: "west".parse().unwrap(),
        node: "n1".into(),
    }
}

fn import(name: &str, port: u16) -> Resource {
    Resource::Import(Arc::new(Import {
        name: ObjectName::new("shop", name),
        labels: Labels::new(),
        addresses: vec!["10.96.0.7".parse().unwrap()],
        port: NonZeroU16::new(port).unwrap(),
        target_port: None,
        sources: Vec::new(),
        scheme: LbScheme::Random,
    }))
}

fn policy(name: &str, action: Action) -> Resource {
    Resource::Policy(Arc::new(Policy {
        name: PolicyName::Privileged(name.into()),
        action,
        from: Vec::new(),
        to: Vec::new(),
    }))
}

fn complete(upserts: Vec<Resource>) -> Update {
    Update {
        upserts,
        removals: Vec::new(),
        complete: true,
    }
}

fn upsert(upserts: Vec<Resource>) -> Update {
    Update {
        complete: false,
        ..complete(upserts)
    }
}

fn remove(resource: &Resource) -> Update {
    Update {
        removals: vec![resource.key()],
        ..Update::default()
    }
}

fn snapshot(updates: &[Update]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    updates.iter().for_each(|one| snapshot.apply(one.clone()));
    snapshot
}

/// A controller that says what it is given, and nothing when that is all.
struct Says(mpsc::UnboundedReceiver<Update>);

impl Updates for Says {
    async fn next(&mut self) -> Option<Update> {
        self.0.recv().await
    }
}

fn controller() -> (mpsc::UnboundedSender<Update>, Says) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Says(receiver))
}

/// What a node that is told `updates` leaves behind.
async fn stored(dir: &Path, updates: &[Update]) {
    let (sender, says) = controller();
    let mut state = LastState::new(Stored::read(dir, origin()), says);
    for update in updates {
        sender.send(update.clone()).unwrap();
        state.next().await.unwrap();
        state.keeper().flush();
    }
}

fn found(dir: &Path, origin: Origin) -> Found {
    Journal::open(dir, origin).1
}

fn found_snapshot(dir: &Path) -> Snapshot {
    match found(dir, origin()) {
        Found::Snapshot(snapshot) => snapshot,
        Found::Nothing => panic!("nothing is stored"),
        Found::Outdated(why) => panic!("outdated: {why}"),
        Found::Damaged { why, .. } => panic!("damaged: {why}"),
    }
}

#[tokio::test]
async fn what_was_told_is_read_back_in_the_same_boot() {
    let dir = tempfile::tempdir().unwrap();
    let updates = [
        complete(vec![
            import("a", 1),
            import("b", 1),
            policy("p", Action::Allow),
        ]),
        upsert(vec![import("a", 2), policy("p", Action::Deny)]),
        remove(&import("b", 1)),
        upsert(vec![import("c", 3)]),
    ];
    stored(dir.path(), &updates).await;
    assert_eq!(found_snapshot(dir.path()), snapshot(&updates));
    let lines = fs::read_to_string(dir.path().join("last-state")).unwrap();
    assert_eq!(
        lines.lines().count(),
        5,
        "changes are added, not everything written again"
    );
}

#[tokio::test]
async fn a_state_of_another_boot_peer_node_or_version_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), &[complete(vec![import("a", 1)])]).await;
    let other = |change: fn(&mut Origin)| {
        let mut origin = origin();
        change(&mut origin);
        matches!(found(dir.path(), origin), Found::Outdated(_))
    };
    assert!(other(|origin| origin.boot = "boot-2".into()), "boot");
    assert!(
        other(|origin| origin.peer = "east".parse().unwrap()),
        "peer"
    );
    assert!(other(|origin| origin.node = "n2".into()), "node");
    assert!(!other(|_| {}));
    let path = dir.path().join("last-state");
    let json = r#"{"format":0,"other":"fields"}"#;
    fs::write(
        &path,
        format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())),
    )
    .unwrap();
    assert!(other(|_| {}), "version");
    assert!(path.exists(), "it is no damage");
}

#[tokio::test]
async fn a_line_that_was_cut_short_never_happened() {
    let dir = tempfile::tempdir().unwrap();
    let updates = [complete(vec![import("a", 1)]), upsert(vec![import("b", 1)])];
    stored(dir.path(), &updates).await;
    let path = dir.path().join("last-state");
    let bytes = fs::read(&path).unwrap();
    let last = bytes[..bytes.len() - 1]
        .iter()
        .rposition(|b| *b == b'\n')
        .unwrap()
        + 1;
    for length in [bytes.len() - 1, last + 12, last + 1, last] {
        fs::write(&path, &bytes[..length]).unwrap();
        assert_eq!(
            found_snapshot(dir.path()),
            snapshot(&updates[..1]),
            "{length}"
        );
    }
}

#[tokio::test]
async fn damage_is_moved_aside_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let updates = [complete(vec![import("a", 1)]), upsert(vec![import("b", 1)])];
    stored(dir.path(), &updates).await;
    let path = dir.path().join("last-state");
    let good = fs::read(&path).unwrap();
    let line = |number: usize| {
        let lines = good.split_inclusive(|b| *b == b'\n');
        lines.take(number - 1).map(<[u8]>::len).sum::<usize>()
    };
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut without_snapshot = good[..line(2)].to_vec();
    without_snapshot.extend_from_slice(&good[line(3)..]);
    for (what, bytes) in [
        ("a bit of the header", flipped(20)),
        ("a bit of a checksum", flipped(line(2))),
        ("a bit of the snapshot", flipped(line(2) + 30)),
        ("a bit of a change", flipped(line(3) + 30)),
        ("the snapshot missing", without_snapshot),
        ("only a header", good[..line(2)].to_vec()),
        ("nothing in it", Vec::new()),
        ("something else", b"{}\n".to_vec()),
    ] {
        fs::write(&path, &bytes).unwrap();
        let Found::Damaged { aside, .. } = found(dir.path(), origin()) else {
            panic!("{what}: not found to be damaged");
        };
        assert!(!path.exists() && aside.exists(), "{what}");
        assert_eq!(fs::read(&aside).unwrap(), bytes, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_stored_state_is_served_when_the_controller_is_silent_for_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let old = complete(vec![import("a", 1), policy("allow", Action::Allow)]);
    stored(dir.path(), std::slice::from_ref(&old)).await;
    let (sender, says) = controller();
    let mut state = LastState::new(Stored::read(dir.path(), origin()), says);
    let start = Instant::now();
    // Whoever waits drops the future again and again.
    let mut first = None;
    while first.is_none() {
        tokio::select! {
            update = state.next() => first = update,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    assert_eq!(start.elapsed(), PATIENCE);
    let first = first.unwrap();
    assert!(first.complete);
    assert_eq!(snapshot(&[first]), snapshot(&[old]));
    // The controller is back: what it says replaces everything.
    let fresh = complete(vec![import("b", 1)]);
    sender.send(fresh.clone()).unwrap();
    assert_eq!(state.next().await, Some(fresh.clone()));
    state.keeper().flush();
    assert_eq!(found_snapshot(dir.path()), snapshot(&[fresh]));
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_answers_in_time_makes_the_stored_state_void() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), &[complete(vec![import("a", 1)])]).await;
    let (sender, says) = controller();
    let read = Stored::read(dir.path(), origin());
    assert!(read.snapshot().is_some());
    let mut state = LastState::new(read, says);
    let updates = VecDeque::from([complete(vec![import("b", 1)]), upsert(vec![import("c", 1)])]);
    for update in updates {
        let sender = sender.clone();
        let said = update.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE * 9 / 10).await;
            sender.send(said).unwrap();
        });
        assert_eq!(state.next().await, Some(update));
    }
    let nothing = tokio::time::timeout(PATIENCE * 100, state.next()).await;
    assert!(nothing.is_err(), "the stored state is not served any more");
    drop(sender);
    assert_eq!(state.next().await, None);
}

#[tokio::test]
async fn many_changes_become_one_line_and_long_ones_a_new_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, says) = controller();
    let mut state = LastState::new(Stored::read(dir.path(), origin()), says);
    let mut all = Snapshot::default();
    let many = |from: u32, port: u16| {
        (from..from + 1000)
            .map(|number| import(&format!("import-{number}"), port))
            .collect::<Vec<_>>()
    };
    let size = || fs::metadata(dir.path().join("last-state")).unwrap().len();
    let mut sizes = Vec::new();
    let keeper = state.keeper();
    let mut tell = async |update: Update, all: &mut Snapshot| {
        all.apply(update.clone());
        sender.send(update).unwrap();
        state.next().await.unwrap();
    };
    tell(complete(many(0, 1)), &mut all).await;
    tell(upsert(many(0, 2)), &mut all).await;
    keeper.flush();
    let lines = fs::read_to_string(dir.path().join("last-state")).unwrap();
    assert_eq!(
        lines.lines().count(),
        2,
        "what was told together is written together"
    );
    for port in 3..30 {
        tell(upsert(many(0, port)), &mut all).await;
        keeper.flush();
        sizes.push(size());
        assert_eq!(found_snapshot(dir.path()), all, "{port}");
    }
    assert!(sizes.iter().all(|size| *size < 2 << 20), "{sizes:?}");
    assert!(
        sizes.windows(2).any(|pair| pair[1] < pair[0]),
        "it was written anew: {sizes:?}"
    );
}

#[test]
fn a_state_that_cannot_be_written_any_more_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), origin());
    journal.write(complete(vec![import("a", 1)])).unwrap();
    assert!(matches!(found(dir.path(), origin()), Found::Snapshot(_)));
    // In the way of the file that is written anew.
    fs::create_dir(dir.path().join("last-state.new")).unwrap();
    journal.write(complete(vec![import("b", 2)])).unwrap_err();
    assert!(matches!(found(dir.path(), origin()), Found::Nothing));
}

#[tokio::test(start_paused = true)]
async fn the_keeper_writes_by_itself_and_once_a_second_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, says) = controller();
    let mut state = LastState::new(Stored::read(dir.path(), origin()), says);
    let keeper = tokio::spawn(state.keeper().run());
    let mut all = Vec::new();
    for port in 1..=100 {
        let update = match port {
            1 => complete(vec![import("a", 1)]),
            _ => upsert(vec![import("a", port)]),
        };
        all.push(update.clone());
        sender.send(update).unwrap();
        state.next().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let path = dir.path().join("last-state");
    loop {
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text.contains("\"port\":100") {
            assert!(text.lines().count() <= 6, "{text}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(found_snapshot(dir.path()), snapshot(&all));
    keeper.abort();
}

#[test]
fn the_last_contact_is_kept_for_one_boot() {
    let dir = tempfile::tempdir().unwrap();
    let secs = Duration::from_secs;
    let now = crate::boot::time();
    let mut contact = LastContact::open(dir.path(), "boot-1".into());
    assert_eq!(contact.last(), None);
    contact.note(now);
    contact.note(now + secs(9));
    assert_eq!(
        LastContact::open(dir.path(), "boot-1".into()).last(),
        Some(now)
    );
    assert_eq!(LastContact::open(dir.path(), "boot-2".into()).last(), None);
    contact.note(now + secs(10));
    let ahead = LastContact::open(dir.path(), "boot-1".into()).last();
    assert_eq!(
        ahead, None,
        "a time that is yet to come was not written by us"
    );
    fs::write(dir.path().join("last-contact"), "{").unwrap();
    assert_eq!(LastContact::open(dir.path(), "boot-1".into()).last(), None);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_knows_what_is_stored_says_only_what_is_different() {
    let old = complete(vec![import("a", 1), import("b", 1)]);
    let differences = [
        Update {
            upserts: vec![import("a", 2)],
            ..remove(&import("b", 1))
        },
        upsert(vec![import("c", 1)]),
    ];
    let mut told = vec![old.clone()];
    told.extend(differences.clone());
    for (answers, what) in [(true, "in time"), (false, "late")] {
        let dir = tempfile::tempdir().unwrap();
        stored(dir.path(), std::slice::from_ref(&old)).await;
        let (sender, says) = controller();
        let mut state = LastState::new(Stored::read(dir.path(), origin()), says);
        let mut node = Snapshot::default();
        if !answers {
            node.apply(state.next().await.unwrap());
            assert_eq!(node, snapshot(&told[..1]), "{what}");
        }
        for (number, difference) in differences.iter().enumerate() {
            sender.send(difference.clone()).unwrap();
            let update = state.next().await.unwrap();
            assert_eq!(update.complete, answers && number == 0, "{what}");
            node.apply(update);
            state.keeper().flush();
            assert_eq!(node, snapshot(&told[..number + 2]), "{what}");
            assert_eq!(found_snapshot(dir.path()), node, "{what}");
        }
    }
}
