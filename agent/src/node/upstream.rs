//! The agent's end of the connection to its controller.

use std::{path::PathBuf, sync::Arc, time::Instant};

use clusterlink_model::{HostPort, Update};
use clusterlink_proto::NodeReport;
use tokio::sync::watch;

use crate::{control::Updates, state::Steered};

/// Where the controller is, and how both prove who they are.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Where the controller listens.
    pub controller: HostPort,
    /// Its certificate authority (PEM); read again for each connection, since it is published by the
    /// controller and may come later than this process.
    pub ca: PathBuf,
    /// The token of this agent's ServiceAccount; read again for each connection, since it expires.
    pub token: PathBuf,
    /// The node that this agent is for.
    pub node: Arc<str>,
    /// The software and version of the agent.
    pub software: String,
}

/// What comes from the controller.
pub struct Upstream<U> {
    /// What the node is told.
    pub updates: U,
    /// See [`NodeLink::heard`](crate::app::NodeLink::heard).
    pub heard: watch::Receiver<Option<Instant>>,
}

/// Connects to the controller, now and whenever the connection is lost: `reports` goes up, and so does
/// the answer which released addresses are not `steered` any more.
///
/// PLUG IN HERE: the client of the push protocol (`crate::push`) replaces the body. Without it the
/// agent serves what is stored, and says what is missing.
pub fn connect(
    settings: &UpstreamSettings,
    reports: watch::Receiver<Arc<NodeReport>>,
    steered: Steered,
) -> Upstream<Unconnected> {
    tracing::error!(
        controller = %settings.controller,
        "this build has no client of the push protocol: no controller will be heard"
    );
    let (sender, heard) = watch::channel(None);
    Upstream {
        updates: Unconnected {
            _kept: (reports, steered, sender),
        },
        heard,
    }
}

/// Says nothing, ever.
pub struct Unconnected {
    _kept: (
        watch::Receiver<Arc<NodeReport>>,
        Steered,
        watch::Sender<Option<Instant>>,
    ),
}

impl Updates for Unconnected {
    async fn next(&mut self) -> Option<Update> {
        std::future::pending().await
    }
}
