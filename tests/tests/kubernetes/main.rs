//! Clusters with a real API server: controller, agents and gateways, with kubectl as the user's hand.
//!
//! One program for all of them: each more would link the same crates again.

#![forbid(unsafe_code)]

mod agents;
mod gateways;
mod imports;
mod kubectl;
mod merge;
mod outage;
mod path;
mod policy;
mod restarts;
mod rights;
mod scale;
mod schemas;
mod sources;
mod status;
mod tokens;
mod transport;
