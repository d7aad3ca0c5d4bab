//! Imports as Kubernetes objects: which Services and EndpointSlices there should be, which target
//! port an Import holds, and when an address may be given up.
//!
//! ```text
//! Import, Service, slices ─▶ ownership ─▶ service ──┐
//! agents (Pods, Nodes) ────▶ placement ─▶ slices ───┼─▶ Desired ─▶ Writer (lease holder) ─▶ API server
//! their reports ───────────▶ rejections ─▲          │                                          │
//! status.targetPort ───────▶ ports        merge ────┘                                          │
//!        ▲──────────────────────────── watches ◀────────────────────────────────────────────────┘
//! ```
//! Everything but the writer is computation on objects, done alike by every replica: what counts
//! is what has come back by the watches.

use std::{collections::BTreeMap, ops::RangeInclusive};

use clusterlink_model::{LocalPeer, lease::PortRules};

use ipnet::IpNet;

use crate::config::Config;

pub(crate) mod desired;
pub(crate) mod fleet;
mod merge;
pub(crate) mod ownership;
mod placement;
pub(crate) mod ports;
mod reconcile;
mod rejections;
mod release;
mod roll;
mod service;
mod slices;
#[cfg(feature = "api-server")]
mod writer;

pub use desired::{Desired, Kind, Write, WriteKey};
#[cfg(feature = "api-server")]
pub(crate) use fleet::NAME_LABEL;
pub(crate) use reconcile::{Cluster, Observed, Outcome};
pub(crate) use service::addresses as service_addresses;
#[cfg(feature = "api-server")]
pub use writer::{Verb, WriteCounts, Writer};

/// The settings of the controller of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The peer that the cluster is.
    pub peer: LocalPeer,
    /// The namespace of the controller and the agents.
    pub system_namespace: String,
    /// Where target ports are allocated from.
    pub target_ports: RangeInclusive<u16>,
    /// Ports that no Import may have, since Kubernetes gives them to NodePort Services.
    pub node_ports: RangeInclusive<u16>,
    /// Ports that no Import may have, since agents listen on them unless they are told otherwise, with
    /// what they are for. What agents report comes on top.
    pub agent_ports: BTreeMap<u16, String>,
    /// Addresses that Exports may be delivered to although they are nobody's of their namespace.
    pub allowed_backends: Vec<IpNet>,
}

impl ClusterConfig {
    /// The default settings for a peer.
    pub fn new(peer: LocalPeer, system_namespace: impl Into<String>) -> Self {
        Self {
            peer,
            system_namespace: system_namespace.into(),
            target_ports: Config::TARGET_PORTS,
            node_ports: Config::NODE_PORTS,
            agent_ports: BTreeMap::new(),
            allowed_backends: Vec::new(),
        }
    }

    pub(crate) fn port_rules(&self) -> PortRules {
        PortRules {
            allocation: self.target_ports.clone(),
            node_ports: self.node_ports.clone(),
            agent_ports: self.agent_ports.clone(),
        }
    }
}
