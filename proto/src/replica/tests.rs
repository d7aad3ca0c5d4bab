use clusterlink_model::{ObjectName, Peer, PeerName, Policy, PolicyName, WorkloadAttributes};

use super::*;

fn peer(number: u8, stamp: i64) -> Resource {
    Resource::Peer(Arc::new(Peer {
        name: PeerName::new(&format!("peer{number}")).unwrap(),
        gateways: Vec::new(),
        labels: None,
        not_issued_before: Some(stamp),
    }))
}

fn pod(node: &str) -> Resource {
    Resource::Workload(Arc::new(Workload {
        name: ObjectName::new("shop", format!("pod-of-{node}")),
        attributes: Arc::new(WorkloadAttributes {
            namespace: "shop".into(),
            service_account: "default".into(),
            labels: BTreeMap::new(),
        }),
        cgroup: None,
        addresses: vec![[192, 0, 2, 1].into()],
        uids: Vec::new(),
        node: Some(node.into()),
        host_network: false,
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

fn update(nonce: u64, upserts: &[Resource], removals: &[Resource]) -> wire::Update {
    wire::Update {
        nonce,
        upserts: (upserts.iter())
            .map(|resource| Encoded::new(resource).upsert().clone())
            .collect(),
        removals: removals.iter().map(|r| (&r.key()).into()).collect(),
        more: false,
        synced: true,
    }
}

fn more(update: wire::Update) -> wire::Update {
    wire::Update {
        more: true,
        synced: false,
        ..update
    }
}

fn ack(nonce: u64) -> wire::Ack {
    wire::Ack {
        nonce,
        rejected: Vec::new(),
    }
}

fn named(held: &[wire::Held]) -> Vec<(String, bool)> {
    (held.iter().flat_map(|message| &message.resources))
        .map(|held| (held.name.as_ref().unwrap().name.clone(), held.on_demand))
        .collect()
}

fn synced(resources: &[Resource]) -> Replica {
    let mut replica = Replica::new("n1".into());
    replica.begin();
    assert_eq!(replica.update(update(1, resources, &[])), None);
    replica.take().unwrap();
    replica
}

#[test]
fn the_first_update_is_complete_and_acknowledged_once_it_is_applied() {
    let mut replica = Replica::new("n1".into());
    let held = replica.begin();
    assert!(held.len() == 1 && held[0].last && held[0].resources.is_empty());
    let first = more(update(1, &[peer(1, 0)], &[]));
    assert_eq!(
        replica.update(first),
        Some(ack(1)),
        "a part is answered at once"
    );
    assert_eq!(replica.take(), None, "a part is not applied");
    assert_eq!(replica.update(update(2, &[peer(2, 0)], &[])), None);
    let taken = replica.take().unwrap();
    assert!(taken.update.complete);
    assert_eq!(taken.update.upserts, [peer(1, 0), peer(2, 0)]);
    assert_eq!(taken.acks, [ack(2)]);
    assert_eq!(replica.take(), None);
}

#[test]
fn an_empty_controller_makes_a_complete_update_too() {
    let mut replica = Replica::new("n1".into());
    replica.begin();
    assert_eq!(replica.update(update(1, &[], &[])), None);
    let taken = replica.take().unwrap();
    assert!(taken.update.complete && taken.update.upserts.is_empty());
}

#[test]
fn a_later_stream_makes_differences_only() {
    let mut replica = synced(&[peer(1, 0), peer(2, 0), peer(3, 0)]);
    assert_eq!(named(&replica.begin()).len(), 3);
    assert_eq!(
        replica.update(update(1, &[peer(2, 9)], &[peer(3, 0)])),
        None
    );
    let taken = replica.take().unwrap();
    assert!(!taken.update.complete);
    assert_eq!(taken.update.upserts, [peer(2, 9)]);
    assert_eq!(taken.update.removals, [peer(3, 0).key()]);
}

#[test]
fn a_later_stream_without_differences_is_acknowledged_at_once_and_applies_nothing() {
    let mut replica = synced(&[peer(1, 0)]);
    replica.begin();
    assert_eq!(replica.update(update(1, &[], &[])), Some(ack(1)));
    assert_eq!(replica.take(), None);
}

#[test]
fn what_arrived_before_a_stream_broke_is_held_and_applied_with_the_rest() {
    let mut replica = Replica::new("n1".into());
    replica.begin();
    replica.update(more(update(1, &[peer(1, 0), peer(2, 0)], &[])));
    assert_eq!(named(&replica.begin()).len(), 2);
    assert_eq!(replica.take(), None);
    assert_eq!(
        replica.update(update(1, &[peer(3, 0)], &[peer(2, 0)])),
        None
    );
    let taken = replica.take().unwrap();
    assert!(taken.update.complete && taken.update.removals.is_empty());
    assert_eq!(taken.update.upserts, [peer(1, 0), peer(3, 0)]);
}

#[test]
fn what_is_not_taken_gathers_the_newest_state() {
    let mut replica = synced(&[peer(1, 0), peer(2, 0)]);
    assert_eq!(
        replica.update(update(2, &[peer(1, 1), peer(3, 0)], &[])),
        None
    );
    assert_eq!(
        replica.update(update(3, &[peer(1, 2)], &[peer(2, 0), peer(3, 0)])),
        None
    );
    let taken = replica.take().unwrap();
    assert_eq!(taken.update.upserts, [peer(1, 2)]);
    assert_eq!(taken.update.removals, [peer(2, 0).key(), peer(3, 0).key()]);
    assert_eq!(taken.acks, [ack(2), ack(3)]);
}

#[test]
fn a_bad_resource_is_rejected_by_name_and_its_last_good_content_stays() {
    let mut replica = synced(&[peer(1, 0)]);
    let mut bad = wire::Upsert::decode(Encoded::new(&peer(1, 1)).upsert().clone()).unwrap();
    bad.resource = vec![0xff].into();
    bad.version = vec![1].into();
    let unknown = wire::Upsert {
        name: Some(ResourceName {
            kind: 99,
            namespace: "shop".to_owned(),
            name: "thing".to_owned(),
        }),
        version: vec![2].into(),
        resource: Bytes::new(),
    };
    let mut message = update(2, &[peer(2, 0)], &[]);
    message.upserts.push(bad.encode_to_vec().into());
    message.upserts.push(unknown.encode_to_vec().into());
    message.upserts.push(vec![0xff].into());
    assert_eq!(replica.update(message), None);
    let taken = replica.take().unwrap();
    assert_eq!(taken.update.upserts, [peer(2, 0)], "the good one counts");
    assert!(taken.update.removals.is_empty());
    let rejected: Vec<_> = (taken.acks[0].rejected.iter())
        .map(|reject| reject.name.as_ref().map(crate::describe))
        .collect();
    assert_eq!(
        rejected,
        [
            Some("Peer peer1".to_owned()),
            Some("kind 99 shop/thing".to_owned()),
            None
        ]
    );
    assert_eq!(
        replica.rejected().len(),
        1,
        "a report knows model kinds only"
    );
    assert_eq!(named(&replica.begin()).len(), 3, "it is not sent again");
    replica.update(update(1, &[peer(1, 3)], &[]));
    assert_eq!(replica.rejected(), [], "a good one makes up for it");
}

#[test]
fn of_policies_that_cannot_be_used_an_allow_is_withdrawn_and_a_deny_stays() {
    let rules = [policy("open", Action::Allow), policy("shut", Action::Deny)];
    let mut kept = Snapshot::default();
    kept.apply(Update {
        upserts: rules.to_vec(),
        ..Update::default()
    });
    for mut replica in [synced(&rules), Replica::of("n1".into(), &kept)] {
        replica.begin();
        let mut message = update(1, &[], &[]);
        for rule in &rules {
            let mut bad = wire::Upsert::decode(Encoded::new(rule).upsert().clone()).unwrap();
            bad.resource = vec![0xff].into();
            message.upserts.push(bad.encode_to_vec().into());
        }
        assert_eq!(replica.update(message), None);
        let taken = replica.take().unwrap();
        assert_eq!(taken.acks[0].rejected.len(), 2);
        assert_eq!(taken.update.upserts, []);
        assert_eq!(taken.update.removals, [rules[0].key()]);
        replica.update(update(2, &rules, &[]));
        assert_eq!(replica.take().unwrap().update.upserts, rules);
    }
}

#[test]
fn an_allow_that_is_replaced_before_it_was_taken_is_not_applied() {
    let rule = policy("open", Action::Allow);
    let mut replica = synced(&[]);
    replica.update(more(update(2, std::slice::from_ref(&rule), &[])));
    let mut bad = wire::Upsert::decode(Encoded::new(&rule).upsert().clone()).unwrap();
    bad.resource = vec![0xff].into();
    let mut message = update(3, &[], &[]);
    message.upserts.push(bad.encode_to_vec().into());
    replica.update(message);
    assert_eq!(replica.take().unwrap().update.upserts, []);
}

#[test]
fn a_resource_under_another_name_is_rejected() {
    let mut replica = synced(&[]);
    let mut lie = wire::Upsert::decode(Encoded::new(&peer(1, 0)).upsert().clone()).unwrap();
    lie.name = Some((&peer(2, 0).key()).into());
    let mut message = update(2, &[], &[]);
    message.upserts.push(lie.encode_to_vec().into());
    let ack = replica.update(message).unwrap();
    assert!(
        ack.rejected[0].reason.contains("the resource says"),
        "{ack:?}"
    );
}

#[test]
fn an_answer_is_applied_and_kept_as_one_that_was_asked_for() {
    let mut replica = synced(&[pod("n1")]);
    let answer = |found| wire::Answer {
        address: vec![192, 0, 2, 1].into(),
        found,
    };
    let workload = wire::answer::Found::Workload(Encoded::new(&pod("n2")).upsert().clone());
    let (address, found) = replica.answer(answer(Some(workload))).unwrap();
    assert_eq!(address, IpAddr::from([192, 0, 2, 1]));
    assert!(matches!(found, Some(Found::Workload(w)) if w.node.as_deref() == Some("n2")));
    assert_eq!(replica.take().unwrap().update.upserts, [pod("n2")]);
    assert_eq!(
        named(&replica.begin()),
        [
            ("pod-of-n1".to_owned(), false),
            ("pod-of-n2".to_owned(), true)
        ]
    );
    assert_eq!(replica.answer(answer(None)).unwrap().1, None);
    let node = wire::answer::Found::Node("n3".to_owned());
    assert_eq!(
        replica.answer(answer(Some(node))).unwrap().1,
        Some(Found::Node("n3".into()))
    );
    let peer = wire::answer::Found::Workload(Encoded::new(&peer(1, 0)).upsert().clone());
    replica.answer(answer(Some(peer))).unwrap_err();
}

#[test]
fn an_agent_that_kept_its_state_is_sent_differences_only() {
    let mut kept = Snapshot::default();
    kept.apply(Update {
        upserts: vec![peer(1, 0), pod("n2")],
        ..Update::default()
    });
    let mut replica = Replica::of("n1".into(), &kept);
    let held = replica.begin();
    let versions: Vec<_> = held[0].resources.iter().map(|held| &held.version).collect();
    assert_eq!(
        versions,
        [
            &Encoded::new(&peer(1, 0)).version().to_bytes(),
            &Encoded::new(&pod("n2")).version().to_bytes()
        ],
        "as the controller names them"
    );
    assert!(held[0].resources[1].on_demand);
    replica.update(update(1, &[], &[peer(1, 0)]));
    let taken = replica.take().unwrap();
    assert!(!taken.update.complete);
    assert_eq!(taken.update.removals, [peer(1, 0).key()]);
}

#[test]
fn what_is_held_is_named_in_as_many_messages_as_it_takes() {
    let mut kept = Snapshot::default();
    let resources = (0..2 * HELD_PER_MESSAGE + 1).map(|number| {
        Resource::Peer(Arc::new(Peer {
            name: PeerName::new(&format!("peer{number}")).unwrap(),
            gateways: Vec::new(),
            labels: None,
            not_issued_before: None,
        }))
    });
    kept.apply(Update {
        upserts: resources.collect(),
        ..Update::default()
    });
    let held = Replica::of("n1".into(), &kept).begin();
    let sizes: Vec<_> = held.iter().map(|m| (m.resources.len(), m.last)).collect();
    assert_eq!(
        sizes,
        [
            (HELD_PER_MESSAGE, false),
            (HELD_PER_MESSAGE, false),
            (1, true)
        ]
    );
}
