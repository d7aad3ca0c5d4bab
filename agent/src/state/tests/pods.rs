//! Pods of a kubelet, and the lease of what is steered.

use super::*;

const BURSTABLE: &str = "kubepods.slice/kubepods-burstable.slice";

fn pod_path(uid: &str) -> String {
    let escaped = uid.replace('-', "_");
    format!("{BURSTABLE}/kubepods-burstable-pod{escaped}.slice")
}

fn pod(name: &str, app: &str, uids: &[&str]) -> Workload {
    Workload {
        name: object(name),
        attributes: Arc::new(WorkloadAttributes {
            namespace: "shop".into(),
            service_account: "default".into(),
            labels: Labels::from([("app".to_owned(), app.to_owned())]),
        }),
        cgroup: None,
        addresses: Vec::new(),
        uids: uids.iter().map(|&uid| uid.into()).collect(),
        node: Some("n1".into()),
        host_network: false,
    }
}

fn told(workload: Workload) -> Resource {
    Resource::Workload(Arc::new(workload))
}

fn name_of(client: &Client) -> Option<&ObjectName> {
    match client {
        Client::Pod { name, .. } => Some(name),
        Client::Host | Client::Outside | Client::Unknown => None,
    }
}

#[test]
fn a_pod_is_known_by_its_uid_and_its_containers_with_it() {
    let mut node = Node::new();
    let id = node.cgroup(&pod_path("a-b"));
    let container = node.cgroup(&format!("{}/cri-containerd-1.scope", pod_path("a-b")));
    node.state.apply(complete(vec![
        import("cart", "east"),
        known_peer("east"),
        policy("allow", Action::Allow, Some("web"), None),
        told(pod("web", "web", &["a-b"])),
    ]));
    assert!(node.passes(id, "cart"));
    // The kernel names the nearest cgroup that is known: for a container that is its pod.
    assert_eq!(node.class(container), None);
    let client = node.client(id, "127.0.0.1:1", true);
    assert_eq!(name_of(&client), Some(&object("web")));
    assert_eq!(node.state.report().problems, Vec::<String>::new());
    assert_eq!(node.state.report().identified, 1);
}

#[tokio::test]
async fn a_socket_of_a_container_is_its_pods_and_never_the_hosts() {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    static SOCKET: AtomicU64 = AtomicU64::new(0);
    let mut node = Node::new();
    let container = |uid: &str| format!("{}/cri-containerd-1.scope", pod_path(uid));
    let (known, early) = (
        node.cgroup(&container("a-b")),
        node.cgroup(&container("c-d")),
    );
    let service = node.cgroup("system.slice/sshd.service");
    let mut web = pod("web", "web", &["a-b"]);
    web.host_network = true;
    let here = Resource::Node(Arc::new(clusterlink_model::Node {
        name: "here".into(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        pod_ranges: Vec::new(),
        zone: None,
    }));
    node.state.apply(complete(vec![told(web), here]));
    let origins = (node.state)
        .origins(node.datapath.clone())
        .with_local_clients(LocalClients {
            sockets: |_, _| Ok(Some(SOCKET.load(Relaxed))),
            originals: |_, _| Ok(None),
        });
    let destination = "192.0.2.1:20000".parse().unwrap();
    let connection = Connection {
        source: "192.0.2.1:40000".parse().unwrap(),
        destination,
        asked: destination,
    };
    for (cgroup, name, is_host) in [
        (known, Some(object("web")), false),
        (early, None, false),
        (service, None, true),
    ] {
        SOCKET.store(cgroup, Relaxed);
        let client = origins.look_up(connection).await.client;
        assert_eq!(name_of(&client), name.as_ref(), "{client:?}");
        assert_eq!(client == Client::Host, is_host, "{client:?}");
    }
}

#[test]
fn a_pod_that_is_not_announced_is_unknown_and_never_the_host() {
    let mut node = Node::new();
    let early = node.cgroup(&pod_path("early"));
    let allow_host = policy("allow", Action::Allow, None, None);
    node.state.apply(complete(vec![
        import("cart", "east"),
        known_peer("east"),
        allow_host,
    ]));
    assert!(node.datapath.allows(CLASS_HOST, 0), "the host may");
    let class = node.cgroup(BURSTABLE);
    let root = node.cgroup("kubepods.slice");
    for (cgroup, what) in [
        (early, "a pod"),
        (class, "a pod whose directory was not seen yet"),
        (root, "a guaranteed pod whose directory was not seen yet"),
    ] {
        assert_eq!(node.class(cgroup), Some(CLASS_UNKNOWN), "{what}");
        // In the host's network too: that is where a hostNetwork pod is.
        for same_namespace in [true, false] {
            let client = node.client(cgroup, "127.0.0.1:1", same_namespace);
            assert_eq!(client, Client::Unknown, "{what}, {same_namespace}");
        }
    }
    let late = node.cgroup(&pod_path("late"));
    node.state.tick(Instant::now());
    assert_eq!(node.class(late), Some(CLASS_UNKNOWN));
    let mut host_network = pod("late", "web", &["late"]);
    host_network.host_network = true;
    host_network.addresses = vec!["192.0.2.1".parse().unwrap()];
    node.state.apply(upsert(vec![told(host_network)]));
    let client = node.client(late, "192.0.2.1:1", true);
    assert_eq!(name_of(&client), Some(&object("late")));
    assert_eq!(node.client(early, "192.0.2.1:1", true), Client::Unknown);
    let unit = node.cgroup("system.slice/sshd.service");
    assert_eq!(node.client(unit, "192.0.2.1:1", true), Client::Host);
}

#[test]
fn a_pod_seen_above_its_own_cgroup_is_known_by_its_address_if_it_has_one() {
    let mut node = Node::new();
    let class = node.cgroup(BURSTABLE);
    let mut web = pod("web", "web", &["w"]);
    web.addresses = vec!["10.1.0.5".parse().unwrap()];
    node.state.apply(complete(vec![told(web)]));
    let client = node.client(class, "10.1.0.5:9", false);
    assert_eq!(name_of(&client), Some(&object("web")));
    assert_eq!(node.client(class, "10.1.0.6:9", false), Client::Unknown);
    assert_eq!(node.client(class, "10.1.0.5:9", true), Client::Unknown);
}

#[test]
fn a_pod_that_went_leaves_no_identity_to_its_directory() {
    let mut node = Node::new();
    let id = node.cgroup(&pod_path("a"));
    node.state
        .apply(complete(vec![told(pod("web", "web", &["a"]))]));
    assert!(node.class(id) > Some(CLASS_HOST));
    node.state
        .apply(remove(ResourceKey::Workload(object("web"))));
    assert_eq!(node.class(id), Some(CLASS_UNKNOWN));
    node.remove_cgroup(&pod_path("a"));
    node.state.tick(Instant::now());
    assert_eq!(node.class(id), None);
}

#[test]
fn a_static_pod_is_known_by_the_hash_of_its_configuration() {
    let mut node = Node::new();
    let hash = "2fc8e9b1c5a04d6f8e7a9b0c1d2e3f40";
    let id = node.cgroup(&pod_path(hash));
    let mirror = pod("proxy", "proxy", &["0f1e2d3c-4b5a", hash]);
    node.state.apply(complete(vec![told(mirror)]));
    let client = node.client(id, "127.0.0.1:1", true);
    assert_eq!(name_of(&client), Some(&object("proxy")));
}

#[test]
fn two_pods_that_claim_one_directory_are_both_not_believed() {
    let mut node = Node::new();
    // systemd cannot tell these two UIDs apart.
    let id = node.cgroup(&pod_path("a-b"));
    node.state.apply(complete(vec![
        told(pod("one", "web", &["a-b"])),
        told(pod("two", "db", &["a_b"])),
    ]));
    assert_eq!(node.class(id), Some(CLASS_UNKNOWN));
    assert_eq!(node.client(id, "127.0.0.1:1", true), Client::Unknown);
    assert!(node.state.report().problems[0].contains("shop/one, shop/two"));
}

#[test]
fn pods_are_unknown_again_after_a_restart_until_they_are_announced() {
    let mut node = Node::new();
    let id = node.cgroup(&pod_path("a"));
    let announced = complete(vec![
        import("cart", "east"),
        known_peer("east"),
        policy("allow", Action::Allow, None, None),
        told(pod("web", "web", &["a"])),
    ]);
    node.state.apply(announced.clone());
    assert!(node.passes(id, "cart"));
    let mut node = node.restarted(|_| ());
    assert_eq!(node.class(id), Some(CLASS_UNKNOWN));
    node.state.apply(announced);
    assert!(node.passes(id, "cart"));
    assert_eq!(node.state.report().tombstones, 0);
}

fn steered(node: &Node, import: &str) -> bool {
    let addresses = node.state.config.steered_addresses.subscribe();
    let addresses = addresses.borrow();
    (addresses.as_ref()).is_some_and(|all| all.contains(&address_of(import).ip()))
}

#[test]
fn without_a_lease_nothing_is_steered_and_everything_else_stays() {
    let mut node = Node::new();
    let cart = address_of("cart");
    node.state.apply(complete(vec![
        import("cart", "east"),
        known_peer("east"),
        policy("allow", Action::Allow, None, None),
    ]));
    assert!(steered(&node, "cart"));
    node.state.set_lease(false);
    assert_eq!(node.datapath.services().unwrap(), []);
    assert!(!steered(&node, "cart"));
    assert!(node.datapath.allows(CLASS_HOST, 0));
    assert!(node.state.view().borrow().ready);
    // What comes, changes and goes in the meantime is not steered either.
    node.state
        .apply(upsert(vec![import("new", "east"), import("cart", "west")]));
    node.state.apply(remove(ResourceKey::Import(object("new"))));
    assert_eq!(node.datapath.services().unwrap(), []);
    node.state.apply(upsert(vec![import("other", "east")]));
    node.state.set_lease(true);
    let mut services = node.datapath.services().unwrap();
    services.sort();
    let mut expected = [(cart, 0), (address_of("other"), 2)];
    expected.sort();
    assert_eq!(services, expected);
    assert!(steered(&node, "cart") && !steered(&node, "new"));
    node.state.apply(complete(Vec::new()));
    assert!(!steered(&node, "cart"), "it was let go");
}

#[test]
fn a_lease_that_ran_out_while_nobody_was_there_takes_out_what_was_left() {
    let mut node = Node::new();
    node.state.apply(complete(vec![import("cart", "east")]));
    let mut node = node.restarted(|_| ());
    assert_eq!(node.datapath.services().unwrap().len(), 1);
    assert!(steered(&node, "cart"));
    node.state.set_lease(false);
    assert_eq!(node.datapath.services().unwrap(), []);
    node.state.apply(complete(vec![import("cart", "east")]));
    assert_eq!(node.datapath.services().unwrap(), []);
    node.state.set_lease(true);
    assert_eq!(node.datapath.services().unwrap().len(), 1);
}

#[test]
fn a_released_address_is_not_steered_whoever_names_it_until_it_is_released_no_more() {
    let mut node = Node::new();
    let released = |names: &[&str]| {
        let addresses = names.iter().map(|name| address_of(name).ip());
        Some(Arc::new(addresses.collect()))
    };
    let all = || complete(vec![import("cart", "east"), import("other", "east")]);
    node.state.apply(all());
    assert!(steered(&node, "cart") && steered(&node, "other"));
    // The leader is told that it is let go, and then a controller that is late names it all the same.
    node.state.set_released(released(&["cart"]));
    assert!(!steered(&node, "cart") && steered(&node, "other"));
    node.state
        .apply(remove(ResourceKey::Import(object("cart"))));
    node.state.apply(upsert(vec![import("cart", "east")]));
    node.state.set_lease(false);
    node.state.set_lease(true);
    assert!(!steered(&node, "cart") && steered(&node, "other"));
    assert_eq!(
        node.datapath.services().unwrap(),
        [(address_of("other"), 1)]
    );

    // The next process finds it named in the last state of the node.
    let mut node = node.restarted(|_| ());
    node.state.set_released(None);
    assert_eq!(
        node.datapath.services().unwrap(),
        [],
        "that is not known yet"
    );
    node.state.apply(all());
    assert_eq!(node.datapath.services().unwrap(), []);
    node.state.set_released(released(&["cart"]));
    assert!(!steered(&node, "cart") && steered(&node, "other"));
    node.state.set_released(released(&[]));
    assert!(steered(&node, "cart") && steered(&node, "other"));
}
