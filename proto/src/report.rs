//! What an agent says of its node. It is a state, not a log: the newest report replaces the last.

#[cfg(test)]
mod tests;
pub(crate) mod translate;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use clusterlink_model::{Labels, ObjectName, PeerName, ResourceKey, Source};
use serde::{Deserialize, Serialize};

/// The state of one node, as its agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeReport {
    /// The software and version of the agent.
    pub software: String,
    /// What the agent still waits for; it is ready when there is nothing.
    pub waits_for: Vec<String>,
    /// The addresses of the node at which target ports are served.
    pub addresses: Vec<IpAddr>,
    /// Whether connects are steered in the kernel.
    pub steering: SteeringReport,
    /// The peers that this node knows, by name.
    pub peers: Vec<PeerReport>,
    /// Sources of imports that were tried, with what the peer said last.
    pub sources: Vec<SourceReport>,
    /// Resources that the agent could not use.
    pub rejected: Vec<Rejected>,
    /// TCP ports from 1024 on that processes of the node listen on, the agent's own left out.
    pub listening: BTreeSet<u16>,
    /// The TCP ports of the agent itself, with what they are for.
    pub own_ports: BTreeMap<u16, String>,
}

/// Whether connects are steered in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SteeringReport {
    /// A probe connect was seen by the hooks.
    pub on: bool,
    /// Why not, if it is off.
    pub reason: Option<String>,
}

/// A peer, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// The peer.
    pub name: PeerName,
    /// There is a live session with it, either way.
    pub reachable: bool,
    /// The smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// When it was last heard from, in milliseconds since the epoch.
    pub last_seen_ms: Option<u64>,
    /// What it runs.
    pub software: Option<String>,
    /// What it says of itself.
    pub labels: Labels,
    /// Why there is no session, for people.
    pub error: Option<String>,
}

/// What a peer said when a source was last asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceReport {
    /// The import.
    pub import: ObjectName,
    /// The source of it.
    pub source: Source,
    /// The peer let us have it.
    pub accepted: bool,
    /// Why not, for people; empty if it did.
    pub reason: String,
}

/// A resource that the agent could not use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Which one.
    pub key: ResourceKey,
    /// Why, and the cure.
    pub reason: String,
}
