//! The gateway of a peer: accepts steered connections of local clients and carries them to other
//! peers over mutually authenticated TLS, and the other way round.
//!
//! ```text
//! client ──▶ steering listener ─▶ egress: who, policy, source ─▶ link ══ TLS ══▶ peer
//! backend ◀── relay ◀── ingress: policy, backend ◀── link ◀══ TLS ══ peer listener
//! ```
//!
//! Each worker is a thread with a runtime, listeners and sessions of its own (`worker`); a flow
//! stays on the worker that accepted it. A session is a `link` (socket, TLS channel, protocol state
//! of [`tunnel`]); a connection is a `stream` of a link, carried by `relay`.

#![forbid(unsafe_code)]

mod arrival;
mod backend;
mod egress;
pub mod flow;
mod forgotten;
mod gateway;
mod ingress;
mod judge;
mod link;
mod metrics;
mod outcomes;
mod peers;
mod pool;
mod relay;
mod scratch;
mod socket;
pub mod status;
mod stream;
mod targets;
pub mod tls;
pub mod tunnel;
pub mod view;
mod worker;

pub use gateway::{Config, Gateway, GatewayError, ServicePath};
pub use outcomes::SourceOutcome;
pub use targets::UnservedTarget;

/// An error with all of its causes, for people.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A listener's accept failed: most likely this process has no free file descriptor, and trying
/// again at once would only burn a core.
pub(crate) async fn accept_failed(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept a connection; is the open files limit reached?");
    tokio::time::sleep(ingress::ACCEPT_PAUSE).await;
}
