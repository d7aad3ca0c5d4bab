//! Readiness as a set of named blockers, which all processes of ours have.

pub use clusterlink_process::readiness::{Blocker, Readiness};
