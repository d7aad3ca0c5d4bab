//! A cluster of one control plane: an API server, the controller, and agents on their nodes.
//!
//! ```text
//! Host "east"  ─ etcd, kube-apiserver, kube-controller-manager, clusterlink-controller
//!   └ Node "east": clusterlink-agent, kube-proxy, pods (cgroups named as the kubelet names them)
//! Host "east2" ─ Node "east2": kube-proxy, with or without an agent
//! ```
//! What a kubelet would do is done by the harness: it makes the Node, binds Pods to it, gives
//! their processes a cgroup and a network, and reports them as running.

mod mount;
mod node;
mod site;
mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

pub use self::node::{AgentOptions, Node};
pub use self::site::{Pair, Site, backends, imported};
pub use self::workload::Workload;
pub use crate::controller::SYSTEM;
use crate::controller::{Controller, ControllerOptions};
use crate::fabric::Fabric;
use crate::host::Host;
use crate::kubernetes::ControlPlane;
use crate::manifests;
use crate::scene::Scene;
use crate::wait::wait_until;

/// The port that agents reach their controller at.
const PUSH_PORT: u16 = 4445;

/// The Secret with the peer's certificate.
const SECRET: &str = "clusterlink-peer";

/// How long the parts of a cluster may take to find each other.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster that is a peer of a fabric.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    host: Host,
    /// Its API server.
    pub plane: ControlPlane,
    /// Its controller, while one runs.
    pub controller: Option<Controller>,
    certs: PathBuf,
    labels: Vec<String>,
}

impl Cluster {
    /// Starts a control plane and a controller on a host of the cluster's name, which is also the
    /// peer's name. It has no nodes yet.
    pub fn start(scene: &Scene, fabric: &Fabric, name: &str) -> Result<Self> {
        Self::labelled(scene, fabric, name, &[])
    }

    /// [`Cluster::start`] of a peer that says these labels of itself, each as `key=value`.
    pub fn labelled(scene: &Scene, fabric: &Fabric, name: &str, labels: &[&str]) -> Result<Self> {
        Self::on(scene, fabric, scene.host(name)?, labels)
    }

    /// [`Cluster::labelled`] on a host that there is.
    pub(crate) fn on(scene: &Scene, fabric: &Fabric, host: Host, labels: &[&str]) -> Result<Self> {
        let name = host.name();
        let plane = ControlPlane::start(&host)?;
        let certs = scene.directory().join(format!("certs-{name}"));
        fs::create_dir_all(&certs).with_context(|| format!("cannot make {}", certs.display()))?;
        let certificate = fabric.peer_cert(name)?;
        let mut cluster = Self {
            name: name.to_owned(),
            host,
            plane,
            controller: None,
            certs,
            labels: labels.iter().map(ToString::to_string).collect(),
        };
        cluster.install(&certificate)?;
        cluster.start_controller()?;
        Ok(cluster)
    }

    /// What `clusterlink deploy peer` applies before the controller starts.
    fn install(&self, issued: &Path) -> Result<()> {
        self.plane.install_clusterlink()?;
        let file = |name: &str| format!("--from-file={}", issued.join(name).display());
        let files = [file("cert.pem"), file("key.pem"), file("ca.pem")];
        let mut all = vec!["create", "secret", "generic", SECRET, "-n", SYSTEM];
        all.extend(files.iter().map(String::as_str));
        self.plane.run(&all)?;
        mount::secret(&self.plane, SYSTEM, SECRET, &self.certs)
    }

    /// Gives files of the peer's Secret another content, which its agents see as soon as a kubelet
    /// would have renewed what they have mounted.
    pub fn renew_certs(&self, files: &[(&str, &str)]) -> Result<()> {
        let files: BTreeMap<_, _> = files.iter().copied().collect();
        self.patch_certs(&json!({"stringData": files}))
    }

    /// Takes a file out of the peer's Secret.
    pub fn remove_cert(&self, file: &str) -> Result<()> {
        self.patch_certs(&json!({"data": {file: null}}))
    }

    fn patch_certs(&self, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        let patch = ["patch", "secret", SECRET, "-n", SYSTEM, "-p", &patch];
        self.plane.run(&patch)?;
        mount::secret(&self.plane, SYSTEM, SECRET, &self.certs)
    }

    /// Starts the controller, as a pod of the system namespace would run, and waits until it is
    /// ready. It learns its peer's name from the Secret.
    pub fn start_controller(&mut self) -> Result<()> {
        let mut options = ControllerOptions {
            peer_name: None,
            ..ControllerOptions::named(&self.name)
        };
        options.flags.extend(self.label_flags());
        let controller = Controller::start_with(&self.host, &self.plane, &options)?;
        self.controller = Some(controller);
        Ok(())
    }

    /// The cluster's name, which is its peer's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes what the peer says of itself, for whatever is started from now on.
    pub fn relabel(&mut self, labels: &[&str]) {
        self.labels = labels.iter().map(ToString::to_string).collect();
    }

    /// The flags of controller and agents with the peer's labels.
    pub(crate) fn label_flags(&self) -> impl Iterator<Item = String> {
        self.labels.iter().map(|label| format!("--label={label}"))
    }

    /// The host of its control plane.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where agents reach the controller.
    pub fn push_address(&self) -> SocketAddr {
        SocketAddr::new(self.host.ipv4(), PUSH_PORT)
    }

    /// The directory where the peer's Secret is mounted: certificate, key and trust bundle.
    pub(crate) fn certs(&self) -> &PathBuf {
        &self.certs
    }

    /// Makes a namespace with the ServiceAccount that its pods use.
    pub fn namespace(&self, name: &str) -> Result<()> {
        self.plane.apply(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount",
                   "metadata": {"name": "default", "namespace": name}}),
        ])?;
        Ok(())
    }

    /// Says where other peers are.
    pub fn know(&self, peers: &[(&str, SocketAddr)]) -> Result<()> {
        let all: Vec<Value> = peers
            .iter()
            .map(|(name, address)| manifests::peer(name, &[*address]))
            .collect();
        self.plane.apply(&all).map(drop)
    }

    /// Waits until a condition of an object has a status, and gives the whole object.
    pub fn wait_condition(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        condition: &str,
        wanted: &str,
    ) -> Result<Value> {
        let what = format!("{kind} {namespace}/{name} says {condition}={wanted}");
        wait_until(&what, PATIENCE, || {
            let object = self.plane.get(&[kind, name, "-n", namespace])?;
            let all = object["status"]["conditions"].as_array();
            let holds = all.is_some_and(|all| {
                all.iter()
                    .any(|one| one["type"] == condition && one["status"] == wanted)
            });
            if holds {
                return Ok(Some(object));
            }
            bail!("{}", object["status"])
        })
    }

    /// The IPv4 ClusterIP and port of an import's Service, once it has one.
    pub fn import_address(&self, namespace: &str, name: &str) -> Result<SocketAddr> {
        self.import_address_of(namespace, name, false)
    }

    /// The ClusterIP of a family and the port of an import's Service, once it has one.
    pub fn import_address_of(&self, namespace: &str, name: &str, ipv6: bool) -> Result<SocketAddr> {
        let what = format!("the import {namespace}/{name} has a Service");
        wait_until(&what, PATIENCE, || {
            let service = self.plane.get(&["service", name, "-n", namespace])?;
            let all = service["spec"]["clusterIPs"].as_array();
            let address = all
                .into_iter()
                .flatten()
                .filter_map(|ip| ip.as_str()?.parse().ok())
                .find(|ip: &IpAddr| ip.is_ipv6() == ipv6)
                .context("no clusterIP of that family")?;
            let port = service["spec"]["ports"][0]["port"]
                .as_u64()
                .context("no port")?;
            Ok(Some(SocketAddr::new(address, u16::try_from(port)?)))
        })
    }
}
