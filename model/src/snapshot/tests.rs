use std::num::NonZeroU16;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{Action, Backend, HostPort, Labels, LbScheme, Node, Selector, WorkloadAttributes};

/// A resource of each kind under one of a few names, in one of a few versions.
fn resource() -> impl Strategy<Value = Resource> {
    (0..7_u8, 0..4_u8, 0..3_u16).prop_map(|(kind, name, version)| make(kind, name, version))
}

fn make(kind: u8, name: u8, version: u16) -> Resource {
    let name = ObjectName::new("shop", name.to_string());
    let labels: Labels = [("version".to_owned(), version.to_string())].into();
    let port = NonZeroU16::MIN.saturating_add(version);
    match kind {
        0 => Resource::Import(Arc::new(Import {
            name,
            labels,
            addresses: Vec::new(),
            port,
            target_port: None,
            sources: Vec::new(),
            scheme: LbScheme::Random,
        })),
        1 => Resource::Export(Arc::new(Export {
            name,
            labels,
            backend: Backend::Name(HostPort {
                host: "db".into(),
                port,
            }),
        })),
        2 => Resource::Peer(Arc::new(Peer {
            name: PeerName::new(&name.name).unwrap(),
            gateways: Vec::new(),
            labels: Some(labels),
            not_issued_before: None,
        })),
        3 | 4 => Resource::Policy(Arc::new(Policy {
            name: match kind {
                3 => PolicyName::Privileged(name.name),
                _ => PolicyName::Namespaced(name),
            },
            action: if version == 0 {
                Action::Deny
            } else {
                Action::Allow
            },
            from: vec![Selector::default(); version.into()],
            to: Vec::new(),
        })),
        5 => Resource::Node(Arc::new(Node {
            name: name.name,
            addresses: vec![std::net::Ipv6Addr::from([0, 0, 0, 0, 0, 0, 0, version]).into()],
            pod_ranges: Vec::new(),
            zone: None,
        })),
        _ => Resource::Workload(Arc::new(Workload {
            attributes: Arc::new(WorkloadAttributes {
                namespace: name.namespace.clone(),
                service_account: "default".into(),
                labels,
            }),
            name,
            cgroup: None,
            addresses: Vec::new(),
            uids: Vec::new(),
            node: None,
            host_network: false,
        })),
    }
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    vec(resource(), 0..30).prop_map(|upserts| {
        let mut snapshot = Snapshot::default();
        snapshot.apply(Update {
            upserts,
            ..Update::default()
        });
        snapshot
    })
}

#[test]
fn a_difference_names_only_what_changed() {
    let mut old = Snapshot::default();
    let before = (0..6)
        .map(|kind| make(kind, 0, 0))
        .chain([make(0, 1, 0), make(0, 2, 0)]);
    old.apply(Update {
        upserts: before.collect(),
        ..Update::default()
    });
    let mut newer = old.clone();
    let removed = make(0, 1, 0).key();
    let change = Update {
        upserts: vec![make(0, 2, 1), make(0, 3, 0)],
        removals: vec![removed],
        complete: false,
    };
    newer.apply(change.clone());
    assert_eq!(old.diff(&newer), change);
    assert!(!change.is_empty());
    assert!(old.diff(&old.clone()).is_empty());
    // Equal content in another allocation is no change.
    let mut copy = Snapshot::default();
    copy.apply(Update {
        upserts: vec![make(0, 0, 0)],
        ..Update::default()
    });
    copy.apply(Update {
        complete: false,
        ..old.to_update()
    });
    assert!(old.diff(&copy).is_empty());
}

#[test]
fn a_complete_update_replaces_everything_even_when_it_is_empty() {
    let mut snapshot = Snapshot::default();
    snapshot.apply(Update {
        upserts: vec![make(0, 0, 0)],
        ..Update::default()
    });
    let nothing = Update {
        complete: true,
        ..Update::default()
    };
    assert!(!nothing.is_empty());
    snapshot.apply(nothing);
    assert_eq!(snapshot, Snapshot::default());
}

proptest! {
    #[test]
    fn applying_the_difference_gives_the_newer_snapshot(old in snapshot(), newer in snapshot()) {
        let update = old.diff(&newer);
        let mut applied = old.clone();
        applied.apply(update.clone());
        prop_assert_eq!(&applied, &newer);
        prop_assert_eq!(update.is_empty(), old == newer);
        let mut restored = old;
        restored.apply(newer.to_update());
        prop_assert_eq!(&restored, &newer);
    }

    #[test]
    fn an_update_survives_being_written_down(snapshot in snapshot()) {
        let update = snapshot.to_update();
        let text = serde_json::to_string(&update).unwrap();
        prop_assert_eq!(serde_json::from_str::<Update>(&text).unwrap(), update);
    }
}
