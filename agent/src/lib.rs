//! The node agent: what a node knows, and what it tells its kernel and its gateway.
//!
//! ```text
//! controller ──Update──▶ state ──▶ datapath (kernel tables)
//!                          ├─────▶ View ──▶ gateway
//!                          └─────▶ host (routes, addresses, names)
//! admin ◀── status, flows, metrics
//! ```

pub mod admin;
pub mod app;
pub mod boot;
pub mod control;
pub mod datapath;
mod file;
pub mod host;
pub mod last_state;
pub mod lease;
pub mod lock;
pub mod node;
mod pods;
pub mod push;
pub mod readiness;
mod refusals;
pub mod released;
mod report;
pub mod settings;
pub mod state;

/// An error with everything that caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
