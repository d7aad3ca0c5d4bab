//! The resources of a node snapshot, free of Kubernetes types.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    client::WorkloadAttributes,
    name::{HostPort, ObjectName, PeerName, PolicyName},
    selector::{Labels, Selector},
};

/// The peer that this node belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPeer {
    /// Its name, which its certificate carries.
    pub name: PeerName,
    /// What it says of itself.
    pub labels: Labels,
}

/// A service of other peers, made available here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Import's labels (`export.clusterlink.net/labels.*` on the egress side).
    pub labels: Labels,
    /// The addresses that clients connect to. None for an import that joins a Service which is not
    /// ours: its clients come by the Service path alone.
    pub addresses: Vec<IpAddr>,
    /// The port that clients connect to.
    pub port: NonZeroU16,
    /// The leased port of the Service path.
    pub target_port: Option<NonZeroU16>,
    /// Where it comes from, in the order of the manifest. Invalid sources are left out.
    pub sources: Vec<Source>,
    /// How a source is chosen for each connection.
    pub scheme: LbScheme,
}

/// One remote export behind an [`Import`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The exporting peer.
    pub peer: PeerName,
    /// The Export at that peer.
    pub export: ObjectName,
}

/// How a source is chosen; the unit is one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LbScheme {
    /// Uniform over the usable sources.
    #[default]
    Random,
    /// Strict rotation per Import on each node, over all workers.
    RoundRobin,
    /// The first usable source in list order, always.
    Static,
}

/// A local service that other peers may be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Export's labels.
    pub labels: Labels,
    /// What it is delivered to.
    pub backend: Backend,
}

/// What an [`Export`] is delivered to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// Ready endpoints of a Service; may be empty.
    Endpoints(Vec<Endpoint>),
    /// A DNS name (ExternalName), resolved at every dial.
    Name(HostPort),
    /// Another import of this peer (relayed, counts a hop).
    Import(ObjectName),
    /// Nothing to deliver to, with the reason that the status shows.
    Unavailable(Arc<str>),
}

/// One ready backend of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where to dial.
    pub address: SocketAddr,
    /// The node that it runs on, if said.
    pub node: Option<Arc<str>>,
    /// The zone that it runs in, if said.
    pub zone: Option<Arc<str>>,
}

/// Another peer of the fabric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name, which its certificate must carry.
    pub name: PeerName,
    /// Where it can be dialled; empty for one that only calls us.
    pub gateways: Vec<HostPort>,
    /// Overrides what the peer says of itself, where present.
    pub labels: Option<Labels>,
    /// Certificates issued before this time (seconds since the epoch) are refused.
    pub not_issued_before: Option<i64>,
}

/// Whether a policy allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The connection may pass.
    Allow,
    /// The connection is refused.
    Deny,
}

/// An access policy, valid by construction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Which policy it is, and where it counts.
    pub name: PolicyName,
    /// What it does with a connection that it matches.
    pub action: Action,
    /// Matches the source attributes if any of these does.
    pub from: Vec<Selector>,
    /// Matches the destination attributes if any of these does.
    pub to: Vec<Selector>,
}

/// A workload (pod) of this node, or another pod that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Namespace and name.
    pub name: ObjectName,
    /// What policy sees of it.
    pub attributes: Arc<WorkloadAttributes>,
    /// Its cgroup, relative to the cgroup v2 root, where one is known.
    pub cgroup: Option<Arc<str>>,
    /// Its addresses, where known.
    pub addresses: Vec<IpAddr>,
    /// What container runtimes name its cgroup after: the pod's UID, and for a static pod the hash
    /// of its configuration. Empty where [`Self::cgroup`] says all.
    #[serde(default)]
    pub uids: Vec<Arc<str>>,
    /// The node that it runs on, where one is said.
    #[serde(default)]
    pub node: Option<Arc<str>>,
    /// It uses the network namespace, and so the addresses, of its node.
    #[serde(default)]
    pub host_network: bool,
}

/// A node of this peer's cluster. A standalone peer names none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// The ranges that its pods' addresses come from, where they are said.
    pub pod_ranges: Vec<IpNet>,
    /// The zone that it runs in, if said.
    pub zone: Option<Arc<str>>,
}
