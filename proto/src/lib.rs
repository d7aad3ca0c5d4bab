//! What the controller and the agents of one cluster tell each other.
#![forbid(unsafe_code)]

pub mod report;

pub use report::{NodeReport, PeerReport, Rejected, SourceReport, SteeringReport};
