use std::collections::BTreeMap;

use clusterlink_model::{
    Node, ObjectName, Peer, PeerName, Resource, Snapshot, Update, Workload, WorkloadAttributes,
};
use futures::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::publish::{Change, Publisher};

fn peer(number: u8, stamp: i64) -> Resource {
    Resource::Peer(Arc::new(Peer {
        name: PeerName::new(&format!("peer{number}")).unwrap(),
        gateways: Vec::new(),
        labels: None,
        not_issued_before: Some(stamp),
    }))
}

fn pod(number: u8, node: Option<&str>, app: &str) -> Resource {
    let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
    Resource::Workload(Arc::new(Workload {
        name: ObjectName::new("shop", format!("pod{number}")),
        attributes: Arc::new(WorkloadAttributes {
            namespace: "shop".into(),
            service_account: "default".into(),
            labels,
        }),
        cgroup: None,
        addresses: vec![address(number)],
        uids: Vec::new(),
        node: node.map(Into::into),
        host_network: false,
    }))
}

fn address(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

fn node(name: &str, number: u8) -> Resource {
    Resource::Node(Arc::new(Node {
        name: name.into(),
        addresses: vec![[192, 0, 2, number].into()],
        pod_ranges: Vec::new(),
        zone: None,
    }))
}

fn upsert(resource: Resource) -> Change {
    (resource.key(), Some(resource))
}

fn removal(resource: &Resource) -> Change {
    (resource.key(), None)
}

fn held(resources: &[&Resource], on_demand: bool) -> Held {
    let version = |resource| HeldVersion {
        version: clusterlink_proto::Encoded::new(resource).version().clone(),
        on_demand,
    };
    resources.iter().map(|r| (r.key(), version(r))).collect()
}

fn resources(batch: &Batch) -> Vec<Resource> {
    batch
        .upserts
        .iter()
        .map(|entry| entry.resource.clone())
        .collect()
}

fn view(publisher: &Publisher, node: &str) -> NodeView {
    publisher.subscriber().node_view(node.into())
}

#[test]
fn an_agent_is_given_the_workloads_of_its_node_and_everything_else() {
    let publisher = Publisher::new();
    publisher.publish([
        upsert(peer(1, 0)),
        upsert(pod(1, Some("n1"), "web")),
        upsert(pod(2, Some("n2"), "web")),
        upsert(pod(3, None, "web")),
    ]);
    let batch = view(&publisher, "n1").first(&Held::new());
    assert_eq!(resources(&batch), [peer(1, 0), pod(1, Some("n1"), "web")]);
    assert!(batch.removals.is_empty());
}

#[test]
fn a_workload_that_moves_is_removed_where_it_was_and_named_where_it_is() {
    let publisher = Publisher::new();
    publisher.publish([upsert(pod(1, Some("n1"), "web"))]);
    let (mut from, mut to) = (view(&publisher, "n1"), view(&publisher, "n2"));
    let mut standalone = publisher.subscriber().subscribe();
    from.first(&Held::new());
    to.first(&Held::new());
    standalone.next().now_or_never().unwrap();
    let moved = pod(1, Some("n2"), "web");
    publisher.publish([upsert(moved.clone())]);
    let batch = from.next().unwrap();
    assert_eq!(
        (resources(&batch), batch.removals),
        (vec![], vec![moved.key()])
    );
    let batch = to.next().unwrap();
    assert_eq!(
        (resources(&batch), batch.removals),
        (vec![moved.clone()], vec![])
    );
    let update = standalone.next().now_or_never().flatten().unwrap();
    assert_eq!((update.upserts, update.removals), (vec![moved], vec![]));
}

#[test]
fn changes_of_other_nodes_are_nothing_to_send() {
    let publisher = Publisher::new();
    publisher.publish([]);
    let mut view = view(&publisher, "n1");
    view.first(&Held::new());
    publisher.publish([upsert(pod(2, Some("n2"), "web"))]);
    publisher.publish([removal(&pod(2, Some("n2"), "web"))]);
    assert!(view.next().unwrap().is_empty());
    assert_eq!(view.changed().now_or_never(), None);
}

#[test]
fn what_is_held_is_not_sent_again_and_what_is_gone_is_removed() {
    let publisher = Publisher::new();
    let (same, old, gone) = (peer(1, 0), peer(2, 0), peer(3, 0));
    let moved = pod(1, Some("n1"), "web");
    publisher.publish([
        upsert(same.clone()),
        upsert(peer(2, 1)),
        upsert(pod(1, Some("n2"), "web")),
    ]);
    let held = held(&[&same, &old, &gone, &moved], false);
    let batch = view(&publisher, "n1").first(&held);
    assert_eq!(resources(&batch), [peer(2, 1)]);
    let removals: std::collections::BTreeSet<_> = batch.removals.into_iter().collect();
    assert_eq!(removals, [gone.key(), moved.key()].into());
}

#[test]
fn a_workload_of_another_node_is_kept_current_once_it_was_asked_for() {
    let publisher = Publisher::new();
    publisher.publish([
        upsert(pod(1, Some("n1"), "web")),
        upsert(pod(2, Some("n2"), "web")),
        upsert(node("n2", 2)),
    ]);
    let mut view = view(&publisher, "n1");
    view.first(&Held::new());
    assert!(matches!(view.find(address(1)), Some(Owner::Workload(_))));
    assert!(matches!(view.find(address(2)), Some(Owner::Workload(_))));
    assert!(matches!(view.find([192, 0, 2, 2].into()), Some(Owner::Node(name)) if &*name == "n2"));
    assert!(view.find(address(9)).is_none());
    assert!(view.next().unwrap().is_empty(), "the answer has said it");

    publisher.publish([upsert(pod(2, Some("n2"), "db"))]);
    assert_eq!(resources(&view.next().unwrap()), [pod(2, Some("n2"), "db")]);
    publisher.publish([removal(&pod(2, Some("n2"), "db"))]);
    assert_eq!(view.next().unwrap().removals, [pod(2, None, "").key()]);
    publisher.publish([upsert(pod(2, Some("n2"), "web"))]);
    assert!(
        view.next().unwrap().is_empty(),
        "it has to be asked for again"
    );
}

#[test]
fn what_was_asked_for_stays_so_over_a_reconnect_and_becomes_ordinary_on_its_own_node() {
    let publisher = Publisher::new();
    let there = pod(2, Some("n2"), "web");
    publisher.publish([upsert(there.clone())]);
    let mut view = view(&publisher, "n1");
    assert!(view.first(&held(&[&there], true)).is_empty());
    publisher.publish([upsert(pod(2, Some("n2"), "db"))]);
    assert_eq!(resources(&view.next().unwrap()), [pod(2, Some("n2"), "db")]);
    let here = pod(2, Some("n1"), "db");
    publisher.publish([upsert(here.clone())]);
    assert_eq!(resources(&view.next().unwrap()), [here]);
    let gone = pod(2, Some("n2"), "db");
    publisher.publish([upsert(gone.clone())]);
    let batch = view.next().unwrap();
    assert_eq!(
        (resources(&batch), batch.removals),
        (vec![], vec![gone.key()])
    );
}

#[test]
fn the_address_of_a_pod_with_its_nodes_network_is_the_nodes() {
    let publisher = Publisher::new();
    let Resource::Workload(host) = pod(1, Some("n2"), "web") else {
        panic!("it is one");
    };
    let host = Workload {
        host_network: true,
        addresses: vec![[192, 0, 2, 2].into()],
        ..Workload::clone(&host)
    };
    publisher.publish([
        upsert(node("n2", 2)),
        upsert(Resource::Workload(Arc::new(host))),
    ]);
    let mut view = view(&publisher, "n1");
    view.first(&Held::new());
    assert!(matches!(
        view.find([192, 0, 2, 2].into()),
        Some(Owner::Node(_))
    ));
}

#[test]
fn an_address_that_two_pods_have_is_the_newer_ones() {
    let publisher = Publisher::new();
    let Resource::Workload(second) = pod(2, Some("n2"), "new") else {
        panic!("it is one");
    };
    let second = Resource::Workload(Arc::new(Workload {
        addresses: vec![address(1)],
        ..Workload::clone(&second)
    }));
    publisher.publish([upsert(second.clone()), upsert(pod(1, Some("n2"), "old"))]);
    let mut view = view(&publisher, "n1");
    view.first(&Held::new());
    let owner = |view: &mut NodeView| match view.find(address(1)) {
        Some(Owner::Workload(entry)) => Some(entry.resource.key()),
        _ => None,
    };
    assert_eq!(owner(&mut view), Some(pod(1, None, "").key()));
    publisher.publish([removal(&pod(1, None, ""))]);
    assert_eq!(owner(&mut view), Some(second.key()));
    publisher.publish([removal(&second)]);
    assert_eq!(owner(&mut view), None);
}

#[test]
fn the_workload_that_was_asked_for_first_goes_first() {
    let publisher = Publisher::new();
    let pods = (0..=255).map(|number| upsert(pod(number, Some("n2"), "web")));
    publisher.publish(pods);
    let mut view = view(&publisher, "n1");
    view.on_demand = OnDemand::new(2);
    view.first(&Held::new());
    for number in [1, 2, 1, 3] {
        view.find(address(number)).unwrap();
    }
    assert_eq!(view.changed().now_or_never(), Some(true));
    assert_eq!(view.next().unwrap().removals, [pod(1, None, "").key()]);
    assert!(view.next().unwrap().is_empty());
}

#[test]
fn an_agent_that_lags_too_far_behind_is_told_so() {
    let publisher = Publisher::with_removals_kept(2);
    publisher.publish((0..9).map(|number| upsert(peer(number, 0))));
    let mut view = view(&publisher, "n1");
    view.first(&Held::new());
    publisher.publish((0..9).map(|number| removal(&peer(number, 0))));
    assert_eq!(view.next().map(|_| ()), Err(Lagged));
}

proptest! {
    /// Against a plain model: two agents read now and then, and come back with what they hold.
    #[test]
    fn batches_add_up_to_what_each_node_needs(
        steps in proptest::collection::vec(
            (0u8..6, proptest::option::of((0u8..3, 0u8..2)), 0u8..4), 0..120),
    ) {
        let publisher = Publisher::new();
        publisher.publish([]);
        let names = ["n1", "n2"];
        let mut views = names.map(|name| view(&publisher, name));
        let mut applied = names.map(|_| Snapshot::default());
        let mut truth: BTreeMap<u8, Option<u8>> = BTreeMap::new();
        for view in &mut views {
            view.first(&Held::new());
        }
        for (number, state, then) in steps {
            let change = match state {
                Some((on, label)) => {
                    let on = names.get(usize::from(on)).copied();
                    truth.insert(number, on.map(|name| u8::from(name == "n2")));
                    upsert(pod(number, on, if label == 0 { "web" } else { "db" }))
                }
                None => {
                    truth.remove(&number);
                    removal(&pod(number, None, ""))
                }
            };
            publisher.publish([change]);
            let Some(which) = [Some(0), Some(1), None, Some(number % 2)][usize::from(then)] else {
                continue;
            };
            let which = usize::from(which);
            let batch = if then == 3 {
                views[which] = view(&publisher, names[which]);
                let all = applied[which].to_update().upserts;
                views[which].first(&held(&all.iter().collect::<Vec<_>>(), false))
            } else {
                views[which].next().unwrap()
            };
            let upserts = resources(&batch);
            applied[which].apply(Update { upserts, removals: batch.removals, complete: false });
            let expected: Vec<_> = (truth.iter())
                .filter(|(_, on)| **on == Some(u8::try_from(which).unwrap()))
                .map(|(number, _)| ObjectName::new("shop", format!("pod{number}")))
                .collect();
            let found: Vec<_> = applied[which].workloads.keys().cloned().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
