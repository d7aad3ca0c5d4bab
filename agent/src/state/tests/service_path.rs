//! The Service path: which ports are taken for which imports, and who its clients are.

mod local;

use std::{sync::Mutex, time::Duration};

use clusterlink_model::Node as NodeResource;
use futures::{FutureExt as _, future::BoxFuture};

use super::*;
use crate::control::{Found, Lookup};

const NODE_V4: &str = "192.0.2.1";
const NODE_V6: &str = "fd00::1";

fn leased(name: &str, port: u16) -> Resource {
    let Resource::Import(import) = import(name, "east") else {
        unreachable!()
    };
    let mut import = Import::clone(&import);
    import.target_port = NonZeroU16::new(port);
    Resource::Import(Arc::new(import))
}

fn node(name: &str, address: &str, range: &str) -> Resource {
    Resource::Node(Arc::new(NodeResource {
        name: name.into(),
        addresses: vec![address.parse().unwrap()],
        pod_ranges: vec![range.parse().unwrap()],
        zone: None,
    }))
}

fn pod(name: &str, address: &str, host_network: bool) -> Arc<Workload> {
    let Resource::Workload(pod) = workload(name, name, name) else {
        unreachable!()
    };
    let mut pod = Workload::clone(&pod);
    pod.addresses = vec![address.parse().unwrap()];
    pod.uids = vec![name.into()];
    pod.host_network = host_network;
    Arc::new(pod)
}

/// What the kernel holds and what the gateway is told, which is the same.
fn targets(node: &Node) -> Vec<(SocketAddr, u32)> {
    let mut held = node.datapath.targets().unwrap();
    held.sort();
    let view = node.state.view().borrow().clone();
    let mut told: Vec<_> = view.targets.iter().map(|(at, n)| (*at, *n)).collect();
    told.sort();
    assert_eq!(held, told);
    held
}

fn both(port: u16, import: u32) -> [(SocketAddr, u32); 2] {
    [NODE_V4, NODE_V6].map(|at| (SocketAddr::new(at.parse().unwrap(), port), import))
}

#[test]
fn target_ports_follow_the_imports() {
    let mut node = Node::new();
    node.state
        .apply(complete(vec![leased("a", 30_001), import("b", "east")]));
    assert_eq!(targets(&node), both(30_001, 0));
    node.state.apply(upsert(vec![leased("b", 30_002)]));
    let expected = [
        both(30_001, 0)[0],
        both(30_002, 1)[0],
        both(30_001, 0)[1],
        both(30_002, 1)[1],
    ];
    assert_eq!(targets(&node), expected);
    // A port passes from one import to another in one update.
    node.datapath.take_writes();
    node.state
        .apply(upsert(vec![leased("a", 30_003), leased("b", 30_001)]));
    let removed = |write: &Write| matches!(write, Write::TargetRemoved(_));
    let writes = node.datapath.take_writes();
    let last_removed = writes.iter().rposition(removed).unwrap();
    let first_set = (writes
        .iter()
        .position(|write| matches!(write, Write::Target(..))))
    .unwrap();
    assert!(last_removed < first_set, "{writes:?}");
    let mut expected = [both(30_001, 1), both(30_003, 0)].concat();
    expected.sort();
    assert_eq!(targets(&node), expected);
    node.state.apply(remove(ResourceKey::Import(object("a"))));
    node.state.apply(upsert(vec![import("b", "east")]));
    assert_eq!(targets(&node), []);
}

#[test]
fn an_import_that_the_kernel_has_no_room_for_is_rejected_until_there_is_some() {
    let mut node = Node::new();
    let rejected = |node: &Node| -> Vec<(ResourceKey, String)> {
        let rejected = node.state.report().rejected.into_iter();
        rejected.map(|one| (one.key, one.reason)).collect()
    };
    let key = |name: &str| ResourceKey::Import(object(name));
    node.state.apply(complete(vec![leased("a", 30_001)]));
    assert_eq!(rejected(&node), []);
    // Each import has one address to steer, and two of the Service path.
    node.datapath.set_room(Some(2));
    node.state.apply(upsert(vec![leased("b", 30_002)]));
    let of = rejected(&node);
    assert!(
        matches!(&of[..], [(b, why)] if *b == key("b") && why.contains("30002")),
        "{of:?}"
    );
    node.state.apply(upsert(vec![import("c", "east")]));
    let of = rejected(&node);
    assert!(
        matches!(&of[..], [_, (c, why)] if *c == key("c") && why.contains("no room to steer")),
        "{of:?}"
    );
    node.datapath.set_room(None);
    node.state.tick(Instant::now());
    assert_eq!(rejected(&node), []);
    assert_eq!(targets(&node).len(), 4);
}

#[test]
fn target_ports_follow_the_node_to_its_addresses() {
    let mut node = Node::new();
    node.state.config.target_addresses.clear();
    node.state.config.host_addresses = vec!["198.51.100.1".parse().unwrap()];
    let at = |address: &str, port| {
        let import = u32::from(port == 30_002);
        (SocketAddr::new(address.parse().unwrap(), port), import)
    };
    let here = |address: &str| self::node("here", address, "10.244.0.0/24");
    let imports = || [leased("a", 30_001), leased("b", 30_002)];
    node.state.apply(complete(imports().into()));
    let both_at = |address| [at(address, 30_001), at(address, 30_002)];
    assert_eq!(targets(&node), both_at("198.51.100.1"), "the host's");
    node.state.apply(upsert(vec![here("192.0.2.7")]));
    assert_eq!(targets(&node), both_at("192.0.2.7"), "the cluster's");
    let other = self::node("there", "192.0.2.9", "10.244.1.0/24");
    node.datapath.take_writes();
    node.state.apply(upsert(vec![other]));
    assert_eq!(
        node.datapath.take_writes(),
        [],
        "another node's are none of ours"
    );
    // The address and an import change in one update.
    node.state
        .apply(upsert(vec![here("192.0.2.8"), leased("a", 30_003)]));
    assert_eq!(
        targets(&node),
        [at("192.0.2.8", 30_002), at("192.0.2.8", 30_003)]
    );
    node.state.apply(remove(ResourceKey::Import(object("b"))));
    assert_eq!(targets(&node), [at("192.0.2.8", 30_003)]);
    node.state.apply(remove(ResourceKey::Node("here".into())));
    assert_eq!(targets(&node), [at("198.51.100.1", 30_003)]);
    let mut everything = imports().to_vec();
    everything.push(here("192.0.2.7"));
    node.state.apply(complete(everything));
    assert_eq!(targets(&node), both_at("192.0.2.7"));
}

#[test]
fn a_merged_import_has_targets_and_steers_nothing() {
    let mut node = Node::new();
    let Resource::Import(merged) = leased("a", 30_001) else {
        unreachable!()
    };
    let mut merged = Import::clone(&merged);
    merged.addresses.clear();
    node.state
        .apply(complete(vec![Resource::Import(Arc::new(merged))]));
    assert_eq!(targets(&node), both(30_001, 0));
    assert_eq!(node.datapath.services().unwrap(), []);
}

#[test]
fn a_restart_keeps_the_targets_that_still_mean_something() {
    let mut node = Node::new();
    node.state
        .apply(complete(vec![leased("a", 30_001), leased("b", 30_002)]));
    let mut node = node.restarted(|datapath| {
        let stale = "192.0.2.1:39999".parse().unwrap();
        datapath.set_target(stale, 700).unwrap();
    });
    node.state.apply(upsert(vec![known_peer("east")]));
    assert_eq!(
        node.datapath.targets().unwrap().len(),
        4,
        "what no import stands for is gone at once, the rest is refused until all is known"
    );
    node.state.apply(complete(vec![leased("b", 30_002)]));
    assert_eq!(targets(&node), both(30_002, 1));
}

#[test]
fn a_pods_cgroup_counts_only_in_a_network_that_is_the_pods() {
    let mut node = Node::new();
    let own = node.cgroup("web");
    let of_node = node.cgroup("proxy");
    node.state.apply(complete(vec![
        Resource::Workload(pod("web", "10.244.1.5", false)),
        Resource::Workload(pod("proxy", NODE_V4, true)),
    ]));
    for (name, cgroup, source, same_namespace, counts) in [
        ("from the pod", own, "10.244.1.5:1", false, true),
        ("from another address", own, "10.244.1.6:1", false, false),
        ("from the node's network", own, "192.0.2.1:1", true, false),
        (
            "from the node's own pod",
            of_node,
            "192.0.2.1:1",
            true,
            true,
        ),
        (
            "which has all its addresses",
            of_node,
            "127.0.0.1:1",
            true,
            true,
        ),
        ("and no others", of_node, "192.0.2.1:1", false, false),
    ] {
        let client = node.client(cgroup, source, same_namespace);
        let pod = matches!(client, Client::Pod { .. });
        assert_eq!(pod, counts, "{name}: {client:?}");
        assert!(pod || client == Client::Unknown, "{name}: {client:?}");
    }
}

/// A client's address, with some port.
fn from(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 40_000)
}

/// What clients connect to.
fn asked() -> SocketAddr {
    "10.96.0.9:80".parse().unwrap()
}

/// Where they are sent.
fn target() -> SocketAddr {
    "192.0.2.1:30001".parse().unwrap()
}

/// A connection to a ClusterIP that kube-proxy has led to the target port.
fn by_proxy(source: SocketAddr) -> Connection {
    Connection {
        source,
        destination: target(),
        asked: asked(),
    }
}

/// A connection to the target port itself.
fn direct(source: SocketAddr) -> Connection {
    Connection {
        asked: target(),
        ..by_proxy(source)
    }
}

/// A controller that learns of pods while it is asked.
#[derive(Default)]
struct Controller {
    asked: Mutex<Vec<IpAddr>>,
    /// Which question is the first to find the pod.
    found_at: usize,
}

impl Lookup for Controller {
    fn lookup(&self, address: IpAddr) -> BoxFuture<'_, Found> {
        let mut asked = self.asked.lock().unwrap();
        asked.push(address);
        let found = if asked.len() >= self.found_at {
            Found::Workload(pod("far", "10.244.2.5", false))
        } else {
            Found::Nothing
        };
        async move { found }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_by_address_is_who_nodes_and_pods_and_the_controller_say() {
    let mut node = Node::new();
    let controller = Arc::new(Controller {
        found_at: 3,
        ..Controller::default()
    });
    let origins = (node.state).origins(node.datapath.clone());
    let origins = origins.with_lookup(controller.clone());
    let at = |text: &str| origins.client_at(from(text));
    assert_eq!(at("10.244.1.5"), Client::Unknown, "nothing is known yet");
    node.state.apply(complete(vec![
        self::node("here", "192.0.2.7", "10.244.1.0/24"),
        self::node("there", "192.0.2.8", "10.244.2.0/24"),
        Resource::Workload(pod("web", "10.244.1.5", false)),
        Resource::Workload(pod("proxy", NODE_V4, true)),
    ]));
    assert!(matches!(at("10.244.1.5"), Client::Pod { .. }));
    assert!(matches!(at("::ffff:10.244.1.5"), Client::Pod { .. }));
    for own in [NODE_V4, "192.0.2.7", GATEWAY_V4] {
        assert_eq!(at(own), Client::Unknown, "{own} may be anybody's");
    }
    assert_eq!(at("192.0.2.8"), Client::Unknown);
    assert_eq!(at("10.244.2.5"), Client::Unknown);

    // The controller hears of the pod when it is asked for the third time.
    let far = origins.look_up(direct(from("10.244.2.5")));
    let far = tokio::time::timeout(Duration::from_secs(2), far)
        .await
        .unwrap()
        .client;
    assert!(matches!(far, Client::Pod { .. }), "{far:?}");
    assert_eq!(controller.asked.lock().unwrap().len(), 3);
    assert!(matches!(at("10.244.2.5"), Client::Pod { .. }));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(at("10.244.2.5"), Client::Unknown, "it is asked for again");

    // Nodes come and go by themselves.
    node.state.apply(upsert(vec![self::node(
        "new",
        "192.0.2.9",
        "10.244.3.0/24",
    )]));
    let known = origins.look_up(direct(from("192.0.2.9"))).await;
    assert_eq!(known.client, Client::Unknown);
    assert_eq!(
        controller.asked.lock().unwrap().len(),
        3,
        "it is not asked for"
    );
    node.state
        .apply(remove(ResourceKey::Workload(object("web"))));
    assert_eq!(at("10.244.1.5"), Client::Unknown);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_the_controller_does_not_know_is_outside_unless_pods_have_such() {
    let mut node = Node::new();
    node.state.apply(complete(vec![self::node(
        "here",
        "192.0.2.7",
        "10.244.1.0/24",
    )]));
    let controller = Arc::new(Controller {
        found_at: usize::MAX,
        ..Controller::default()
    });
    let origins = (node.state).origins(node.datapath.clone());
    let origins = origins.with_lookup(controller.clone());
    let outside = origins.look_up(direct(from("198.51.100.1"))).await;
    assert_eq!(outside.client, Client::Outside);
    assert_eq!(origins.client_at(from("198.51.100.1")), Client::Outside);
    let pod = origins.look_up(direct(from("10.244.1.77")));
    let held = tokio::time::timeout(Duration::from_secs(2), pod).await;
    assert!(held.is_err(), "{held:?}");
    let asked = controller.asked.lock().unwrap().len();
    assert!((5..=10).contains(&asked), "asked {asked} times");
}
