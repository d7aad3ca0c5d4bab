use clusterlink_model::ObjectName;
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    resource::tests::{any_resource, labels},
    wire,
};

fn peer_report() -> impl Strategy<Value = PeerReport> {
    (
        "[a-z]{1,5}",
        any::<bool>(),
        option::of(any::<u64>()),
        any::<Option<u64>>(),
        option::of("[a-z]{0,3}"),
        labels(),
        option::of("[a-z]{0,3}"),
    )
        .prop_map(
            |(name, reachable, rtt, last_seen_ms, software, labels, error)| PeerReport {
                name: PeerName::new(&name).unwrap(),
                reachable,
                rtt: rtt.map(Duration::from_nanos),
                last_seen_ms,
                software,
                labels,
                error,
            },
        )
}

fn report() -> impl Strategy<Value = NodeReport> {
    let source =
        ("[a-z]{1,3}", any::<bool>(), "[a-z]{0,9}").prop_map(|(name, accepted, reason)| {
            SourceReport {
                import: ObjectName::new("shop", name.as_str()),
                source: Source {
                    peer: PeerName::new(&name).unwrap(),
                    export: ObjectName::new("theirs", name),
                },
                accepted,
                reason,
            }
        });
    let rejected = (any_resource(), "[a-z]{0,9}").prop_map(|(resource, reason)| Rejected {
        key: resource.key(),
        reason,
    });
    (
        "[a-z]{0,5}",
        vec("[a-z]{0,5}", 0..3),
        vec(any::<IpAddr>(), 0..3),
        (any::<bool>(), option::of("[a-z]{0,5}")),
        vec(peer_report(), 0..3),
        vec(source, 0..3),
        vec(rejected, 0..3),
        proptest::collection::btree_set(any::<u16>(), 0..5),
        proptest::collection::btree_map(any::<u16>(), "[a-z]{0,5}", 0..3),
    )
        .prop_map(
            |(
                software,
                waits_for,
                addresses,
                (on, reason),
                peers,
                sources,
                rejected,
                listening,
                own_ports,
            )| {
                NodeReport {
                    software,
                    waits_for,
                    addresses,
                    steering: SteeringReport { on, reason },
                    peers,
                    sources,
                    rejected,
                    listening,
                    own_ports,
                }
            },
        )
}

proptest! {
    #[test]
    fn every_report_survives_the_wire(report in report()) {
        let (again, invalid) = NodeReport::from_wire((&report).into());
        prop_assert_eq!(invalid, []);
        prop_assert_eq!(again, report);
    }
}

#[test]
fn what_cannot_be_used_is_left_out_and_named_and_the_rest_counts() {
    let report = wire::NodeReport {
        software: "agent 9".to_owned(),
        addresses: vec![vec![1, 2, 3].into(), vec![192, 0, 2, 1].into()],
        peers: vec![wire::PeerReport {
            name: "a_b".to_owned(),
            ..wire::PeerReport::default()
        }],
        sources: vec![wire::SourceReport::default()],
        rejected: vec![wire::Reject {
            name: Some(wire::ResourceName {
                kind: 99,
                ..wire::ResourceName::default()
            }),
            reason: String::new(),
        }],
        listening: vec![65_536, 8080],
        own_ports: [(65_536, "none".to_owned()), (5443, "peers".to_owned())].into(),
        ..wire::NodeReport::default()
    };
    let (report, invalid) = NodeReport::from_wire(report);
    assert_eq!(report.software, "agent 9");
    assert_eq!(report.addresses, [IpAddr::from([192, 0, 2, 1])]);
    assert_eq!(report.listening, BTreeSet::from([8080]));
    assert!(report.peers.is_empty() && report.sources.is_empty() && report.rejected.is_empty());
    assert_eq!(report.own_ports, [(5443, "peers".to_owned())].into());
    assert_eq!(invalid.len(), 6, "{invalid:?}");
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let long = "\u{20ac}".repeat(1000);
    let cut = crate::parts::reason(&long);
    assert!(cut.len() <= crate::MAX_REASON && cut.len() > crate::MAX_REASON - 3);
    assert!(long.starts_with(&cut));
}
