use std::{sync::Arc, time::Duration};

use clusterlink_model::{Backend, Export, ObjectName, Resource};
use clusterlink_proto::{MAX_TO_CONTROLLER, wire};
use futures::future::join_all;
use tonic::Code;
use wire::subscribe_request::Message;

use super::{
    raw::{Raw, RawStream, greeting},
    scene::{Node, Seen, Server, Setup, eventually, import, port_of},
};

const IMPORTS: usize = 1000;

async fn raw_agent(server: &Server, node: &str) -> RawStream {
    let token = server.tokens.issue(node, Duration::from_secs(3600));
    let mut raw = Raw::connect(server).await;
    let stream = raw
        .subscribe(Some(&token), Some(greeting(node)))
        .await
        .unwrap();
    stream.hold_nothing().await;
    stream
}

/// Takes everything that there is, and acknowledges it.
async fn take_snapshot(stream: &mut RawStream) {
    loop {
        let update = stream.update().await.unwrap();
        stream.acknowledge(update.nonce, Vec::new()).await;
        if update.synced {
            return;
        }
    }
}

/// Fifty agents: one that does not apply, one that lies, one that comes back with old state; and
/// the controller is restarted under them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_over_the_wire_is_what_changed() {
    let server = Setup::new().start().await;
    server.put((0..IMPORTS).map(|number| import(number, 80)));
    let mut nodes: Vec<Node> = (0..48)
        .map(|number| server.node(&format!("n{number}")))
        .collect();
    // A few are brought up to date at a time: they do not wait for each other.
    join_all(nodes.iter_mut().map(async |node| {
        assert!(node.apply().await.complete);
        node.settle();
    }))
    .await;
    let mut slow = server.node("slow");
    slow.apply().await;
    let mut liar = raw_agent(&server, "liar").await;
    take_snapshot(&mut liar).await;
    eventually("all are up to date", || server.metrics.snapshots() == 49).await;
    let everything = 50 * IMPORTS as u64;
    assert_eq!(server.metrics.upserts_sent(), everything);

    // A hundred changes of one import: those who keep up see some of them, and the last one.
    liar.acknowledge(4711, Vec::new()).await;
    let status = liar.update().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    for port in 100..200 {
        server.put([import(3, port)]);
    }
    server.remove([import(4, 80)]);
    for node in &mut nodes {
        node.until(|s| port_of(s, 3) == Some(199) && port_of(s, 4).is_none())
            .await;
        assert!(node.seen.upserts <= IMPORTS + 100);
    }
    let sent = server.metrics.upserts_sent() - everything;
    assert!((48..=48 * 100).contains(&sent), "{sent}");
    // The slow one was sent nothing since it does not answer; now it does.
    slow.until(|s| port_of(s, 3) == Some(199) && port_of(s, 4).is_none())
        .await;
    assert_eq!(
        slow.seen,
        Seen {
            complete: 1,
            upserts: IMPORTS + 1,
            removals: 1
        }
    );

    // One leaves and comes back later, with what it had.
    let leaver = nodes.pop().unwrap();
    let (name, kept) = (leaver.name.clone(), leaver.snapshot.clone());
    drop(leaver);

    let before: Vec<usize> = nodes.iter().map(|node| node.seen.upserts).collect();
    let setup = server.stop().await;
    let server = setup.start().await;
    server.put(
        (0..IMPORTS)
            .filter(|n| *n != 4)
            .map(|n| import(n, if n == 3 { 199 } else { 80 })),
    );
    server.put([import(5, 81)]);
    nodes.push(server.node_at(&name, server.address, Some(kept)));
    nodes.push(slow);
    join_all(nodes.iter_mut().map(async |node| {
        node.until(|snapshot| port_of(snapshot, 5) == Some(81))
            .await;
        assert_eq!(node.snapshot.imports.len(), IMPORTS - 1);
    }))
    .await;
    eventually("all are up to date", || server.metrics.snapshots() == 49).await;
    for (node, before) in nodes.iter().zip(before) {
        assert_eq!(node.seen.upserts - before, 1, "{}", node.name);
    }
    assert_eq!(
        (
            server.metrics.upserts_sent(),
            server.metrics.removals_sent()
        ),
        (49, 0)
    );
}

#[tokio::test]
async fn an_agent_that_says_too_much_is_cut_off_and_harms_nobody() {
    let server = Setup::new().start().await;
    server.put([import(1, 80)]);
    let mut good = server.node("good");
    good.apply().await;
    let huge = Message::Held(wire::Held {
        resources: vec![wire::HeldResource {
            version: vec![0; MAX_TO_CONTROLLER + 1].into(),
            ..wire::HeldResource::default()
        }],
        last: true,
    });
    let lookups = Message::Lookup(wire::Lookup {
        addresses: vec![vec![10, 0, 0, 1].into(); 257],
    });
    let no_address = Message::Lookup(wire::Lookup {
        addresses: vec![vec![1, 2, 3].into()],
    });
    for (what, message, code) in [
        ("a huge message", huge, Code::OutOfRange),
        ("too many lookups", lookups, Code::ResourceExhausted),
        ("no address", no_address, Code::InvalidArgument),
        (
            "a second greeting",
            Message::Greeting(greeting("liar")),
            Code::InvalidArgument,
        ),
    ] {
        let mut liar = raw_agent(&server, "liar").await;
        take_snapshot(&mut liar).await;
        liar.say(message).await;
        let status = liar.update().await.unwrap_err();
        assert_eq!(status.code(), code, "{what}: {status}");
    }
    server.put([import(2, 80)]);
    good.until(|snapshot| snapshot.imports.len() == 2).await;
}

#[tokio::test]
async fn an_agent_that_does_not_acknowledge_is_given_up() {
    let mut setup = Setup::new();
    setup.config.acknowledge = Duration::from_millis(100);
    let server = setup.start().await;
    server.put([import(1, 80)]);
    let mut silent = raw_agent(&server, "silent").await;
    silent.update().await.unwrap();
    let status = silent.update().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn what_an_agent_rejects_is_counted_and_not_sent_again() {
    let server = Setup::new().start().await;
    server.put([import(1, 80), import(2, 80)]);
    let mut agent = raw_agent(&server, "n1").await;
    let update = agent.update().await.unwrap();
    let rejected = vec![wire::Reject {
        name: Some((&import(1, 80).key()).into()),
        reason: "we do not like it".to_owned(),
    }];
    agent.acknowledge(update.nonce, rejected).await;
    server.put([import(2, 81)]);
    assert_eq!(agent.update().await.unwrap().upserts.len(), 1);
    assert_eq!(server.metrics.rejected_count(), 1);
}

#[tokio::test]
async fn agents_that_are_slow_to_begin_keep_nobody_waiting_for_long() {
    let mut setup = Setup::new();
    setup.config.snapshots = 2;
    setup.config.admission = Duration::from_millis(100);
    let server = setup.start().await;
    server.put((0..3).map(|number| import(number, 80)));
    let mut slow = Vec::new();
    for number in 0..4 {
        let mut agent = raw_agent(&server, &format!("slow{number}")).await;
        agent.update().await.unwrap();
        slow.push(agent);
    }
    let mut good = server.node("good");
    assert!(good.apply().await.complete);
}

/// Each version of a resource that is still in memory is found by who holds it weakly.
#[tokio::test]
async fn a_slow_agent_costs_no_copies_of_what_it_misses() {
    let server = Setup::new().start().await;
    server.put([]);
    let mut reads_not = raw_agent(&server, "reads-not").await;
    take_snapshot(&mut reads_not).await;
    let mut applies_not = server.node("applies-not");
    applies_not.apply().await;
    eventually("both are up to date", || {
        server.metrics.live("subscribe") == 2
    })
    .await;
    let mut versions = Vec::new();
    for number in 0..200 {
        let export = Arc::new(Export {
            name: ObjectName::new("shop", "large"),
            labels: std::collections::BTreeMap::new(),
            backend: Backend::Unavailable(format!("{number}{}", "x".repeat(100_000)).into()),
        });
        versions.push(Arc::downgrade(&export));
        server.put([Resource::Export(export)]);
        // Whoever is woken has the time to take it.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let alive = || {
        versions
            .iter()
            .filter(|version| version.strong_count() > 0)
            .count()
    };
    // The current one, and at most one that is being sent to each.
    assert!(
        alive() <= 3,
        "{} of {} versions are in memory",
        alive(),
        versions.len()
    );
}
