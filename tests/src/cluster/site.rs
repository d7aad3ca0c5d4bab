//! A cluster of one node with an agent, and two of them that know each other.

use std::thread;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{AgentOptions, Cluster, Node, Workload};
use crate::fabric::Fabric;
use crate::manifests;
use crate::scene::Scene;
use crate::tools::text;
use crate::world::NAMESPACE;

/// A cluster with a node whose agent runs.
#[derive(Debug)]
pub struct Site {
    /// The cluster.
    pub cluster: Cluster,
    /// Its node.
    pub node: Node,
}

/// Two clusters of a node each, `east` and `west`, and nothing shared or allowed yet.
#[derive(Debug)]
pub struct Pair {
    /// The one that exports, if only one does.
    pub east: Site,
    /// The one that imports.
    pub west: Site,
}

impl Pair {
    /// Starts both, and tells them of each other.
    pub fn new(scene: &Scene, fabric: &Fabric) -> Result<Self> {
        let labels = ["zone=north"];
        // Hosts have their addresses in the order in which they are made.
        let hosts = [scene.host("east")?, scene.host("west")?];
        let start = |host| Cluster::on(scene, fabric, host, &labels);
        let [east, west] = thread::scope(|scope| {
            let both = hosts.map(|host| scope.spawn(move || start(host)));
            both.map(|one| {
                one.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        });
        let east = Site::of(east?)?;
        let west = Site::of(west?)?;
        west.cluster.know(&[("east", east.node.address())])?;
        east.cluster.know(&[("west", west.node.address())])?;
        Ok(Self { east, west })
    }

    /// Waits until each says that it reaches the other.
    pub fn wait_connected(&self) -> Result<()> {
        for (site, other) in [(&self.west, "east"), (&self.east, "west")] {
            let namespace = super::SYSTEM;
            site.cluster
                .wait_condition("peer", namespace, other, "PeerReachable", "True")?;
        }
        Ok(())
    }

    /// Allows everything in both.
    pub fn allow_all(&self) -> Result<()> {
        for site in [&self.east, &self.west] {
            site.apply("allow-all.yaml", &[manifests::allow_all(NAMESPACE)])?;
        }
        Ok(())
    }
}

impl Site {
    /// Starts a cluster that says these labels of itself, with [`NAMESPACE`] in it.
    pub fn start(scene: &Scene, fabric: &Fabric, name: &str, labels: &[&str]) -> Result<Self> {
        Self::of(Cluster::labelled(scene, fabric, name, labels)?)
    }

    fn of(cluster: Cluster) -> Result<Self> {
        cluster.namespace(NAMESPACE)?;
        let mut node = Node::join(&cluster, cluster.host())?;
        node.start_agent(&cluster, &AgentOptions::default())?;
        Ok(Self { cluster, node })
    }

    /// `kubectl apply` of a file; what the file had before and has no more is deleted.
    pub fn apply(&self, file: &str, manifests: &[Value]) -> Result<()> {
        let plane = &self.cluster.plane;
        let before = plane.read_manifests(file)?;
        let path = plane.write_manifests(file, manifests)?;
        plane.run(&["apply", "-f", text(&path)])?;
        let gone = |old: &Value| !manifests.iter().any(|new| same(old, new));
        let gone: Vec<Value> = before.into_iter().filter(gone).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let path = plane.write_manifests("gone", &gone)?;
        plane.run(&["delete", "-f", text(&path)]).map(drop)
    }

    /// `kubectl delete` of what was applied under the name of a file.
    pub fn withdraw(&self, file: &str) -> Result<()> {
        let plane = &self.cluster.plane;
        let path = plane.manifests_file(file);
        plane.run(&["delete", "-f", text(&path)])?;
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// Exports pods as one Service of [`NAMESPACE`], with the slices that the endpoint controller
    /// would write.
    pub fn export(&self, service: &str, pods: &[(&Workload, u16)]) -> Result<()> {
        let export = manifests::export(NAMESPACE, service, 80);
        let mut all = backends(service, pods);
        all.push(export);
        self.apply(&format!("export-{service}.yaml"), &all)
    }

    /// Imports a service of [`NAMESPACE`] from these peers.
    pub fn import(&self, service: &str, scheme: &str, peers: &[&str]) -> Result<()> {
        let import = imported(service, peers);
        let import = manifests::with_scheme(import, scheme);
        self.apply(&format!("import-{service}.yaml"), &[import])
    }
}

/// An Import of [`NAMESPACE`], of the Export of the same name and namespace at these peers.
pub fn imported(service: &str, peers: &[&str]) -> Value {
    let source = |peer: &&str| manifests::source(peer, NAMESPACE, service);
    let sources: Vec<Value> = peers.iter().map(source).collect();
    manifests::import(NAMESPACE, service, 80, &sources)
}

/// A Service of [`NAMESPACE`] at port 80 with its slice of IPv4; none of its pods listens elsewhere
/// than the first.
pub fn backends(service: &str, pods: &[(&Workload, u16)]) -> Vec<Value> {
    let endpoint = |(pod, _): &(&Workload, u16)| {
        json!({
            "addresses": [pod.addresses()[0].to_string()],
            "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": pod.pod_name(), "namespace": NAMESPACE},
        })
    };
    let port = pods.first().map_or(8080, |(_, port)| *port);
    let endpoints: Vec<Value> = pods.iter().map(endpoint).collect();
    let mut slice = manifests::endpoint_slice(NAMESPACE, service, &[], port);
    slice["endpoints"] = endpoints.into();
    let mut object = manifests::service(NAMESPACE, service, 80);
    object["spec"]["ports"][0]["targetPort"] = port.into();
    object["spec"]["selector"] = json!({"app": service});
    vec![object, slice]
}

fn same(one: &Value, other: &Value) -> bool {
    let name = |object: &Value| {
        let metadata = &object["metadata"];
        [&object["kind"], &metadata["namespace"], &metadata["name"]].map(Value::clone)
    };
    name(one) == name(other)
}
