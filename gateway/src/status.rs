//! What the gateway tells operators of its peers.

use std::net::SocketAddr;

use clusterlink_model::{HostPort, Labels, PeerName};
use serde::{Deserialize, Serialize};

/// What is known of a peer from talking to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Its name.
    pub name: PeerName,
    /// Whether a session with it exists that is not silent, dialled by either side.
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

impl PeerStatus {
    /// Whether connections can be opened to it: one of the gateways that its Peer object names has a
    /// session. That it has called us says nothing of that, but for a peer without gateways, of which
    /// nothing else can be said.
    pub fn is_reached_by(&self, gateways: &[HostPort]) -> bool {
        if gateways.is_empty() {
            return self.reachable;
        }
        (self.gateways.iter())
            .any(|gateway| gateway.sessions > gateway.silent && gateway.is_one_of(gateways))
    }
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
    /// How many of them have given no sign of life for two seconds, though they were asked for one.
    pub silent: usize,
    /// Why the last attempt failed, if it did, or that all sessions are silent.
    pub error: Option<String>,
}

impl GatewayStatus {
    /// Whether it is among those that a Peer object names.
    pub fn is_one_of(&self, gateways: &[HostPort]) -> bool {
        gateways.iter().any(|one| one.to_string() == self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_calls_us_is_reachable_only_if_a_gateway_of_its_object_answers() {
        let named: Vec<HostPort> = vec![HostPort {
            host: "east.example".into(),
            port: std::num::NonZeroU16::new(443).unwrap(),
        }];
        let gateway = |address: &str, sessions| GatewayStatus {
            address: address.to_owned(),
            resolved: None,
            sessions,
            silent: 0,
            error: None,
        };
        let status = |gateways| PeerStatus {
            name: "east".parse().unwrap(),
            reachable: true,
            last_seen_ms: None,
            rtt_us: None,
            version: None,
            labels: Labels::new(),
            gateways,
            inbound_sessions: 1,
        };
        let calls = status(Vec::new());
        assert!(calls.is_reached_by(&[]), "it has no gateways");
        assert!(!calls.is_reached_by(&named));
        assert!(!status(vec![gateway("east.example:443", 0)]).is_reached_by(&named));
        assert!(!status(vec![gateway("old.example:443", 1)]).is_reached_by(&named));
        assert!(status(vec![gateway("east.example:443", 1)]).is_reached_by(&named));
        let silent = GatewayStatus {
            silent: 1,
            ..gateway("east.example:443", 1)
        };
        assert!(!status(vec![silent]).is_reached_by(&named));
    }
}
