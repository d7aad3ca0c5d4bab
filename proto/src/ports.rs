//! The ports of an agent that is told of no others. The controller gives none of them to an import,
//! also before any agent has reported.

/// Where steered connections go, at the gateway addresses.
pub const STEERING: u16 = 4440;
/// Where other peers connect.
pub const GATEWAY: u16 = 4443;
/// Where metrics and readiness are.
pub const METRICS: u16 = 9477;

/// What [`STEERING`] is for, in messages.
pub const FOR_STEERING: &str = "steered connections";
/// What [`GATEWAY`] is for, in messages.
pub const FOR_GATEWAY: &str = "other peers (--listen)";
/// What [`METRICS`] is for, in messages.
pub const FOR_METRICS: &str = "metrics (--metrics)";

/// All of them.
pub const AGENT_PORTS: [(u16, &str); 3] = [
    (STEERING, FOR_STEERING),
    (GATEWAY, FOR_GATEWAY),
    (METRICS, FOR_METRICS),
];
