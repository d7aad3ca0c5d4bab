//! The push server: tells the agents of the cluster what their nodes need, and hears what the
//! nodes are like.
//!
//! ```text
//! agent ══TLS══▶ token ─▶ Authenticator ─▶ pod, node, expiry
//!   Subscribe: Held ─▶ admission ─▶ NodeView of the log ─▶ Outbox ═▶ one update at a time, until
//!              ◀═ Ack                                                it is acknowledged
//!   Report:    NodeReport, StillSteered ─▶ Agents (at the leader only) ─▶ Ask ═▶
//! ```
//! An agent that reads slowly costs pointers to what it is being sent, never copies: it is given
//! the next batch from the log when it has acknowledged the last one, and so the newest state.
//!
//! All replicas share their certificate authorities, so an agent trusts any of them, also one that was
//! started a moment ago.

mod accept;
mod auth;
mod authority;
mod guard;
#[cfg(feature = "api-server")]
mod live_pods;
mod metrics;
mod outbox;
mod owners;
mod report;
mod service;
mod subscribe;
#[cfg(feature = "api-server")]
mod token_review;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

pub use self::{
    auth::{Authenticator, Identity, Refusal},
    authority::{Authority, AuthorityError, Roots},
    metrics::Metrics,
};
#[cfg(feature = "api-server")]
pub use self::{live_pods::live_pods, token_review::TokenReviewer};
use crate::{agents::Agents, publish::Subscriber};

/// How the push server behaves.
#[derive(Clone, Debug)]
pub struct PushConfig {
    /// The name and version that agents are told.
    pub software: String,
    /// How many agents are brought up to date at the same time.
    pub snapshots: usize,
    /// After this time an agent that is still being brought up to date no longer keeps others
    /// waiting.
    pub admission: Duration,
    /// How long an agent may take to apply an update.
    pub acknowledge: Duration,
    /// How often an agent hears from us when there is nothing to say.
    pub heartbeat: Duration,
    /// How long an agent may take to greet, and to name what it holds.
    pub greeting: Duration,
    /// How long a pod may be missing from the live ones when its agent connects: the token says
    /// that it exists, but the watch may be behind.
    pub unseen_pod: Duration,
    /// The shortest time between two reports of one agent that are looked at.
    pub report: Duration,
}

/// Which controller writes to the API server, and so takes reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leadership {
    /// This one.
    Leading,
    /// Another one, which serves agents at this address.
    Following(SocketAddr),
    /// Nobody knows yet.
    #[default]
    Unknown,
}

#[cfg(feature = "api-server")]
impl From<&crate::leader::Leadership> for Leadership {
    /// A holder that is not written as one of ours is nobody that agents could be sent to.
    fn from(leadership: &crate::leader::Leadership) -> Self {
        let holder = leadership.holder.as_deref().unwrap_or_default();
        match holder.parse::<crate::leader::Holder>() {
            _ if leadership.leading => Self::Leading,
            Ok(holder) => Self::Following(holder.push),
            Err(_) => Self::Unknown,
        }
    }
}

/// The UIDs of the agents' pods that exist, or nothing while they are not known.
pub type LivePods = Option<Arc<BTreeSet<Arc<str>>>>;

/// What the push server works with.
#[derive(Debug)]
pub struct PushServer<A> {
    /// How it behaves.
    pub config: PushConfig,
    /// What agents are told.
    pub resources: Subscriber,
    /// Who agents are.
    pub authenticator: A,
    /// Where their reports go.
    pub agents: Agents,
    /// Who takes reports.
    pub leadership: watch::Receiver<Leadership>,
    /// Whose streams go on.
    pub live_pods: watch::Receiver<LivePods>,
    /// The certificates of the listener.
    pub authority: Arc<Authority>,
    /// What is counted.
    pub metrics: Metrics,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            software: format!("clusterlink-controller {}", env!("CARGO_PKG_VERSION")),
            snapshots: 4,
            admission: Duration::from_secs(10),
            acknowledge: Duration::from_secs(60),
            heartbeat: Duration::from_secs(15),
            greeting: Duration::from_secs(10),
            unseen_pod: Duration::from_secs(30),
            report: Duration::from_millis(100),
        }
    }
}

/// Serves agents until `stop` is cancelled; then streams end, and the agents look for another
/// replica.
pub async fn serve<A: Authenticator>(
    listener: TcpListener,
    server: PushServer<A>,
    stop: CancellationToken,
) {
    let incoming = accept::connections(listener, &server.authority, server.metrics.clone());
    let service = service::Service::new(server, stop.clone());
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(4)
        .http2_max_header_list_size(32 * 1024)
        .serve_with_incoming_shutdown(
            service.into_tower(),
            incoming,
            stop.clone().cancelled_owned(),
        );
    // Streams end by themselves when `stop` is cancelled; a connection that does not is left.
    let grace = async {
        stop.cancelled().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    };
    tokio::select! {
        result = served => if let Err(error) = result {
            tracing::error!(%error, "the push server has ended: agents are not served");
        },
        () = grace => {}
    }
}

#[cfg(test)]
mod tests;
