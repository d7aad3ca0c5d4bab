//! The agent's end of the connection to its controller.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, sync::Arc};

use clusterlink_model::{HostPort, Snapshot, Update};
use clusterlink_proto::NodeReport;
use tokio::{sync::watch, time::Instant};

use crate::control::{Heard, Updates};

/// Where the controller is, and how both prove who they are.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Where the controller listens.
    pub controller: HostPort,
    /// The system namespace, which is part of the name in the controller's certificate.
    pub namespace: String,
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

/// What goes up, and what is known already.
#[derive(Debug)]
pub struct Inputs {
    /// The boot of the node.
    pub boot: Arc<str>,
    /// What an earlier process was told: only what is different has to come.
    pub kept: Option<Snapshot>,
    /// What the node says.
    pub report: watch::Receiver<Arc<NodeReport>>,
    /// The addresses that are steered, for the answers which released ones are not any more.
    pub steered: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
}

/// What comes from the controller.
pub struct Upstream<U> {
    /// What the node is told.
    pub updates: U,
    /// When the controller was last heard from.
    pub heard: Heard,
}

/// Connects to the controller, now and whenever the connection is lost.
///
/// PLUG IN HERE: the client of the push protocol (`crate::push`) replaces the body. Without it the
/// agent serves what is stored, and says what is missing.
pub fn connect(settings: &UpstreamSettings, inputs: Inputs) -> Upstream<Unconnected> {
    tracing::error!(
        controller = %settings.controller,
        "this build has no client of the push protocol: no controller will be heard"
    );
    let (times, heard) = watch::channel(Instant::now());
    Upstream {
        updates: Unconnected {
            _kept: (inputs, times),
        },
        heard: Heard::new(heard),
    }
}

/// Says nothing, ever.
pub struct Unconnected {
    _kept: (Inputs, watch::Sender<Instant>),
}

impl Updates for Unconnected {
    async fn next(&mut self) -> Option<Update> {
        std::future::pending().await
    }
}
