//! The agent's end of the connection to its controller.

use std::{path::PathBuf, sync::Arc};

use clusterlink_model::{HostPort, Snapshot};
use clusterlink_proto::NodeReport;
use tokio::sync::watch;

use crate::{
    control::{Heard, Lookup},
    push::{self, PushUpdates},
    released::Released,
    state::SteeredAddresses,
};

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
    pub steered: watch::Receiver<SteeredAddresses>,
    /// Where it is noted which addresses were released.
    pub released: Released,
}

/// What comes from the controller.
pub struct Upstream {
    /// What the node is told.
    pub updates: PushUpdates,
    /// When the controller was last heard from.
    pub heard: Heard,
    /// Who has an address that the node was not told of.
    pub lookup: Arc<dyn Lookup>,
}

/// Connects to the controller, now and whenever the connection is lost.
pub fn connect(settings: &UpstreamSettings, inputs: Inputs) -> Upstream {
    let controller = settings.controller.to_string();
    let config = push::Config {
        authorities: settings.ca.clone(),
        token: settings.token.clone(),
        software: settings.software.clone(),
        boot_id: inputs.boot.to_string(),
        ..push::Config::new(controller, &settings.namespace, settings.node.clone())
    };
    let inputs = push::Inputs {
        kept: inputs.kept,
        report: inputs.report,
        steered: inputs.steered,
        released: inputs.released,
    };
    let (updates, handle) = push::Client::start(config, inputs);
    Upstream {
        updates,
        heard: Heard::new(handle.last_heard()),
        lookup: Arc::new(handle),
    }
}
