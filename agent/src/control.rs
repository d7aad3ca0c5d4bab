//! The controller as the agent sees it. Whoever wires a process brings an implementation, so that
//! the agent knows neither manifests nor an API server.

mod heard;
mod snapshot;

pub use self::{heard::Heard, snapshot::SnapshotControl};

use std::{future::Future, net::IpAddr, sync::Arc};

use clusterlink_model::{Labels, ObjectName, PeerName, PolicyName, Update, Workload};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the node is told.
pub trait Updates: Send + 'static {
    /// The next update: a complete one first, then what changed. `None` when the controller ended.
    fn next(&mut self) -> impl Future<Output = Option<Update>> + Send;
}

/// What the controller answers about an address that a node was not told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A pod has it, of this node or of another one.
    Workload(Arc<Workload>),
    /// A node has it.
    Node,
    /// The controller knows of nobody who has it.
    Nothing,
}

/// Answers who has an address that the node was not told of: a client of the Service path may be a pod
/// of any node.
///
/// An answer counts for a second. A workload that was asked for belongs into [`Updates`] from then on,
/// for as long as it may have connections here: this is how a change of its labels reaches those.
pub trait Lookup: Send + Sync + 'static {
    /// Who has the address. May take as long as it likes, and forever while the controller is away: who
    /// asks gives up after two seconds. Polled on a worker of the gateway.
    fn lookup(&self, address: IpAddr) -> BoxFuture<'_, Found>;
}

/// What the controller says of its objects, for the status.
pub trait Control: Send + Sync + 'static {
    /// The state of every object, as of now.
    fn report(&self) -> ControlReport;
}

/// Every object that the controller knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ControlReport {
    /// Whether everything has been read once.
    pub complete: bool,
    /// What could not be read or kept.
    pub problems: Vec<Problem>,
    /// Imports.
    pub imports: Vec<ImportObject>,
    /// Exports.
    pub exports: Vec<ExportObject>,
    /// Peer objects.
    pub peers: Vec<PeerObject>,
    /// Policies of both kinds.
    pub policies: Vec<PolicyObject>,
    /// Pods.
    pub workloads: Vec<WorkloadObject>,
}

/// Something that could not be read or kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// File, document and line, where it has a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The object's kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong, and the cure.
    pub message: String,
    /// Whether earlier content stays in force.
    pub stale: bool,
}

/// Where a manifest is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The document, from 1.
    pub document: Option<u32>,
    /// The line, from 1.
    pub line: Option<u32>,
}

/// A condition in the sense of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// What is judged.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// One word for programs.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When `status` last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

/// An Import.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportObject {
    /// Namespace and name.
    pub name: ObjectName,
    /// The port that clients connect to.
    pub port: u16,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// How a source is chosen.
    pub scheme: Value,
    /// The leased target port.
    pub target_port: Option<u16>,
    /// Sources in the order of the manifest.
    pub sources: Vec<SourceObject>,
    /// What holds of it.
    pub conditions: Vec<Condition>,
    /// Its last good content is in force.
    pub stale: bool,
}

/// A source of an Import.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceObject {
    /// The peer, as written.
    pub peer: String,
    /// The Export's name, as written.
    pub export_name: String,
    /// The Export's namespace, as written.
    pub export_namespace: String,
    /// Why it is left out, if it is.
    pub invalid: Option<String>,
    /// Whether it can serve now; filled in by the agent.
    #[serde(default)]
    pub state: SourceState,
}

/// Whether a source can serve now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceState {
    /// There is a session with the peer, and policy lets some client of this node reach it.
    Reachable,
    /// There is no session with the peer.
    Unreachable,
    /// Policy lets no client of this node reach it.
    Denied,
    /// There is no Peer object.
    NoPeer,
    /// The manifest does not say what it needs to.
    #[default]
    Invalid,
}

/// An Export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportObject {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service or Import that it refers to.
    pub host: String,
    /// The port of that.
    pub port: u16,
    /// What it resolves to.
    pub backend: Value,
    /// How many ready backends there are; filled in by the agent.
    #[serde(default)]
    pub backends: usize,
    /// What holds of it.
    pub conditions: Vec<Condition>,
    /// Its last good content is in force.
    pub stale: bool,
}

/// A Peer object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerObject {
    /// Namespace and name of the object.
    pub name: ObjectName,
    /// The peer that it names.
    pub peer: Option<PeerName>,
    /// Labels that override what the peer says of itself.
    pub labels: Option<Labels>,
    /// What holds of it.
    pub conditions: Vec<Condition>,
    /// Its last good content is in force.
    pub stale: bool,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyObject {
    /// Which policy.
    pub name: PolicyName,
    /// What is in force under this name: `allow`, `deny` or nothing.
    pub in_force: Option<clusterlink_model::Action>,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<String>,
    /// What holds of it.
    pub conditions: Vec<Condition>,
    /// What is in force is not what the manifest says now.
    pub stale: bool,
}

/// A Pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadObject {
    /// Namespace and name.
    pub name: ObjectName,
    /// Its service account.
    pub service_account: String,
    /// Its cgroup, relative to the cgroup v2 root.
    pub cgroup: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What holds of it.
    pub conditions: Vec<Condition>,
    /// Its last good content is in force.
    pub stale: bool,
}
