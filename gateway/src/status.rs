//! What the gateway tells operators of its peers.

use std::net::SocketAddr;

use clusterlink_model::{Labels, PeerName};
use serde::{Deserialize, Serialize};

/// What is known of a peer from talking to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Its name.
    pub name: PeerName,
    /// Whether a session with it exists, dialled by either side.
    pub reachable: bool,
    /// When it was last heard, milliseconds since the epoch.
    pub last_seen_ms: Option<u64>,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: Option<u64>,
    /// Its software version.
    pub version: Option<String>,
    /// What it says of itself.
    pub labels: Labels,
    /// Its gateways as dialled from here.
    pub gateways: Vec<GatewayStatus>,
    /// Sessions that it dialled to us.
    pub inbound_sessions: usize,
}

/// One gateway of a peer, as dialled from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// As the Peer object writes it.
    pub address: String,
    /// What it resolved to.
    pub resolved: Option<SocketAddr>,
    /// Sessions that are up.
    pub sessions: usize,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
}
