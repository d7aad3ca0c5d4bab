use std::{sync::Arc, time::Duration};

use clusterlink_proto::{PROTOCOL, wire};
use tokio::time::timeout;
use tonic::Code;

use super::{
    raw::{Raw, greeting},
    scene::{Files, Node, SOON, Setup, eventually, identity, import},
};
use crate::push::Refusal;

#[tokio::test]
async fn who_is_not_an_agent_of_this_node_is_refused_and_counted_by_reason() {
    let server = Setup::new().start().await;
    server.put([import(1, 80)]);
    let hour = Duration::from_secs(3600);
    server.tokens.set("good", Ok(identity("n1", hour)));
    for (token, refusal) in [
        ("audience", Refusal::WrongAudience(vec!["api".to_owned()])),
        (
            "account",
            Refusal::WrongServiceAccount {
                found: "system:serviceaccount:shop:default".to_owned(),
                expected: "system:serviceaccount:clusterlink-system:clusterlink-agent".to_owned(),
            },
        ),
        ("expired", Refusal::Expired),
        ("unbound", Refusal::Unbound),
        (
            "unchecked",
            Refusal::NotChecked("the API server is away".to_owned()),
        ),
    ] {
        server.tokens.set(token, Err(refusal));
    }
    let newer = wire::Greeting {
        protocol: PROTOCOL + 1,
        ..greeting("n1")
    };
    for (token, first, code, reason, text) in [
        (
            None,
            Some(greeting("n1")),
            Code::Unauthenticated,
            "no-token",
            "no token",
        ),
        (
            Some("unknown"),
            Some(greeting("n1")),
            Code::Unauthenticated,
            "not-valid",
            "nobody knows",
        ),
        (
            Some("audience"),
            Some(greeting("n1")),
            Code::Unauthenticated,
            "wrong-audience",
            "api",
        ),
        (
            Some("account"),
            Some(greeting("n1")),
            Code::PermissionDenied,
            "wrong-service-account",
            "shop",
        ),
        (
            Some("expired"),
            Some(greeting("n1")),
            Code::Unauthenticated,
            "expired",
            "expired",
        ),
        (
            Some("unbound"),
            Some(greeting("n1")),
            Code::PermissionDenied,
            "unbound",
            "not bound",
        ),
        (
            Some("unchecked"),
            Some(greeting("n1")),
            Code::Unavailable,
            "not-checked",
            "away",
        ),
        (
            Some("good"),
            Some(greeting("n2")),
            Code::PermissionDenied,
            "other-node",
            "\"n2\"",
        ),
        (
            Some("good"),
            Some(newer),
            Code::Unimplemented,
            "protocol",
            "version 2",
        ),
        (
            Some("good"),
            None,
            Code::InvalidArgument,
            "no-greeting",
            "no greeting",
        ),
    ] {
        let mut raw = Raw::connect(&server).await;
        let status = raw.subscribe(token, first.clone()).await.unwrap_err();
        assert_eq!(status.code(), code, "{reason}: {status}");
        assert!(status.message().contains(text), "{reason}: {status}");
        let status = raw.report(token, first).await.unwrap_err();
        assert_eq!(status.code(), code, "{reason}: {status}");
        assert_eq!(server.metrics.refused_for(reason), 2, "{reason}");
    }
    assert_eq!(server.metrics.upserts_sent(), 0);
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_goes_on_with_the_next() {
    let server = Setup::new().start().await;
    server.put([import(1, 80)]);
    let mut node = server.node("n1");
    node.apply().await;
    node.settle();
    let short = Duration::from_millis(300);
    server.tokens.set("short", Ok(identity("n2", short)));
    let files = Files::new(&server.authority.certificate_pem(), "short");
    let mut other = Node::start("n2", server.address, files, None);
    other.apply().await;
    other.settle();
    let error = other.disconnected().await;
    assert!(error.contains("token has expired"), "{error}");
    server
        .tokens
        .set("long", Ok(identity("n2", Duration::from_secs(3600))));
    std::fs::write(other.files().join("token"), "long").unwrap();
    server.put([import(2, 80)]);
    other.until(|snapshot| snapshot.imports.len() == 2).await;
    node.until(|snapshot| snapshot.imports.len() == 2).await;
    assert_eq!(other.seen.complete, 1);
}

#[tokio::test]
async fn both_streams_of_a_pod_that_goes_end() {
    let server = Setup::new().start().await;
    server.put([]);
    let live = |nodes: &[&str]| {
        let uids = nodes.iter().map(|node| format!("uid-of-{node}").into());
        Some(Arc::new(uids.collect()))
    };
    server.live_pods.send_replace(live(&["n1", "n2"]));
    let (mut gone, mut stays) = (server.node("n1"), server.node("n2"));
    for node in [&mut gone, &mut stays] {
        node.apply().await;
        node.settle();
    }
    let mut table = server.agents.table();
    timeout(SOON, table.wait_for(|table| table.len() == 2))
        .await
        .unwrap()
        .unwrap();
    // It would come back at once, with a token that is still good.
    server.tokens.set(
        "token-of-n1",
        Err(Refusal::NotValid("its pod is gone".to_owned())),
    );
    server.live_pods.send_replace(live(&["n2"]));
    let error = gone.disconnected().await;
    assert!(error.contains("is gone"), "{error}");
    timeout(SOON, table.wait_for(|table| table.len() == 1))
        .await
        .unwrap()
        .unwrap();
    assert!(table.borrow().contains_key("n2"));
    server.put([import(1, 80)]);
    stays.until(|snapshot| snapshot.imports.len() == 1).await;
    eventually("one stream of each kind is left", || {
        server.metrics.live("subscribe") == 1 && server.metrics.live("report") == 1
    })
    .await;
}
