//! The status of a peer, as `clusterlink status -o json` prints it.

use std::collections::BTreeMap;

use clusterlink_gateway::status::GatewayStatus;
use clusterlink_model::{Labels, PeerName};
use serde::{Deserialize, Serialize};

use crate::control::{
    Condition, ExportObject, ImportObject, PolicyObject, Problem, WorkloadObject,
};

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether connections of local clients are judged and served.
    pub ready: bool,
    /// What readiness waits for.
    pub waiting_for: Vec<String>,
    /// The software version.
    pub software: String,
    /// Grows with every change that a decision depends on.
    pub generation: u64,
    /// This peer.
    pub peer: Local,
    /// Whether connects are steered in the kernel.
    pub steering: Steering,
    /// Other peers.
    pub peers: Vec<Peer>,
    /// Imports.
    pub imports: Vec<ImportObject>,
    /// Exports.
    pub exports: Vec<ExportObject>,
    /// Policies.
    pub policies: Vec<PolicyObject>,
    /// Pods.
    pub workloads: Vec<WorkloadObject>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// How many flows are open.
    pub open_flows: u64,
    /// What the kernel's hooks counted, by reason.
    pub counters: BTreeMap<String, u64>,
}

/// This peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Local {
    /// Its name.
    pub name: PeerName,
    /// Its labels.
    pub labels: Labels,
    /// Its certificate.
    pub certificate: Certificate,
}

/// The certificate in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// When it expires, seconds since the epoch.
    pub expires: u64,
    /// How often the files were loaded since the start.
    pub generation: u64,
}

/// Whether connects are steered in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Steering {
    /// Whether a probe connect was seen by the hooks.
    pub on: bool,
    /// Why not, if it is off.
    pub reason: Option<String>,
}

/// Another peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its name.
    pub name: PeerName,
    /// Whether there is a Peer object for it.
    pub listed: bool,
    /// Whether a session with it exists that is not silent.
    pub reachable: bool,
    /// When it was last heard, milliseconds since the epoch.
    pub last_seen_ms: Option<u64>,
    /// Round-trip time in microseconds.
    pub rtt_us: Option<u64>,
    /// Its software version.
    pub version: Option<String>,
    /// The labels in force.
    pub labels: Labels,
    /// Its gateways as dialled from here.
    pub gateways: Vec<GatewayStatus>,
    /// Sessions that it dialled to us.
    pub inbound_sessions: usize,
    /// What holds of it, `PeerReachable` among them.
    pub conditions: Vec<Condition>,
}
