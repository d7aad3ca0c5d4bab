//! Sequences of updates against the tables of a datapath in memory.

mod pods;

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU16, path::Path};

use clusterlink_gateway::view::{Connection, Origin, Origins as _};
use clusterlink_model::{
    Action, Client, LbScheme, Operator, Peer, Policy, Requirement, Selector, Source,
    WorkloadAttributes,
};
use proptest::prelude::*;

mod service_path;

use super::{local::LocalClients, *};
use crate::datapath::{CLASS_HOST, MemoryDatapath, Write, cgroup_id};

/// An address of the gateway, which is on this node's `lo`.
const GATEWAY_V4: &str = "169.254.77.1";

struct Node {
    dir: tempfile::TempDir,
    datapath: Arc<MemoryDatapath>,
    state: State,
}

impl Node {
    fn new() -> Self {
        Self::on(
            tempfile::tempdir().unwrap(),
            Arc::new(MemoryDatapath::new()),
        )
    }

    fn on(dir: tempfile::TempDir, datapath: Arc<MemoryDatapath>) -> Self {
        // A kubelet makes the root of its pods before any pod, the agent's own included.
        std::fs::create_dir_all(dir.path().join("cgroup/kubepods.slice")).unwrap();
        let config = Config {
            local: LocalPeer {
                name: peer("west"),
                labels: Labels::new(),
            },
            require_listed_peers: false,
            dial_rules: DialRules::default(),
            cgroup_root: dir.path().join("cgroup"),
            steered: dir.path().join("cgroup"),
            finds_pods: true,
            steered_addresses: Steered::default(),
            state_dir: dir.path().to_owned(),
            node: Some("here".into()),
            target_addresses: vec!["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            host_addresses: Vec::new(),
            gateway_addresses: vec![GATEWAY_V4.parse().unwrap()],
            outside_ranges: Vec::new(),
        };
        let mut state = State::new(config, &(datapath.clone() as Arc<dyn Datapath>)).unwrap();
        state.settle();
        Self {
            dir,
            datapath,
            state,
        }
    }

    /// The next process on the same node, which finds in the kernel what this one has left, and what
    /// became of that.
    fn restarted(self, meanwhile: impl FnOnce(&MemoryDatapath)) -> Self {
        let Self {
            dir,
            datapath,
            state,
        } = self;
        drop(state);
        meanwhile(&datapath);
        Self::on(dir, datapath)
    }

    fn cgroup(&self, path: &str) -> u64 {
        let path = self.dir.path().join("cgroup").join(path);
        std::fs::create_dir_all(&path).unwrap();
        cgroup_id(&path).unwrap()
    }

    fn remove_cgroup(&self, path: &str) {
        std::fs::remove_dir_all(self.dir.path().join("cgroup").join(path)).unwrap();
    }

    fn client(&self, cgroup: u64, source: &str, same_namespace: bool) -> Client {
        let origin = Origin {
            import: 0,
            destination: "10.114.0.1:80".parse().unwrap(),
            cgroup,
            cookie: 1,
            same_namespace,
        };
        let origins = self.state.origins(self.datapath.clone());
        origins.client(&origin, source.parse().unwrap())
    }

    fn class(&self, cgroup: u64) -> Option<u32> {
        let workloads = self.datapath.workloads().unwrap();
        workloads
            .iter()
            .find(|(id, _)| *id == cgroup)
            .map(|(_, class)| *class)
    }

    /// Whether the hooks let a cgroup's connect pass to the gateway of an import.
    fn passes(&self, cgroup: u64, import: &str) -> bool {
        effective(
            &Kernel::of(&self.datapath),
            Some(cgroup),
            address_of(import),
        )
    }
}

fn peer(name: &str) -> PeerName {
    PeerName::new(name).unwrap()
}

fn object(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn address_of(name: &str) -> SocketAddr {
    let last = name.bytes().fold(1_u8, u8::wrapping_add);
    SocketAddr::from(([10, 114, 0, last], 80))
}

fn import(name: &str, at: &str) -> Resource {
    Resource::Import(Arc::new(Import {
        name: object(name),
        labels: Labels::new(),
        addresses: vec![address_of(name).ip()],
        port: NonZeroU16::new(80).unwrap(),
        target_port: None,
        sources: vec![Source {
            peer: peer(at),
            export: object(name),
        }],
        scheme: LbScheme::Random,
    }))
}

fn known_peer(name: &str) -> Resource {
    Resource::Peer(Arc::new(Peer {
        name: peer(name),
        gateways: Vec::new(),
        labels: None,
        not_issued_before: None,
    }))
}

fn workload(name: &str, app: &str, cgroup: &str) -> Resource {
    Resource::Workload(Arc::new(Workload {
        name: object(name),
        attributes: Arc::new(WorkloadAttributes {
            namespace: "shop".into(),
            service_account: "default".into(),
            labels: Labels::from([("app".to_owned(), app.to_owned())]),
        }),
        cgroup: Some(cgroup.into()),
        addresses: Vec::new(),
        uids: Vec::new(),
        node: None,
        host_network: false,
    }))
}

fn policy(name: &str, action: Action, app: Option<&str>, export: Option<&str>) -> Resource {
    let selector = |key: &str, value: Option<&str>| Selector {
        requirements: value
            .map(|value| Requirement {
                key: key.to_owned(),
                operator: Operator::In(vec![value.to_owned()]),
            })
            .into_iter()
            .collect(),
    };
    Resource::Policy(Arc::new(Policy {
        name: PolicyName::Namespaced(object(name)),
        action,
        from: vec![selector("client.clusterlink.net/labels.app", app)],
        to: vec![selector("export.clusterlink.net/name", export)],
    }))
}

fn complete(upserts: Vec<Resource>) -> Update {
    Update {
        upserts,
        removals: Vec::new(),
        complete: true,
    }
}

fn upsert(upserts: Vec<Resource>) -> Update {
    Update {
        upserts,
        removals: Vec::new(),
        complete: false,
    }
}

fn remove(key: ResourceKey) -> Update {
    Update {
        upserts: Vec::new(),
        removals: vec![key],
        complete: false,
    }
}

#[test]
fn nothing_is_ready_or_steered_before_the_first_complete_update() {
    let mut node = Node::new();
    node.state.apply(upsert(vec![known_peer("east")]));
    assert!(!node.state.view().borrow().ready);
    node.state
        .apply(complete(vec![import("cart", "east"), known_peer("east")]));
    let view = node.state.view().borrow().clone();
    assert!(view.ready);
    assert_eq!(view.import(0).unwrap().name, object("cart"));
    assert_eq!(node.datapath.services().unwrap(), [(address_of("cart"), 0)]);
}

#[test]
fn the_host_passes_only_what_policy_allows_and_only_to_known_peers() {
    let mut node = Node::new();
    let allow = policy("allow", Action::Allow, None, Some("cart"));
    node.state.apply(complete(vec![
        import("cart", "east"),
        import("other", "east"),
        allow,
    ]));
    assert!(
        !node.datapath.allows(CLASS_HOST, 0),
        "there is no Peer object"
    );
    node.state.apply(upsert(vec![known_peer("east")]));
    assert!(node.datapath.allows(CLASS_HOST, 0));
    assert!(!node.datapath.allows(CLASS_HOST, 1));
    node.state
        .apply(upsert(vec![policy("deny", Action::Deny, None, None)]));
    assert!(!node.datapath.allows(CLASS_HOST, 0));
    node.state
        .apply(remove(ResourceKey::Policy(PolicyName::Namespaced(object(
            "deny",
        )))));
    assert!(node.datapath.allows(CLASS_HOST, 0));
}

#[test]
fn a_workload_is_known_by_its_cgroup_as_soon_as_the_directory_exists() {
    let mut node = Node::new();
    node.state.apply(complete(vec![
        import("cart", "east"),
        known_peer("east"),
        workload("web", "web", "system.slice/web.service"),
        policy("allow", Action::Allow, Some("web"), None),
    ]));
    assert!(node.state.report().problems[0].contains("does not exist"));
    let id = node.cgroup("system.slice/web.service");
    let nested = node.cgroup("system.slice/web.service/worker");
    for (cgroup, when) in [(id, "itself"), (nested, "below")] {
        let client = node.client(cgroup, "127.0.0.1:1", true);
        assert!(
            matches!(client, Client::Pod { .. }),
            "{when}, before the next look: {client:?}"
        );
    }
    node.state.tick(Instant::now());
    assert!(node.passes(id, "cart"));
    assert!(node.state.report().problems.is_empty());
    let elsewhere = node.cgroup("user.slice");
    assert_eq!(node.client(elsewhere, "127.0.0.1:1", true), Client::Host);
    assert_eq!(node.client(elsewhere, "10.0.0.9:1", false), Client::Unknown);
}

#[test]
fn a_cgroup_that_lost_its_workload_stays_unknown_until_its_directory_goes() {
    let mut node = Node::new();
    let id = node.cgroup("web");
    node.state
        .apply(complete(vec![workload("web", "web", "web")]));
    assert!(matches!(
        node.client(id, "127.0.0.1:1", true),
        Client::Pod { .. }
    ));
    node.state
        .apply(remove(ResourceKey::Workload(object("web"))));
    assert_eq!(node.class(id), Some(CLASS_UNKNOWN));
    assert_eq!(node.client(id, "127.0.0.1:1", true), Client::Unknown);
    node.state
        .apply(upsert(vec![workload("web", "web", "web")]));
    assert!(matches!(
        node.client(id, "127.0.0.1:1", true),
        Client::Pod { .. }
    ));
    node.state
        .apply(remove(ResourceKey::Workload(object("web"))));
    node.remove_cgroup("web");
    node.state.tick(Instant::now());
    assert_eq!(node.class(id), None);
}

#[test]
fn two_workloads_with_one_cgroup_are_both_not_believed() {
    let mut node = Node::new();
    let id = node.cgroup("web");
    node.state.apply(complete(vec![
        workload("a", "web", "web"),
        workload("b", "db", "web"),
    ]));
    assert_eq!(node.client(id, "127.0.0.1:1", true), Client::Unknown);
    assert_eq!(node.class(id), Some(CLASS_UNKNOWN));
    let report = node.state.report();
    assert!(report.problems[0].contains("same cgroup web"));
    let rejected: Vec<_> = report.rejected.iter().map(|one| one.key.clone()).collect();
    assert_eq!(
        rejected,
        ["a", "b"].map(|name| ResourceKey::Workload(object(name)))
    );
    assert_eq!(report.rejected[1].reason, report.problems[0]);
    node.state.apply(remove(ResourceKey::Workload(object("b"))));
    assert_eq!(node.state.report().rejected, []);
}

#[test]
fn an_identity_counts_only_from_an_address_of_the_pod() {
    let mut node = Node::new();
    let id = node.cgroup("web");
    let Resource::Workload(web) = workload("web", "web", "web") else {
        unreachable!()
    };
    let mut web = Workload::clone(&web);
    web.addresses = vec!["10.1.0.5".parse().unwrap()];
    node.state
        .apply(complete(vec![Resource::Workload(Arc::new(web))]));
    let pod = |client| matches!(client, Client::Pod { .. });
    assert!(pod(node.client(id, "10.1.0.5:9", false)));
    assert!(pod(node.client(id, "[::ffff:10.1.0.5]:9", false)));
    assert!(!pod(node.client(id, "10.1.0.6:9", false)));
    assert!(
        pod(node.client(id, "10.1.0.6:9", true)),
        "the host's namespace has many addresses"
    );
    assert!(
        pod(node.client(77, "10.1.0.5:9", false)),
        "known by its address alone"
    );
    assert_eq!(
        node.client(77, "10.1.0.5:9", true),
        Client::Host,
        "a process of the host"
    );
}

#[test]
fn a_restart_removes_what_is_stale_and_keeps_numbers() {
    let mut node = Node::new();
    let id = node.cgroup("web");
    let both = vec![
        import("a", "east"),
        import("b", "east"),
        workload("web", "web", "web"),
    ];
    node.state.apply(complete(both));
    let mut node = node.restarted(|datapath| {
        let stale: SocketAddr = "10.114.9.9:1".parse().unwrap();
        datapath.set_service(stale, 700).unwrap();
    });
    let mut services = node.datapath.services().unwrap();
    services.sort();
    assert_eq!(services, [(address_of("a"), 0), (address_of("b"), 1)]);
    assert_eq!(
        node.class(id),
        Some(CLASS_UNKNOWN),
        "judged by the gateway until it is known"
    );
    assert!(!node.passes(1, "b"), "no verdict outlives the process");
    node.state.apply(complete(vec![import("b", "east")]));
    assert_eq!(node.datapath.services().unwrap(), [(address_of("b"), 1)]);
    assert_eq!(
        node.class(id),
        Some(CLASS_UNKNOWN),
        "its directory still exists"
    );
    node.remove_cgroup("web");
    node.state.tick(Instant::now());
    assert_eq!(node.class(id), None);
}

#[test]
fn ten_thousand_imports_and_a_hundred_policies_are_soon_in_force() {
    let mut node = Node::new();
    let mut resources = vec![known_peer("east")];
    for number in 0..10_000_u32 {
        let Resource::Import(import) = import(&format!("i{number}"), "east") else {
            unreachable!()
        };
        let mut import = Import::clone(&import);
        import.addresses = vec![(0x0a72_0000 + number).to_be_bytes().into()];
        resources.push(Resource::Import(Arc::new(import)));
    }
    for number in 0..100 {
        let export = format!("i{number}");
        resources.push(policy(&export, Action::Allow, None, Some(&export)));
    }
    let start = Instant::now();
    node.state.apply(complete(resources));
    println!(
        "first snapshot of 10,000 imports and 100 policies: {:?}",
        start.elapsed()
    );
    let start = Instant::now();
    node.state
        .apply(upsert(vec![policy("all", Action::Allow, None, None)]));
    println!(
        "one policy that changes every verdict: {:?}",
        start.elapsed()
    );
    assert!(node.datapath.allows(CLASS_HOST, 9_999));
    let start = Instant::now();
    node.datapath.take_writes();
    node.state.apply(upsert(vec![import("i7", "nowhere")]));
    println!("one import: {:?}", start.elapsed());
    assert!(
        node.datapath.take_writes().len() <= 4,
        "only what changed is written"
    );
}

/// The kernel's tables after each of a series of writes.
#[derive(Clone, Default)]
struct Kernel {
    services: BTreeMap<SocketAddr, u32>,
    workloads: BTreeMap<u64, u32>,
    verdicts: BTreeMap<(u32, u32), [u64; 8]>,
}

impl Kernel {
    fn of(datapath: &MemoryDatapath) -> Self {
        Self {
            services: datapath.services().unwrap().into_iter().collect(),
            workloads: datapath.workloads().unwrap().into_iter().collect(),
            verdicts: datapath.verdicts().into_iter().collect(),
        }
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Service(address, import) => drop(self.services.insert(*address, *import)),
            Write::ServiceRemoved(address) => drop(self.services.remove(address)),
            Write::Workload(cgroup, class) => drop(self.workloads.insert(*cgroup, *class)),
            Write::WorkloadRemoved(cgroup) => drop(self.workloads.remove(cgroup)),
            Write::Verdicts(class, block, bits) => {
                self.verdicts.insert((*class, *block), *bits);
            }
            Write::VerdictsCleared => self.verdicts.clear(),
            // Clients of the Service path are judged by the gateway alone.
            Write::Target(..) | Write::TargetRemoved(_) => {}
        }
    }
}

/// Whether a connect passes by the kernel's own verdict; unknown clients are the gateway's to judge.
fn effective(kernel: &Kernel, cgroup: Option<u64>, address: SocketAddr) -> bool {
    let Some(import) = kernel.services.get(&address) else {
        return false;
    };
    let class = cgroup.map_or(CLASS_HOST, |cgroup| {
        kernel.workloads.get(&cgroup).copied().unwrap_or(CLASS_HOST)
    });
    class != CLASS_UNKNOWN
        && (kernel.verdicts.get(&(class, import / 512)))
            .is_some_and(|block| block[(import / 64 % 8) as usize] >> (import % 64) & 1 == 1)
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn change() -> impl Strategy<Value = Update> {
    let name = || proptest::sample::select(&NAMES[..]);
    let app = proptest::option::of(name());
    prop_oneof![
        (name(), prop_oneof![Just("east"), Just("nowhere")])
            .prop_map(|(name, at)| upsert(vec![import(name, at)])),
        name().prop_map(|name| remove(ResourceKey::Import(object(name)))),
        (name(), name()).prop_map(|(name, app)| upsert(vec![workload(name, app, name)])),
        name().prop_map(|name| remove(ResourceKey::Workload(object(name)))),
        (name(), any::<bool>(), app, proptest::option::of(name())).prop_map(
            |(name, allow, app, export)| {
                let action = if allow { Action::Allow } else { Action::Deny };
                upsert(vec![policy(name, action, app, export)])
            }
        ),
        name()
            .prop_map(|name| { remove(ResourceKey::Policy(PolicyName::Namespaced(object(name)))) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn tables_equal_a_recomputation_and_nothing_denied_is_allowed_on_the_way(
        changes in proptest::collection::vec(proptest::collection::vec(change(), 1..4), 1..8),
    ) {
        let mut node = Node::new();
        let cgroups: Vec<u64> = NAMES.iter().map(|name| node.cgroup(name)).collect();
        let clients = || cgroups.iter().map(|id| Some(*id)).chain([None]);
        node.state.apply(complete(vec![known_peer("east")]));
        node.datapath.take_writes();
        for several in changes {
            let mut kernel = Kernel::of(&node.datapath);
            let before = kernel.clone();
            let mut update = Update::default();
            for one in several {
                // As a controller would: an object is named once in an update.
                let key = one.upserts.first().map(Resource::key).or(one.removals.first().cloned());
                let named = update.upserts.iter().map(Resource::key)
                    .chain(update.removals.iter().cloned()).any(|named| Some(&named) == key.as_ref());
                if !named {
                    update.upserts.extend(one.upserts);
                    update.removals.extend(one.removals);
                }
            }
            node.state.apply(update);
            let after = Kernel::of(&node.datapath);
            for write in node.datapath.take_writes() {
                kernel.apply(&write);
                for client in clients() {
                    for name in NAMES {
                        let at = address_of(name);
                        prop_assert!(
                            !effective(&kernel, client, at)
                                || effective(&before, client, at)
                                || effective(&after, client, at),
                            "{client:?} could reach {name} after {write:?}"
                        );
                    }
                }
            }
        }
        let mut fresh = Node::on(tempfile::tempdir().unwrap(), Arc::default());
        let fresh_cgroups: Vec<u64> = NAMES.iter().map(|name| fresh.cgroup(name)).collect();
        fresh.state.apply(node.state.snapshot.to_update());
        let (ours, theirs) = (Kernel::of(&node.datapath), Kernel::of(&fresh.datapath));
        for name in NAMES {
            let at = address_of(name);
            prop_assert_eq!(ours.services.contains_key(&at), theirs.services.contains_key(&at));
            prop_assert_eq!(effective(&ours, None, at), effective(&theirs, None, at), "host");
            for (index, cgroup) in cgroups.iter().enumerate() {
                let fresh_class = theirs.workloads.get(&fresh_cgroups[index]);
                // A cgroup that lost its workload is unknown, where a fresh node takes it for the host.
                if fresh_class.is_none() && ours.workloads.contains_key(cgroup) {
                    prop_assert_eq!(ours.workloads[cgroup], CLASS_UNKNOWN);
                    continue;
                }
                prop_assert_eq!(
                    effective(&ours, Some(*cgroup), at),
                    effective(&theirs, Some(fresh_cgroups[index]), at)
                );
            }
        }
    }
}

/// A node where `web` and the host may reach two imports, and both imports.
fn allowing() -> (Node, u64, [Arc<Import>; 2]) {
    let mut node = Node::new();
    let id = node.cgroup("web");
    node.state.apply(complete(vec![
        import("a", "east"),
        import("b", "east"),
        known_peer("east"),
        policy("allow", Action::Allow, None, None),
        workload("web", "web", "web"),
    ]));
    let imports = ["a", "b"].map(|name| node.state.snapshot.imports[&object(name)].clone());
    (node, id, imports)
}

#[tokio::test(start_paused = true)]
async fn what_every_source_denied_is_refused_for_less_than_half_a_second() {
    let (mut node, id, [a, _]) = allowing();
    let origins = node.state.origins(node.datapath.clone());
    let pod = node.client(id, "127.0.0.1:1", true);
    assert!(node.passes(id, "a"));
    for client in [pod, Client::Unknown, Client::Outside] {
        origins.denied_everywhere(&client, &a);
    }
    node.state.remember_denials().await;
    assert!(!node.passes(id, "a") && node.passes(id, "b"));
    assert!(node.datapath.allows(CLASS_HOST, 0), "another class");
    origins.denied_everywhere(&Client::Host, &a);
    node.state.remember_denials().await;
    assert!(!node.datapath.allows(CLASS_HOST, 0));

    let start = tokio::time::Instant::now();
    node.state.remember_denials().await;
    let limit = std::time::Duration::from_millis(500);
    assert!(node.passes(id, "a") && start.elapsed() < limit);
    assert!(node.datapath.allows(CLASS_HOST, 0), "told at the same time");
}

#[tokio::test(start_paused = true)]
async fn a_denial_counts_for_the_import_that_was_tried_only() {
    let (mut node, id, [a, b]) = allowing();
    let origins = node.state.origins(node.datapath.clone());
    let pod = node.client(id, "127.0.0.1:1", true);
    node.state.apply(upsert(vec![
        import("a", "elsewhere"),
        known_peer("elsewhere"),
    ]));
    origins.denied_everywhere(&pod, &a);
    node.state.remember_denials().await;
    assert!(node.passes(id, "a"), "its sources are others by now");

    origins.denied_everywhere(&pod, &b);
    node.state.remember_denials().await;
    assert!(!node.passes(id, "b"));
    node.state.apply(upsert(vec![policy(
        "other",
        Action::Allow,
        None,
        Some("b"),
    )]));
    assert!(node.passes(id, "b"), "what it is judged by has changed");
}

#[test]
fn the_cgroup_walk_finds_what_is_below() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
    let wanted = cgroup_id(&dir.path().join("a/b/c")).unwrap();
    assert!(cgroups::walk(dir.path(), &mut |_, id| id == wanted));
    assert!(!cgroups::walk(Path::new("/nonexistent"), &mut |_, _| true));
}
