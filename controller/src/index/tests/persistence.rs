use std::{fs, num::NonZeroU16};

use clusterlink_crds::conditions::{IMPORT_SERVICE_VALID, IMPORT_TARGET_PORT_VALID, reasons};
use clusterlink_model::{Action, Policy};

use super::*;
use crate::valid_denies::{DenyPort, Kept};

/// Starts over on the same state directory, with these documents in the first lists.
fn restarted(config: &Config, documents: &[Value], problems: Vec<Problem>) -> Harness {
    let mut harness = Harness::starting(config);
    harness.index.apply(Input::Problems(Arc::new(problems)));
    for document in documents {
        harness.index.apply(applied(document));
    }
    harness.finish_lists();
    harness.settle();
    harness
}

#[test]
fn a_restart_gives_the_same_addresses_and_ports() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let documents: Vec<Value> = (0..50)
        .map(|number| import(&format!("ns/web-{number}"), 80, 0))
        .collect();
    let mut harness = Harness::empty(&config);
    for document in &documents {
        harness.apply(document);
    }
    assert_eq!(harness.seen.imports.len(), 50);
    let again = restarted(&config, &documents, vec![]);
    assert_eq!(again.seen, harness.seen);
}

#[test]
fn an_import_deleted_while_the_process_was_down_gives_its_port_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let mut harness = Harness::empty(&config);
    harness.apply(&import("ns/a", 80, 20_000));
    drop(harness);
    let harness = restarted(&config, &[import("ns/b", 80, 20_000)], vec![]);
    assert_eq!(
        harness.seen.imports[&name("ns/b")]
            .target_port
            .map(NonZeroU16::get),
        Some(20_000)
    );
}

#[test]
fn an_explicit_port_goes_before_an_allocated_one_at_the_first_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(&directory);
    config.target_ports = 20_000..=20_000;
    // The one that leaves the choice comes first by name.
    let documents = [import("ns/a", 80, 0), import("ns/b", 80, 20_000)];
    let harness = restarted(&config, &documents, vec![]);
    assert_eq!(
        harness.seen.imports[&name("ns/b")]
            .target_port
            .map(NonZeroU16::get),
        Some(20_000)
    );
    let status = harness.status();
    let why = condition(&status.imports[0].conditions, IMPORT_TARGET_PORT_VALID);
    assert_eq!(why.reason, reasons::TARGET_PORTS_EXHAUSTED);
    // It works without a target port all the same.
    assert!(harness.seen.imports.contains_key(&name("ns/a")));
}

#[test]
fn a_restart_in_the_middle_of_a_mistake_keeps_a_deny() {
    let at = "ns/rule";
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let mut harness = Harness::empty(&config);
    harness.apply(&policy("AccessPolicy", at, "deny", true));
    let before = harness.seen.clone();
    drop(harness);

    // It decodes, but is not valid.
    let harness = restarted(
        &config,
        &[policy("AccessPolicy", at, "deny", false)],
        vec![],
    );
    assert_eq!(harness.seen, before);
    drop(harness);

    // It does not even decode; the source names it, or cannot say what the file holds.
    for unreadable in [
        problem(Some("AccessPolicy"), Some(at)),
        problem(None, None),
        problem(Some("AccessPolicy"), None),
    ] {
        let mut harness = restarted(&config, &[], vec![unreadable]);
        assert_eq!(harness.seen, before);
        let status = harness.status();
        assert!(status.policies[0].stale && status.policies[0].in_force == Some(Action::Deny));
        harness
            .index
            .apply(applied(&policy("AccessPolicy", at, "deny", true)));
        harness.problems(vec![]);
        assert!(!harness.status().policies[0].stale);
    }

    // A problem of another object says nothing about it: it was deleted.
    let harness = restarted(&config, &[], vec![problem(Some("Import"), Some(at))]);
    assert!(harness.seen.policies.is_empty());
    drop(harness);
    let harness = restarted(&config, &[], vec![problem(None, None)]);
    assert!(
        harness.seen.policies.is_empty(),
        "what was deleted once stays deleted"
    );
}

#[test]
fn a_kept_deny_goes_once_nothing_is_unreadable_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let mut harness = Harness::empty(&config);
    harness.apply(&policy("PrivilegedAccessPolicy", "/rule", "deny", true));
    drop(harness);
    let mut harness = restarted(&config, &[], vec![problem(None, None)]);
    assert_eq!(harness.seen.policies.len(), 1);
    harness.problems(vec![]);
    assert!(harness.seen.policies.is_empty());
    assert!(harness.status().policies.is_empty());
}

#[test]
fn a_lease_outlives_a_restart_in_which_its_import_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let mut harness = Harness::empty(&config);
    harness.apply(&import("ns/web", 80, 20_000));
    let before = harness.seen.clone();
    drop(harness);
    let unreadable = vec![problem(Some("Import"), Some("ns/web"))];
    let mut harness = restarted(&config, &[import("ns/thief", 80, 20_000)], unreadable);
    let thief = harness.seen.imports[&name("ns/thief")].clone();
    assert_eq!(thief.target_port, None);
    harness.delete(&import("ns/thief", 80, 20_000));
    harness.apply(&import("ns/web", 80, 20_000));
    assert_eq!(harness.seen, before);
}

#[test]
fn an_import_whose_lease_cannot_be_stored_is_not_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let mut harness = Harness::empty(&config);
    harness.apply(&import("ns/old", 80, 0));
    // A directory in the place of the temporary file makes every write fail, even for root.
    let obstacle = directory.path().join("leases.json.new");
    fs::create_dir(&obstacle).unwrap();
    harness.apply(&import("ns/new", 80, 0));
    harness.apply(&import("ns/old", 80, 20_000));
    assert!(harness.retry);
    assert!(!harness.seen.imports.contains_key(&name("ns/new")));
    let old = &harness.seen.imports[&name("ns/old")];
    assert!(!old.addresses.is_empty() && old.target_port.is_none());
    let status = harness.status();
    let why = condition(&status.imports[0].conditions, IMPORT_SERVICE_VALID);
    assert_eq!(why.reason, reasons::LEASE_NOT_STORED);
    assert!(why.message.contains("leases.json"), "{}", why.message);

    fs::remove_dir(&obstacle).unwrap();
    harness.settle();
    assert!(!harness.retry);
    assert!(harness.seen.imports.contains_key(&name("ns/new")));
    assert_eq!(
        harness.seen.imports[&name("ns/old")]
            .target_port
            .map(NonZeroU16::get),
        Some(20_000)
    );
}

#[test]
fn a_damaged_file_of_denies_is_refused_with_its_cure() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policies.json");
    fs::write(&path, "nonsense").unwrap();
    let error = ValidDenies::open(path).unwrap_err();
    assert!(
        error.to_string().contains("policies.json is damaged"),
        "{error}"
    );
}

/// An index whose denies are in an object that holds these, with the documents in the first lists.
fn elsewhere(
    config: &Config,
    stored: &[Arc<Policy>],
    documents: &[Value],
    problems: Vec<Problem>,
) -> (Harness, DenyPort) {
    let (denies, port, _) = ValidDenies::elsewhere();
    let leases = Leases::open(config).unwrap();
    let mut harness = Harness::with(Provider::Leases(Box::new(leases)), denies);
    assert!(harness.index.missing().contains(&"the last valid denies"));
    harness.stored(1, stored);
    harness.index.apply(Input::Problems(Arc::new(problems)));
    for document in documents {
        harness.index.apply(applied(document));
    }
    harness.finish_lists();
    harness.settle();
    (harness, port)
}

fn kept(port: &DenyPort) -> Arc<Kept> {
    Arc::clone(&port.kept().borrow())
}

impl Harness {
    /// What an object holds is read.
    fn stored(&mut self, number: u64, denies: &[Arc<Policy>]) {
        let denies = denies.to_vec();
        let reading = Reading { number, denies };
        self.index.apply(Input::Denies(Arc::new(reading)));
    }
}

#[test]
fn denies_in_an_object_outlive_a_restart_in_the_middle_of_a_mistake() {
    let at = "ns/rule";
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let valid = policy("AccessPolicy", at, "deny", true);
    let (harness, port) = elsewhere(&config, &[], &[valid], vec![]);
    let stored = kept(&port);
    assert_eq!((stored.reading, stored.denies.len()), (1, 1));

    let invalid = policy("AccessPolicy", at, "deny", false);
    let undecodable = problem(Some("AccessPolicy"), Some(at));
    for (documents, problems) in [(vec![invalid], vec![]), (vec![], vec![undecodable])] {
        let (again, port) = elsewhere(&config, &stored.denies, &documents, problems);
        assert_eq!(again.seen, harness.seen);
        assert!(again.status().policies[0].stale);
        assert_eq!(kept(&port).denies, stored.denies, "it goes on to be stored");
    }

    // Deleted, or corrected to an allow, while nobody was there.
    let allow = policy("AccessPolicy", at, "allow", true);
    for documents in [vec![], vec![allow]] {
        let (again, port) = elsewhere(&config, &stored.denies, &documents, vec![]);
        assert_ne!(again.seen, harness.seen);
        assert!(kept(&port).denies.is_empty());
    }
}

#[test]
fn a_new_leader_keeps_a_deny_that_only_the_last_one_has_seen_valid() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let names = ["ns/broken", "ns/gone", "ns/allowed"];
    let denies = names.map(|at| policy("AccessPolicy", at, "deny", true));
    let (_, port) = elsewhere(&config, &[], &denies, vec![]);
    let stored = kept(&port);
    assert_eq!(stored.denies.len(), 3);

    let now = [
        policy("AccessPolicy", "ns/broken", "deny", false),
        policy("AccessPolicy", "ns/allowed", "allow", true),
    ];
    let (mut follower, port) = elsewhere(&config, &[], &now, vec![]);
    let denied = |harness: &Harness| {
        let all = harness.seen.policies.values();
        all.filter(|policy| policy.action == Action::Deny).count()
    };
    assert_eq!(denied(&follower), 0);
    follower.stored(2, &stored.denies);
    follower.settle();
    assert_eq!(denied(&follower), 1);
    let kept = kept(&port);
    assert_eq!((kept.reading, kept.denies.len()), (2, 1));
    assert_eq!(kept.denies[0].name.to_string(), "AccessPolicy ns/broken");
}
