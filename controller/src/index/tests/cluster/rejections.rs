//! Agents that reject an Import are no endpoints of it, and its status says so.

use clusterlink_proto::{NodeReport, PeerReport, Rejected};

use super::*;
use crate::agents::AgentStatus;

/// Longer than an agent is left out for after it rejected an Import for the first time.
const A_WHILE: SignedDuration = SignedDuration::from_secs(5);

impl Scene {
    /// A scene with so many agents, of the replica that leads.
    fn of_agents(count: u16) -> Self {
        let mut scene = Self::empty();
        scene.agents.lead(true);
        let nodes = (1..=count).map(|number| node(&format!("n{number}")));
        let agents = (1..=count).map(|number| agent(number, true));
        scene.apply(&nodes.chain(agents).collect::<Vec<_>>());
        for number in 1..=count {
            scene.report(number, &[]);
        }
        scene.harness.settle();
        scene
    }

    /// Imports that are served.
    fn serve(&mut self, imports: &[Value]) {
        self.apply(imports);
        self.write();
        self.store_ports();
        self.write();
        assert_eq!(self.write(), 0);
    }

    fn report(&mut self, number: u16, rejected: &[&str]) {
        let rejected = rejected.iter().map(|import| Rejected {
            key: ResourceKey::Import(name(import)),
            reason: format!("port is taken on {number}: end that"),
        });
        let report = NodeReport {
            rejected: rejected.collect(),
            peers: vec![PeerReport {
                name: PeerName::new("east").unwrap(),
                reachable: true,
                rtt: None,
                last_seen_ms: None,
                software: None,
                labels: Default::default(),
                error: None,
            }],
            ..NodeReport::default()
        };
        let agent = AgentStatus {
            pod: name(&format!("system/agent-{number}")),
            report: Arc::new(report),
            let_go: BTreeSet::new(),
        };
        self.agents.set(&format!("n{number}").into(), Some(agent));
        let table = Arc::clone(&self.agents.table().borrow());
        self.harness.index.apply(Input::Agents(table));
    }

    /// What an agent says is taken in; gives the number of writes.
    fn says(&mut self, number: u16, rejected: &[&str]) -> usize {
        self.report(number, rejected);
        self.harness.settle();
        self.write()
    }

    /// Gives the number of writes.
    fn waits(&mut self, time: SignedDuration) -> usize {
        self.harness.later += time;
        self.harness.settle();
        self.write()
    }

    /// The nodes that an Import's endpoints are on, and those that are noted as left out.
    fn endpoints(&self, import: &str) -> (Vec<String>, Option<String>) {
        let slice = name(&format!("{import}-clusterlink-ipv4"));
        let slice = self.harness.index.endpoint_slices.get(&slice).unwrap();
        let endpoints = slice.endpoints.iter().flatten();
        let nodes = endpoints.filter_map(|one| {
            let ready = one.conditions.as_ref()?.ready? && one.addresses.len() == 1;
            one.node_name.clone().filter(|_| ready)
        });
        let annotations = slice.metadata.annotations.as_ref();
        let note = annotations.and_then(|all| all.get("clusterlink.net/left-out"));
        (nodes.collect(), note.cloned())
    }

    fn target_port(&self, import: &str) -> (ConditionStatus, &'static str, String) {
        let status = self.harness.status();
        let mut imports = status.imports.iter();
        let import = imports.find(|one| one.name == name(import)).unwrap();
        let found = condition(&import.conditions, "ImportTargetPortValid");
        (found.status, found.reason, found.message.clone())
    }

    /// Every object that there is, with the statuses of Imports as they are to be.
    fn objects(&self) -> Vec<Value> {
        let index = &self.harness.index;
        let status = self.harness.status();
        let imports = status.imports.iter().map(|status| {
            let mut import = json!(**index.imports.get(&status.name).unwrap());
            import["status"] =
                json!({"targetPort": status.target_port, "conditions": status.conditions});
            import
        });
        let nodes = index.nodes.iter().map(|(_, one)| json!(**one));
        let pods = index.pods.iter().map(|(_, one)| json!(**one));
        let services = index.services.iter().map(|(_, one)| json!(**one));
        let slices = index.endpoint_slices.iter().map(|(_, one)| json!(**one));
        let all = nodes.chain(pods).chain(services).chain(slices);
        all.chain(imports).collect()
    }
}

fn some(nodes: &[u16]) -> Vec<String> {
    nodes.iter().map(|node| format!("n{node}")).collect()
}

#[test]
fn an_agent_is_no_endpoint_of_what_it_rejects_and_its_status_says_so_for_as_long() {
    let mut scene = Scene::of_agents(3);
    scene.serve(&[import("ns/web", 80, 0), import("ns/api", 81, 9001)]);
    let valid = (ConditionStatus::True, "Allocated", String::new());
    assert_eq!(scene.target_port("ns/web"), valid);

    assert_eq!(scene.says(2, &["ns/web"]), 1, "its slice alone");
    let two = (some(&[1, 3]), Some("n2".to_owned()));
    assert_eq!(scene.endpoints("ns/web"), two);
    assert_eq!(scene.endpoints("ns/api"), (some(&[1, 2, 3]), None));
    let (status, reason, message) = scene.target_port("ns/web");
    assert_eq!((status, reason), (ConditionStatus::True, "NotOnAllNodes"));
    assert_eq!(
        message,
        "Import ns/web: on node n2: port is taken on 2: end that; its other agents serve it"
    );
    let (_, reason, _) = scene.target_port("ns/api");
    assert_eq!(reason, "Valid");
    assert_eq!(scene.says(2, &["ns/web"]), 0, "it is known");

    assert_eq!(scene.says(1, &["ns/web"]), 1);
    assert_eq!(scene.says(3, &["ns/web"]), 1);
    let none = (some(&[]), Some("n1,n2,n3".to_owned()));
    assert_eq!(scene.endpoints("ns/web"), none);
    let (status, reason, message) = scene.target_port("ns/web");
    assert_eq!((status, reason), (ConditionStatus::False, "NotOnAnyNode"));
    assert!(message.ends_with("; no agent serves it"), "{message}");
    assert!(message.contains("; on node n3: port"), "{message}");

    for number in 1..=3 {
        assert_eq!(scene.says(number, &[]), 0, "it may change its mind");
    }
    assert_eq!(scene.endpoints("ns/web"), none);
    assert_eq!(scene.waits(A_WHILE), 1);
    assert_eq!(scene.endpoints("ns/web"), (some(&[1, 2, 3]), None));
    assert_eq!(scene.target_port("ns/web"), valid);
}

#[test]
fn the_status_names_a_few_of_many_nodes() {
    let mut scene = Scene::of_agents(5);
    scene.serve(&[import("ns/web", 80, 0)]);
    for number in 1..=5 {
        scene.says(number, &["ns/web"]);
    }
    let (_, _, message) = scene.target_port("ns/web");
    assert!(
        message.ends_with(
            "on node n3: port is taken on 3: end that; on 2 more nodes; no agent serves it"
        ),
        "{message}"
    );
}

#[test]
fn beyond_sixteen_nodes_another_agent_takes_the_place() {
    let mut scene = Scene::of_agents(30);
    scene.serve(&[import("ns/web", 80, 0), import("ns/api", 81, 0)]);
    let (before, _) = scene.endpoints("ns/web");
    assert_eq!(before.len(), 16);
    let number = |node: &String| node[1..].parse::<u16>().unwrap();
    let first = number(&before[0]);
    assert_eq!(scene.says(first, &["ns/web"]), 1);
    let (after, note) = scene.endpoints("ns/web");
    assert_eq!((after.len(), note.as_ref()), (16, Some(&before[0])));
    assert!(!after.contains(&before[0]));
    let new: Vec<_> = after.iter().filter(|node| !before.contains(node)).collect();
    assert_eq!(new.len(), 1);
    // An agent without a place makes no difference, but for the status.
    let spare = (1..=30).find(|n| !after.contains(&format!("n{n}")) && *n != first);
    assert_eq!(scene.says(spare.unwrap(), &["ns/web"]), 0);
    let (_, _, message) = scene.target_port("ns/web");
    assert!(message.contains(&format!("on node n{}: ", spare.unwrap())));
    assert_eq!(scene.says(first, &[]), 0);
    assert_eq!(scene.waits(A_WHILE), 1);
    assert_eq!(scene.endpoints("ns/web"), (before, None));
}

#[test]
fn an_import_that_joins_a_service_is_left_by_agents_that_reject_it() {
    let mut scene = Scene::of_agents(4);
    let mut web = import("ns/web", 80, 0);
    web["metadata"]["labels"] = json!({"import.clusterlink.net/merge": "true"});
    let service = json!({"spec": {"clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"],
        "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let peer = document("Peer", "system/east", json!({"spec": {"gateways": []}}));
    scene.serve(&[peer, document("Service", "ns/web", service), web]);
    let (before, _) = scene.endpoints("ns/web");
    assert_eq!(before.len(), 2);
    let first: u16 = before[0][1..].parse().unwrap();
    assert_eq!(scene.says(first, &["ns/web"]), 1);
    let (after, note) = scene.endpoints("ns/web");
    assert_eq!((after.len(), note.as_ref()), (2, Some(&before[0])));
    assert!(!after.contains(&before[0]) && after.contains(&before[1]));
    assert_eq!(scene.says(first, &[]), 0);
    assert_eq!(scene.waits(A_WHILE), 1);
    assert_eq!(scene.endpoints("ns/web"), (before, None));
}

#[test]
fn flapping_is_written_a_few_times_and_then_no_more() {
    let mut scene = Scene::of_agents(2);
    scene.serve(&[import("ns/web", 80, 0)]);
    let mut writes = Vec::new();
    for _ in 0..60 {
        let mut minute = 0;
        for _ in 0..6 {
            minute += scene.says(1, &["ns/web"]);
            minute += scene.says(1, &[]);
            minute += scene.waits(SignedDuration::from_secs(10));
        }
        writes.push(minute);
    }
    // Out, back, out, back, and out until it makes up its mind.
    assert_eq!(writes[0], 5, "{writes:?}");
    assert_eq!(writes[1..], [0; 59]);
}

#[test]
fn another_leader_sends_nobody_to_an_agent_that_it_has_not_heard_yet() {
    let mut first = Scene::of_agents(3);
    first.serve(&[import("ns/web", 80, 0)]);
    first.says(2, &["ns/web"]);
    let said = first.target_port("ns/web");

    let mut second = Scene::empty();
    second.apply(&first.objects());
    assert_eq!(second.write(), 0);
    assert_eq!(second.target_port("ns/web"), said);
    second.agents.lead(true);
    assert_eq!(second.says(1, &[]), 0);
    assert_eq!(second.says(2, &["ns/web"]), 0);
    assert_eq!(second.target_port("ns/web"), said);
    assert_eq!(second.says(3, &[]), 0);
    assert_eq!(second.endpoints("ns/web").0, some(&[1, 3]));

    let mut third = Scene::empty();
    third.agents.lead(true);
    third.apply(&first.objects());
    assert_eq!(third.waits(LONG), 0, "nobody says that it serves it");
    assert_eq!(third.target_port("ns/web"), said);
    assert_eq!(third.says(2, &[]), 0);
    assert_eq!(third.waits(A_WHILE), 1);
    assert_eq!(third.endpoints("ns/web"), (some(&[1, 2, 3]), None));
    assert_eq!(third.target_port("ns/web").1, "Allocated");
}

/// Longer than any pause.
const LONG: SignedDuration = SignedDuration::from_mins(15);
