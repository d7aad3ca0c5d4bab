//! What the process tells the controller.

use std::{collections::BTreeMap, ops::RangeInclusive, path::PathBuf};

use clusterlink_model::LocalPeer;
use ipnet::IpNet;

/// The settings of the controller of a standalone peer.
#[derive(Clone, Debug)]
pub struct Config {
    /// The peer that this is.
    pub peer: LocalPeer,
    /// Where the imports' addresses come from; one address of each family that is named.
    pub service_cidrs: Vec<IpNet>,
    /// Where leases and the last valid denies are kept.
    pub state_dir: PathBuf,
    /// Where target ports are allocated from.
    pub target_ports: RangeInclusive<u16>,
    /// Ports that no Import may have, since Kubernetes gives them to NodePort Services.
    pub node_ports: RangeInclusive<u16>,
    /// Ports that no Import may have, since this process listens on them, with what they are for.
    pub own_ports: BTreeMap<u16, String>,
    /// Whether what is found out about objects is collected for a writer of their status.
    pub collect_news: bool,
}

impl Config {
    /// The default range of target ports: below the NodePort range and below the range that
    /// Linux takes ephemeral ports from.
    pub const TARGET_PORTS: RangeInclusive<u16> = 10_000..=29_999;
    /// The NodePort range of Kubernetes, unless a cluster sets another.
    pub const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

    /// The default settings for a peer.
    pub fn new(peer: LocalPeer, service_cidrs: Vec<IpNet>, state_dir: PathBuf) -> Self {
        Self {
            peer,
            service_cidrs,
            state_dir,
            target_ports: Self::TARGET_PORTS,
            node_ports: Self::NODE_PORTS,
            own_ports: BTreeMap::new(),
            collect_news: false,
        }
    }
}
