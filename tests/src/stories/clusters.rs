//! The stage of two clusters: kubectl gives each API server its manifests.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Labelled, Share, Side, Stage};
use crate::cluster::{Node, Pair, SYSTEM, Site, Workload};
use crate::host::Host;
use crate::pod::Pod;
use crate::traffic::{Server, any};
use crate::world::{NAMESPACE, Verdict};

/// How soon what kubectl has said is done has to be in force: two watches are on the way, and
/// each look at it is a process of its own.
const SOON: Duration = Duration::from_secs(2);

/// A pair of clusters, seen by the pods of one node of `west`.
#[derive(Debug)]
pub struct Clusters<'a> {
    pair: &'a Pair,
    node: &'a Node,
    prefix: &'a str,
    steered: bool,
}

impl<'a> Clusters<'a> {
    /// Clients are pods of the node with an agent, whose kernel steers them.
    pub fn steered(pair: &'a Pair) -> Self {
        Self {
            pair,
            node: &pair.west.node,
            prefix: "steered-",
            steered: true,
        }
    }

    /// Clients are pods of another node of `west`, which has kube-proxy and no agent.
    pub fn by_the_service_path(pair: &'a Pair, node: &'a Node) -> Self {
        Self {
            pair,
            node,
            prefix: "bare-",
            steered: false,
        }
    }

    /// A name that the other stage of the same pair does not use.
    fn own(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Side for Site {
    fn peer(&self) -> &str {
        self.cluster.name()
    }

    fn apply(&self, file: &str, manifests: &[Value]) -> Result<()> {
        self.apply(file, manifests)
    }

    fn withdraw(&self, file: &str) -> Result<()> {
        self.withdraw(file)
    }

    fn label(&self, object: Labelled<'_>, key: &str, value: Option<&str>) -> Result<()> {
        let (kind, name) = match object {
            Labelled::Export(name) => ("export", name),
            Labelled::Import(name) => ("import", name),
            Labelled::Workload(pod) => ("pod", pod.pod_name()),
            Labelled::Peer(name) => {
                let patch = json!({"spec": {"labels": value.map(|value| json!({key: value}))}});
                let what = ["patch", "peer", name, "-n", SYSTEM];
                let how = ["--type=merge", "-p", &patch.to_string()];
                return self
                    .cluster
                    .plane
                    .run(&[&what[..], &how].concat())
                    .map(drop);
            }
        };
        let label = value.map_or_else(|| format!("{key}-"), |value| format!("{key}={value}"));
        let arguments = ["label", kind, name, "-n", NAMESPACE, "--overwrite", &label];
        self.cluster.plane.run(&arguments).map(drop)
    }

    fn flows(&self) -> Result<Value> {
        self.node.flows_json()
    }

    fn status(&self) -> Result<Value> {
        self.node.status()
    }

    fn host(&self) -> &Host {
        self.node.host()
    }

    fn address(&self) -> SocketAddr {
        self.node.address()
    }

    fn pid(&self) -> Result<u32> {
        let agent = self.node.agent.as_ref().context("no agent runs")?;
        Ok(agent.pid())
    }

    fn renew(&self, files: &[(&str, &str)]) -> Result<()> {
        self.cluster.renew_certs(files)
    }

    fn take_away(&self, file: &str) -> Result<()> {
        self.cluster.remove_cert(file)
    }
}

impl Stage for Clusters<'_> {
    fn west(&self) -> &dyn Side {
        &self.pair.west
    }

    fn east(&self) -> &dyn Side {
        &self.pair.east
    }

    fn soon(&self) -> Duration {
        SOON
    }

    fn refused(&self) -> Verdict {
        // By the Service path it is an agent that says no, after the connection is there.
        if self.steered {
            Verdict::Refused
        } else {
            Verdict::Reset
        }
    }

    fn share(&self, name: &str, mode: &str, flags: &[&str]) -> Result<Share> {
        let (Pair { east, west }, name) = (self.pair, self.own(name));
        let pod = Workload::start(&east.cluster, &east.node, NAMESPACE, &name, |pod| pod)?;
        let server = Server::start(&pod, mode, any(8080), flags)?;
        east.export(&name, &[(&pod, 8080)])?;
        west.import(&name, "static", &["east"])?;
        let address = west.cluster.import_address(NAMESPACE, &name)?;
        let ipv6 = west.cluster.import_address_of(NAMESPACE, &name, true)?;
        resolve(self.node, &name, &[address, ipv6])?;
        Ok(Share {
            name,
            server,
            address,
            ipv6,
        })
    }

    fn workload(&self, name: &str, change: impl FnOnce(Value) -> Value) -> Result<Pod> {
        let cluster = &self.pair.west.cluster;
        let change = |mut pod: Value| {
            // The harness labels pods by their names, and stories by what they are about.
            if let Some(labels) = pod["metadata"]["labels"].as_object_mut() {
                labels.clear();
            }
            change(pod)
        };
        let own = self.own(name);
        let workload = Workload::start(cluster, self.node, NAMESPACE, &own, change)?;
        Ok(Pod::clone(&workload))
    }

    fn stranger(&self) -> Result<Pod> {
        self.node.host().pod_with_network(&self.own("unknown"))
    }
}

/// What the cluster's DNS would say to the node's pods, in the file that stands for it.
fn resolve(node: &Node, service: &str, addresses: &[SocketAddr]) -> Result<()> {
    let path = node.host().hosts_file();
    let mut hosts =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = format!("{service}.{NAMESPACE}");
    for address in addresses {
        let ip = address.ip();
        writeln!(hosts, "{ip} {service} {name} {name}.svc.cluster.local")?;
    }
    fs::write(&path, hosts).with_context(|| format!("cannot write {}", path.display()))
}
