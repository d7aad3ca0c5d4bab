use std::{sync::Arc, time::Duration};

use clusterlink_agent::control::{Found, Lookup as _};
use clusterlink_model::{Node as ModelNode, ObjectName, Resource};
use tokio::time::timeout;

use super::scene::{SOON, Seen, Setup, Wire, eventually, import, pod, port_of};

#[tokio::test]
async fn an_agent_gets_a_complete_snapshot_and_then_what_changes() {
    let server = Setup::new().start().await;
    let mut node = server.node("n1");
    // Before everything was read once there is nothing to say.
    server.put([
        import(1, 80),
        import(2, 80),
        pod("a", "n1", [10, 0, 0, 1]),
        pod("b", "n2", [10, 0, 0, 2]),
    ]);
    let first = node.apply().await;
    assert!(first.complete);
    assert_eq!(node.snapshot.imports.len(), 2);
    assert_eq!(node.snapshot.workloads.len(), 1, "the pods of this node");
    node.settle();

    server.put([import(2, 81)]);
    server.remove([import(1, 80)]);
    node.until(|snapshot| port_of(snapshot, 2) == Some(81) && snapshot.imports.len() == 1)
        .await;
    assert_eq!(
        node.seen,
        Seen {
            complete: 1,
            upserts: 4,
            removals: 1
        }
    );

    server.put([pod("a", "n2", [10, 0, 0, 1])]);
    node.until(|snapshot| snapshot.workloads.is_empty()).await;
    assert_eq!(server.metrics.upserts_sent(), 4);
}

#[tokio::test]
async fn after_a_reconnect_only_what_differs_travels() {
    let server = Setup::new().start().await;
    let wire = Wire::to(server.address).await;
    let mut node = server.node_at("n1", wire.address, None);
    server.put((0..2000).map(|number| import(number, 80)));
    assert!(node.apply().await.complete);
    node.settle();
    node.synced().await;
    eventually("the snapshot is acknowledged", || {
        server.metrics.snapshots() == 1
    })
    .await;
    let snapshot_bytes = wire.bytes();
    assert!(snapshot_bytes > 200_000, "{snapshot_bytes}");

    // While the wire is cut, one import changes and one goes.
    wire.cut();
    eventually("the server has noticed", || {
        server.metrics.live("subscribe") == 0
    })
    .await;
    server.put([import(7, 81)]);
    server.remove([import(8, 80)]);
    wire.mend();
    node.until(|snapshot| port_of(snapshot, 7) == Some(81) && port_of(snapshot, 8).is_none())
        .await;
    eventually("the node is up to date again", || {
        server.metrics.snapshots() == 2
    })
    .await;
    assert_eq!(
        node.seen,
        Seen {
            complete: 1,
            upserts: 2001,
            removals: 1
        }
    );
    assert_eq!(
        (
            server.metrics.upserts_sent(),
            server.metrics.removals_sent()
        ),
        (2001, 1)
    );
    let bytes = wire.bytes();
    assert!(
        bytes < 20_000,
        "{bytes} bytes for one change and one removal"
    );
}

#[tokio::test]
async fn an_agent_that_kept_its_state_gets_what_differs() {
    let server = Setup::new().start().await;
    server.put((0..100).map(|number| import(number, 80)));
    let mut first = server.node("n1");
    first.apply().await;
    let kept = first.snapshot.clone();
    drop(first);
    server.put([import(5, 81)]);
    server.remove([import(6, 80)]);
    let sent = server.metrics.upserts_sent();

    let mut again = server.node_at("n1", server.address, Some(kept));
    let update = again.apply().await;
    assert!(!update.complete);
    assert_eq!((update.upserts.len(), update.removals.len()), (1, 1));
    assert_eq!(again.snapshot.imports.len(), 99);
    assert_eq!(server.metrics.upserts_sent() - sent, 1);
}

#[tokio::test]
async fn an_agent_that_is_up_to_date_applies_nothing_and_is_synced() {
    let server = Setup::new().start().await;
    server.put([import(1, 80)]);
    let mut first = server.node("n1");
    first.apply().await;
    let mut again = server.node_at("n1", server.address, Some(first.snapshot.clone()));
    again.synced().await;
    again.settle();
}

#[tokio::test]
async fn a_replica_with_another_authority_serves_an_agent_that_trusts_both() {
    let setup = Setup::new();
    let other = Setup::new().authority;
    let bundle = format!(
        "{}{}",
        setup.authority.certificate_pem(),
        other.certificate_pem()
    );
    let server = setup.start().await;
    server.put([import(1, 80)]);
    let mut node = server.node("n1");
    std::fs::write(node.files().join("ca.pem"), bundle).unwrap();
    node.apply().await;
    node.settle();
    let mut setup = server.stop().await;
    setup.authority = other;
    let server = setup.start().await;
    server.put([import(1, 80), import(2, 80)]);
    node.until(|snapshot| snapshot.imports.len() == 2).await;
    assert_eq!(
        server.metrics.upserts_sent(),
        1,
        "replicas agree about versions"
    );
}

#[tokio::test]
async fn a_controller_that_is_not_trusted_is_shown_no_token() {
    let server = Setup::new().start().await;
    server.put([import(1, 80)]);
    let mut node = server.node("n1");
    let stranger = Setup::new().authority;
    std::fs::write(node.files().join("ca.pem"), stranger.certificate_pem()).unwrap();
    // The first attempt may have read the file before.
    let mut setup = server.stop().await;
    setup.authority = Setup::new().authority;
    let server = setup.start().await;
    let error = node.disconnected().await;
    assert!(
        error.contains("cannot connect to the controller"),
        "{error}"
    );
    assert_eq!(server.metrics.live("subscribe"), 0);
}

#[tokio::test]
async fn an_address_is_looked_up_and_its_workload_kept_current() {
    let server = Setup::new().start().await;
    let other = ModelNode {
        name: "n2".into(),
        addresses: vec![[192, 0, 2, 2].into()],
        pod_ranges: Vec::new(),
        zone: None,
    };
    server.put([
        pod("far", "n2", [10, 0, 0, 2]),
        Resource::Node(Arc::new(other)),
    ]);
    let mut node = server.node("n1");
    node.apply().await;
    assert!(node.snapshot.workloads.is_empty());
    let look_up = |address: [u8; 4]| {
        let handle = node.handle.clone();
        async move { timeout(SOON, handle.lookup(address.into())).await.unwrap() }
    };
    let found = look_up([10, 0, 0, 2]).await;
    assert!(matches!(found, Found::Workload(w) if &*w.name.name == "far"));
    assert_eq!(look_up([192, 0, 2, 2]).await, Found::Node);
    assert_eq!(look_up([10, 9, 9, 9]).await, Found::Nothing);
    let far = ObjectName::new("shop", "far");
    node.until(|snapshot| snapshot.workloads.contains_key(&far))
        .await;
    server.put([pod("far", "n2", [10, 0, 0, 3])]);
    node.until(|s| s.workloads[&far].addresses == [std::net::IpAddr::from([10, 0, 0, 3])])
        .await;
    server.remove([pod("far", "n2", [10, 0, 0, 3])]);
    node.until(|snapshot| !snapshot.workloads.contains_key(&far))
        .await;
}

#[tokio::test]
async fn a_lookup_waits_for_a_controller_and_outlives_one() {
    let server = Setup::new().start().await;
    server.put([]);
    let mut node = server.node("n1");
    node.apply().await;
    node.settle();
    let setup = server.stop().await;
    node.disconnected().await;
    let handle = node.handle.clone();
    let mut found = tokio::spawn(async move { handle.lookup([10, 0, 0, 2].into()).await });
    timeout(Duration::from_millis(200), &mut found)
        .await
        .unwrap_err();
    let server = setup.start().await;
    server.put([pod("far", "n2", [10, 0, 0, 2])]);
    let found = timeout(SOON, found).await.unwrap().unwrap();
    assert!(matches!(found, Found::Workload(_)), "{found:?}");
}

#[tokio::test]
async fn an_agent_hears_from_a_controller_that_has_nothing_to_say() {
    let mut setup = Setup::new();
    setup.config.heartbeat = Duration::from_millis(50);
    let server = setup.start().await;
    server.put([]);
    let mut node = server.node("n1");
    node.apply().await;
    node.settle();
    let mut heard = node.handle.last_heard();
    for _ in 0..3 {
        heard.borrow_and_update();
        timeout(SOON, heard.changed()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_controller_that_knows_nothing_yet_is_not_counted_as_heard() {
    let mut setup = Setup::new();
    setup.config.heartbeat = Duration::from_millis(20);
    let server = setup.start().await;
    let mut node = server.node("n1");
    let mut status = node.handle.status();
    timeout(SOON, status.wait_for(|status| status.controller.is_some()))
        .await
        .unwrap()
        .unwrap();
    let heard = node.handle.last_heard();
    assert!(!heard.has_changed().unwrap());
    server.put([]);
    assert!(node.apply().await.complete);
    assert!(heard.has_changed().unwrap());
}
