//! What a node's process is told when it starts.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
};

use clusterlink_gateway::tls;
use clusterlink_model::LocalPeer;
use clusterlink_proto::NodeReport;
use ipnet::IpNet;
use tokio::sync::watch;

use crate::{
    control::{Control, Heard, Lookup, Updates},
    datapath::Datapath,
    last_state::{Keeper, LastContact, LastState},
    released::{Released, ReleasedFile},
    state::Steered,
};

/// The settings of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// This peer.
    pub local: LocalPeer,
    /// Where other peers connect.
    pub listen: SocketAddr,
    /// Where steered connections go, at most one address per family.
    pub gateway_addresses: Vec<IpAddr>,
    /// Whether the addresses were asked for; a default one is left out where the host lacks IPv6.
    pub gateway_addresses_explicit: bool,
    /// The port there: [`STEERING_PORT`](super::STEERING_PORT), unless a test shares its host.
    pub steering_port: u16,
    /// The subtree whose connects are steered; none is the whole cgroup v2 tree.
    pub cgroup: Option<PathBuf>,
    /// Where programs and maps are pinned.
    pub bpf_dir: PathBuf,
    /// The state directory, locked by the caller.
    pub state_dir: PathBuf,
    /// Whether callers without a Peer object are refused.
    pub require_listed_peers: bool,
    /// Where Prometheus finds metrics, and others the readiness.
    pub metrics: Option<SocketAddr>,
    /// The socket of the local API.
    pub admin: PathBuf,
    /// How many workers the gateway has.
    pub workers: NonZeroUsize,
    /// The software version.
    pub software: String,
    /// Makes `random` imports draw the same sequence of sources in every run.
    pub random_seed: Option<u64>,
    /// What the kernel programs log: 0 is nothing, 1 errors, up to 5 for everything.
    pub kernel_log_level: u8,
    /// Whether connects are steered in the kernel.
    pub ebpf: Ebpf,
    /// What kind of node it is.
    pub mode: Mode,
}

/// Whether connects are steered in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Ebpf {
    /// Where the kernel lets us; elsewhere as with `off`.
    Auto,
    /// Or the process does not start.
    Require,
    /// Imports are served by the Service path alone, at listeners of the agent's own. What an earlier
    /// agent left in the kernel is removed.
    Off,
}

/// What kind of node it is.
#[derive(Clone, Debug)]
pub enum Mode {
    /// A peer of its own: the imports' addresses are this host's, and nobody else serves them. A stop
    /// removes everything.
    Standalone(Standalone),
    /// A node of a cluster, whose other agents serve while this one is away. A stop leaves what is
    /// pinned, for the next agent to take over.
    Node(Node),
}

/// A host that is a peer of its own.
#[derive(Clone, Debug)]
pub struct Standalone {
    /// The ranges of the imports' addresses.
    pub service_cidrs: Vec<IpNet>,
    /// The hosts file that gets a block of names.
    pub hosts_file: Option<PathBuf>,
}

/// A node of a cluster.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Where it serves target ports; none means the addresses that the cluster knows it by.
    pub addresses: Vec<IpAddr>,
    /// The addresses of the host, which stand in where the cluster knows none.
    pub host_addresses: Vec<IpAddr>,
    /// Ranges of outside addresses that may connect by the Service path.
    pub outside_ranges: Vec<IpNet>,
    /// What no name of a backend may resolve into, besides nodes and pods.
    pub refused_backends: Vec<IpNet>,
    /// What may be dialled although it is loopback or link-local.
    pub allowed_backends: Vec<IpNet>,
}

impl Config {
    /// The settings of a node of a cluster, if it is one.
    pub fn node(&self) -> Option<&Node> {
        match &self.mode {
            Mode::Node(node) => Some(node),
            Mode::Standalone(_) => None,
        }
    }

    /// Where target ports are served, if that is given; a standalone peer has no Service path.
    pub(super) fn target_addresses(&self) -> &[IpAddr] {
        self.node().map_or(&[], |node| &node.addresses)
    }
}

/// What a process brings to its node.
pub struct Parts<U> {
    pub(super) credentials: tls::Watcher,
    pub(super) updates: U,
    pub(super) control: Option<Arc<dyn Control>>,
    pub(super) link: Option<NodeLink>,
    pub(super) datapath: Option<Arc<dyn Datapath>>,
}

/// What a node of a cluster has of its controller, besides updates.
pub struct NodeLink {
    /// What the node says; it begins as not ready.
    pub report: watch::Sender<Arc<NodeReport>>,
    /// When it was last heard from.
    pub heard: Heard,
    /// The addresses that are steered, for the answers about released ones.
    pub steered: Steered,
    /// The addresses that the controller asks to be let go of.
    pub released: Released,
    /// Where those are kept.
    pub released_file: ReleasedFile,
    /// Where the last contact is kept.
    pub last_contact: LastContact,
    /// What keeps the last state.
    pub keeper: Arc<Keeper>,
    /// Who has an address that the node was not told of.
    pub lookup: Arc<dyn Lookup>,
}

impl<U: Updates> Parts<U> {
    /// The parts of a standalone peer: the controller is in the same process.
    pub fn standalone(credentials: tls::Watcher, updates: U, control: Arc<dyn Control>) -> Self {
        Self {
            credentials,
            updates,
            control: Some(control),
            link: None,
            datapath: None,
        }
    }

    /// Uses this instead of the kernel.
    pub fn with_datapath(self, datapath: Arc<dyn Datapath>) -> Self {
        Self {
            datapath: Some(datapath),
            ..self
        }
    }
}

impl<U: Updates> Parts<LastState<U>> {
    /// The parts of a node of a cluster.
    pub fn node(credentials: tls::Watcher, updates: LastState<U>, link: NodeLink) -> Self {
        Self {
            credentials,
            updates,
            control: None,
            link: Some(link),
            datapath: None,
        }
    }
}
