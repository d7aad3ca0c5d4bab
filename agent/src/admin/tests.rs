//! The local API over a socket in a temporary directory.

use std::{collections::BTreeMap, path::Path};

use clusterlink_gateway::status::{GatewayStatus, PeerStatus};
use clusterlink_model::{
    Import, Labels, LbScheme, LocalPeer, ObjectName, Peer, PeerName, Resource, Source, Update,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::control::{ControlReport, ImportObject, PeerObject, SourceObject, SourceState};

fn name(text: &str) -> PeerName {
    PeerName::new(text).unwrap()
}

fn view(policies: clusterlink_model::policy::PolicySet) -> View {
    let mut snapshot = clusterlink_model::Snapshot::default();
    let import = Import {
        name: ObjectName::new("shop", "web"),
        labels: Labels::new(),
        addresses: Vec::new(),
        port: 80.try_into().unwrap(),
        target_port: None,
        sources: ["east", "north"]
            .map(|peer| Source {
                peer: name(peer),
                export: ObjectName::new("shop", "web"),
            })
            .to_vec(),
        scheme: LbScheme::Random,
    };
    let east = Peer {
        name: name("east"),
        gateways: Vec::new(),
        labels: None,
        not_issued_before: None,
    };
    snapshot.apply(Update {
        upserts: vec![
            Resource::Import(Arc::new(import)),
            Resource::Peer(Arc::new(east)),
        ],
        removals: Vec::new(),
        complete: true,
    });
    let local = LocalPeer {
        name: name("west"),
        labels: Labels::new(),
    };
    View {
        snapshot: Arc::new(snapshot),
        policies: Arc::new(policies),
        ..View::not_ready(local)
    }
}

fn report() -> ControlReport {
    let source = |peer: &str| SourceObject {
        peer: peer.to_owned(),
        export_name: "web".to_owned(),
        export_namespace: "shop".to_owned(),
        invalid: None,
        state: SourceState::default(),
    };
    ControlReport {
        imports: vec![ImportObject {
            name: ObjectName::new("shop", "web"),
            port: 80,
            addresses: Vec::new(),
            scheme: serde_json::Value::Null,
            target_port: None,
            sources: vec![source("east"), source("north"), source("")],
            conditions: Vec::new(),
            stale: false,
        }],
        peers: vec![PeerObject {
            name: ObjectName::new("clusterlink-system", "east"),
            peer: Some(name("east")),
            labels: None,
            conditions: Vec::new(),
            stale: false,
        }],
        ..ControlReport::default()
    }
}

fn seen(reachable: bool) -> PeerStatus {
    PeerStatus {
        name: name("east"),
        reachable,
        last_seen_ms: None,
        rtt_us: None,
        version: None,
        labels: Labels::new(),
        gateways: Vec::new(),
        inbound_sessions: usize::from(reachable),
    }
}

fn allow_all() -> clusterlink_model::policy::PolicySet {
    let policy = clusterlink_model::Policy {
        name: clusterlink_model::PolicyName::Privileged("all".into()),
        action: clusterlink_model::Action::Allow,
        from: vec![clusterlink_model::Selector::default()],
        to: vec![clusterlink_model::Selector::default()],
    };
    clusterlink_model::policy::PolicySet::new([Arc::new(policy)])
}

#[test]
fn each_source_says_whether_it_can_serve() {
    let states = |view: &View, seen: &[PeerStatus]| {
        let status = compose::compose(view, report(), seen);
        status.imports[0]
            .sources
            .iter()
            .map(|source| source.state)
            .collect::<Vec<_>>()
    };
    let (open, closed) = (view(allow_all()), view(Default::default()));
    let rest = [SourceState::NoPeer, SourceState::Invalid];
    assert_eq!(
        states(&open, &[seen(true)]),
        [&[SourceState::Reachable], &rest[..]].concat()
    );
    assert_eq!(
        states(&open, &[seen(false)]),
        [&[SourceState::Unreachable], &rest[..]].concat()
    );
    assert_eq!(
        states(&closed, &[seen(true)]),
        [&[SourceState::Denied], &rest[..]].concat()
    );
}

#[test]
fn a_peer_without_gateways_only_calls_us() {
    for reachable in [true, false] {
        let status = compose::compose(&view(allow_all()), report(), &[seen(reachable)]);
        let condition = &status.peers[0].conditions[0];
        assert_eq!(
            (condition.kind.as_str(), condition.reason.as_str()),
            ("PeerReachable", "InboundOnly")
        );
        assert_eq!(condition.status == "True", reachable);
    }
}

#[test]
fn what_no_object_names_is_shown_while_it_is_in_use() {
    let gateway = |address: &str, sessions| GatewayStatus {
        address: address.to_owned(),
        resolved: None,
        sessions,
        silent: 0,
        error: None,
    };
    let east = PeerStatus {
        gateways: vec![gateway("old:443", 0), gateway("older:443", 1)],
        ..seen(true)
    };
    let caller = |peer: &str, reachable| PeerStatus {
        name: name(peer),
        ..seen(reachable)
    };
    let seen = [east, caller("gone", false), caller("guest", true)];
    let peers = compose::compose(&view(allow_all()), report(), &seen).peers;
    let shown: Vec<_> = (peers.iter())
        .map(|peer| (peer.name.as_str(), peer.listed))
        .collect();
    assert_eq!(shown, [("east", true), ("guest", false)]);
    let gateways: Vec<_> = (peers[0].gateways.iter())
        .map(|gateway| gateway.address.as_str())
        .collect();
    assert_eq!(gateways, ["older:443"]);
}

struct NoControl;

impl Control for NoControl {
    fn report(&self) -> ControlReport {
        report()
    }
}

async fn ask(socket: &Path, path: &str) -> String {
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn readiness_names_what_it_waits_for_and_flows_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let (_socket, listener) = AdminSocket::bind(&path).unwrap();
    let readiness = Readiness::default();
    let blocker = readiness.block("the moon");
    let flows = Arc::new(FlowLog::default());
    let state = Served {
        readiness,
        flows: flows.clone(),
        status: Arc::new(|| {
            let status = compose::compose(&view(allow_all()), NoControl.report(), &[]);
            Status {
                counters: BTreeMap::new(),
                ..status
            }
        }),
    };
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router(state)).await });
    assert!(ask(&path, "/readyz").await.contains("waiting for the moon"));
    drop(blocker);
    assert!(ask(&path, "/readyz").await.starts_with("HTTP/1.1 200"));
    let flow = flows.open(clusterlink_gateway::flow::Direction::Egress);
    assert!(
        ask(&path, "/v1/flows")
            .await
            .contains("\"live\":[{\"id\":1")
    );
    flows.close(&flow, clusterlink_gateway::flow::EndReason::Completed, None);
    assert!(
        ask(&path, "/v1/flows")
            .await
            .contains("\"reason\":\"completed\"")
    );
    assert!(
        ask(&path, "/v1/status")
            .await
            .contains("\"state\":\"no-peer\"")
    );
    server.abort();
}
