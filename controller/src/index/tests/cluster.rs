//! The index of a cluster: what is written for Imports, and where Exports may be delivered to.

use std::time::Instant;

use clusterlink_model::{Backend, Resource, ResourceKey};

use super::*;
use crate::{
    agents::Agents,
    cluster::{ClusterConfig, Desired, Kind, Write, WriteKey},
};

mod rejections;

struct Scene {
    harness: Harness,
    desired: Desired,
    agents: Agents,
    _state: tempfile::TempDir,
}

impl Scene {
    fn starting() -> Self {
        let state = tempfile::tempdir().unwrap();
        let peer = LocalPeer {
            name: PeerName::new("here").unwrap(),
            labels: Default::default(),
        };
        let config = ClusterConfig::new(peer, "system");
        let agents = Agents::default();
        let cluster = Cluster::new(&config, agents.clone());
        let desired = cluster.desired().clone();
        let harness = Harness::provided(Provider::Cluster(Box::new(cluster)), state.path());
        Self {
            harness,
            desired,
            agents,
            _state: state,
        }
    }

    fn empty() -> Self {
        let mut scene = Self::starting();
        scene.harness.finish_lists();
        scene.harness.settle();
        scene
    }

    fn apply(&mut self, documents: &[Value]) {
        for document in documents {
            self.harness.index.apply(applied(document));
        }
        self.harness.settle();
    }

    /// Does what is desired as the API server would, and lets the watch tell; gives the number of
    /// writes.
    fn write(&mut self) -> usize {
        let writes = self.desired.all();
        for (key, write) in &writes {
            let document = match &**write {
                Write::Create { object, .. } => completed(object.clone()),
                Write::Patch { patch } => {
                    let mut object = self.observed(key);
                    merge(&mut object, patch);
                    object
                }
                Write::Delete { .. } => {
                    self.harness.index.apply(deleted(&self.observed(key)));
                    continue;
                }
            };
            self.harness.index.apply(applied(&document));
        }
        self.harness.settle();
        writes.len()
    }

    fn observed(&self, key: &WriteKey) -> Value {
        let index = &self.harness.index;
        match key.kind {
            Kind::Service => json!(**index.services.get(&key.name).unwrap()),
            Kind::EndpointSlice => json!(**index.endpoint_slices.get(&key.name).unwrap()),
        }
    }

    /// Writes the proposed target ports into the Imports, as the status writer does.
    fn store_ports(&mut self) {
        for status in self.harness.status().imports.clone() {
            let import = self.harness.index.imports.get(&status.name).unwrap();
            let mut import = json!(**import);
            import["status"] = json!({"targetPort": status.target_port});
            self.harness.index.apply(applied(&import));
        }
        self.harness.settle();
    }
}

/// What the API server adds to an object that is made.
fn completed(mut object: Value) -> Value {
    object["metadata"]["uid"] = object["metadata"]["name"].clone();
    object["metadata"]["resourceVersion"] = "1".into();
    if object["kind"] == "Service" {
        object["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
        object["spec"]["clusterIP"] = "10.96.0.7".into();
        object["spec"]["ipFamilies"] = json!(["IPv4"]);
    }
    object
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    })
}

fn agent(number: u16, ready: bool) -> Value {
    let body = json!({
        "metadata": {"labels": {"app.kubernetes.io/name": "clusterlink-agent"}},
        "spec": {"nodeName": format!("n{number}"), "hostNetwork": true},
        "status": {
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            "podIPs": [{"ip": format!("192.0.{}.{}", number >> 8, number & 255)}],
        },
    });
    document("Pod", &format!("system/agent-{number}"), body)
}

#[test]
fn an_import_is_served_once_service_and_status_say_so() {
    let mut scene = Scene::empty();
    scene.apply(&[node("n1"), agent(1, true), import("ns/web", 80, 0)]);
    assert!(scene.harness.seen.imports.is_empty());
    assert_eq!(scene.write(), 1, "its Service");
    let served = &scene.harness.seen.imports[&name("ns/web")];
    assert_eq!(
        served.addresses,
        ["10.96.0.7".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(served.target_port, None, "it is only proposed");
    assert_eq!(scene.write(), 0, "no slice without a stored port");
    scene.store_ports();
    let served = &scene.harness.seen.imports[&name("ns/web")];
    assert!(served.target_port.is_some());
    assert_eq!(scene.write(), 1, "its slice");
    assert_eq!(scene.write(), 0);
    let status = scene.harness.status();
    let conditions = &status.imports[0].conditions;
    assert!(
        conditions
            .iter()
            .all(|one| one.status == ConditionStatus::True),
        "{conditions:?}"
    );

    // The Import goes: what agents are told, what is written, and what agents are asked.
    scene.harness.delete(&import("ns/web", 80, 0));
    assert!(scene.harness.seen.imports.is_empty());
    let writes = scene.desired.all();
    assert!(
        writes
            .values()
            .all(|write| matches!(**write, Write::Delete { .. })),
        "{writes:?}"
    );
    assert_eq!(writes.len(), 2);
    assert_eq!(scene.agents.asked().len(), 1);
}

#[test]
fn an_import_that_cannot_be_read_keeps_what_it_has() {
    let mut scene = Scene::starting();
    let mut service = document(
        "Service",
        "ns/web",
        json!({"spec": {"clusterIP": "10.96.0.7"}}),
    );
    service["metadata"]["finalizers"] = json!(["clusterlink.net/steering"]);
    service["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "clusterlink.net"});
    scene.harness.index.apply(applied(&service));
    let problems = vec![problem(Some("Import"), Some("ns/web"))];
    scene
        .harness
        .index
        .apply(Input::Problems(Arc::new(problems)));
    scene.harness.finish_lists();
    scene.harness.settle();
    assert!(scene.desired.all().is_empty());
    scene.harness.problems(Vec::new());
    assert_eq!(scene.desired.all().len(), 1, "now it is known to be gone");
}

#[test]
fn a_write_that_fails_is_told_in_the_status() {
    let mut scene = Scene::empty();
    scene.apply(&[import("ns/web", 80, 0)]);
    let key = WriteKey {
        kind: Kind::Service,
        name: name("ns/web"),
    };
    scene.desired.report(&key, Some("quota exceeded".into()));
    scene
        .harness
        .index
        .apply(Input::Written(scene.desired.take_failed()));
    scene.harness.settle();
    let status = scene.harness.status();
    let why = condition(&status.imports[0].conditions, "ImportServiceValid");
    assert_eq!(why.reason, "ServiceNotWritten");
    assert!(why.message.contains("quota exceeded"), "{}", why.message);
    scene.write();
    let status = scene.harness.status();
    assert_eq!(
        condition(&status.imports[0].conditions, "ImportServiceValid").reason,
        "Valid"
    );
}

#[test]
fn an_import_that_cannot_be_used_says_so_of_its_target_port_too() {
    let mut scene = Scene::empty();
    scene.apply(&[import("ns/9web", 80, 9000)]);
    let status = scene.harness.status();
    let conditions = &status.imports[0].conditions;
    let port = condition(conditions, "ImportTargetPortValid");
    assert_eq!(port.status, ConditionStatus::False);
    assert_eq!(port.reason, "ImportInvalid");
    assert!(port.message.contains("NameInvalid"), "{}", port.message);
    let service = condition(conditions, "ImportServiceValid");
    assert_eq!(service.reason, "NameInvalid");
}

/// Prints how long it takes; what it asserts is the number of writes.
#[test]
fn one_flip_among_a_thousand_agents_writes_the_slices_that_hold_it_alone() {
    let mut scene = Scene::empty();
    let nodes = (0..1000).map(|number| node(&format!("n{number}")));
    let agents = (0..1000).map(|number| agent(number, true));
    let imports = (0..2000).map(|number| import(&format!("ns/web-{number}"), 80, 0));
    let start = Instant::now();
    scene.apply(&nodes.chain(agents).chain(imports).collect::<Vec<_>>());
    assert_eq!(scene.write(), 2000, "Services");
    scene.store_ports();
    assert_eq!(scene.write(), 2000, "slices");
    assert_eq!(scene.write(), 0);
    println!("2,000 imports at 1,000 agents: {:?}", start.elapsed());

    let holding = scene
        .harness
        .index
        .endpoint_slices
        .iter()
        .filter(|(_, slice)| {
            let mut endpoints = slice.endpoints.iter().flatten();
            endpoints.any(|endpoint| endpoint.node_name.as_deref() == Some("n500"))
        });
    let holding = holding.count();
    let start = Instant::now();
    scene.apply(&[agent(500, false)]);
    println!(
        "one agent is not ready, {holding} slices hold it: {:?}",
        start.elapsed()
    );
    assert_eq!(scene.write(), holding);
    assert!((10..=70).contains(&holding), "about 32 of 2,000: {holding}");
}

#[test]
fn an_export_is_not_delivered_to_what_is_somebody_elses() {
    let mut scene = Scene::empty();
    let pod = |at: &str, ip: &str| {
        let body =
            json!({"metadata": {"labels": {"app": "api"}}, "status": {"podIPs": [{"ip": ip}]}});
        document("Pod", at, body)
    };
    let selecting = json!({"spec": {"selector": {"app": "api"}, "ports": [{"port": 80}]}});
    scene.apply(&[
        export("ns/api", "", 80),
        document("Service", "ns/api", selecting),
        slice(
            "ns/s",
            "api",
            &["10.1.0.1", "192.0.2.1", "::ffff:10.1.0.2", "10.96.0.1"],
        ),
    ]);
    let delivered = |scene: &Scene| -> Vec<String> {
        match &scene.harness.seen.exports[&name("ns/api")].backend {
            Backend::Endpoints(endpoints) => endpoints
                .iter()
                .map(|one| one.address.ip().to_string())
                .collect(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delivered(&scene).len(), 4, "nothing is known of them yet");
    scene.apply(&[
        node("n1"),
        pod("other/db", "10.1.0.2"),
        pod("ns/api-1", "10.1.0.1"),
        document(
            "Service",
            "default/kubernetes",
            json!({"spec": {"clusterIP": "10.96.0.1"}}),
        ),
    ]);
    assert_eq!(delivered(&scene), ["10.1.0.1"]);
    let reason = |scene: &Scene| {
        let status = scene.harness.status();
        let condition = condition(&status.exports[0].conditions, "ExportValid");
        (condition.reason, condition.message.clone())
    };
    assert!(
        reason(&scene).1.contains("left out"),
        "{:?}",
        reason(&scene)
    );
    scene.apply(&[pod("other/db-2", "10.1.0.1")]);
    assert_eq!(delivered(&scene), ["10.1.0.1"], "its own pod is there too");
    scene.harness.delete(&pod("ns/api-1", "10.1.0.1"));
    assert!(delivered(&scene).is_empty());
    assert_eq!(reason(&scene).0, "EndpointsRefused");
    scene.harness.delete(&pod("other/db-2", "10.1.0.1"));
    assert_eq!(delivered(&scene), ["10.1.0.1"]);
}

#[test]
fn a_node_is_told_to_agents() {
    let mut scene = Scene::empty();
    scene.apply(&[node("n1")]);
    let nodes = &scene.harness.seen.nodes;
    assert_eq!(nodes["n1"].addresses.len(), 1);
    let told = Resource::Node(Arc::clone(&nodes["n1"])).key();
    assert_eq!(told, ResourceKey::Node("n1".into()));
    scene.harness.delete(&node("n1"));
    assert!(scene.harness.seen.nodes.is_empty());
}

#[test]
fn a_pod_of_a_cluster_cannot_name_a_cgroup() {
    let mut scene = Scene::empty();
    scene.apply(&[json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "mine", "name": "thief", "uid": "1",
            "annotations": {"clusterlink.net/cgroup": "kubepods.slice/kubepods-pod2.slice"}},
        "spec": {"containers": [], "hostNetwork": true, "nodeName": "n1"},
    })]);
    let workloads = &scene.harness.status().workloads;
    assert_eq!(workloads.len(), 1);
    assert_eq!(workloads[0].cgroup, None);
}
