//! What serves agents and writes for Imports, put into the process.

use std::sync::Arc;

use clusterlink_model::LocalPeer;
use clusterlink_process::readiness::Readiness;
use clusterlink_proto::ports::AGENT_PORTS;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Settings, push};
use crate::{
    Handle,
    agents::Agents,
    cluster::{self, ClusterConfig},
    kept_denies,
    leader::Leadership,
    status::events::Teller,
};

/// What the parts of the process share.
pub(super) struct Parts<'a> {
    pub(super) settings: &'a Settings,
    pub(super) client: &'a Client,
    /// The index, for subscriptions and the status.
    pub(super) controller: &'a Handle,
    /// What agents say, written by the push server.
    pub(super) agents: &'a Agents,
    /// Who tells people.
    pub(super) teller: Arc<dyn Teller>,
    /// Who writes now.
    pub(super) leadership: watch::Receiver<Leadership>,
    /// Where agents connect to, bound already.
    pub(super) listener: TcpListener,
    pub(super) readiness: &'a Readiness,
    pub(super) registry: &'a mut Registry,
    /// Tasks that end in good order on `stop`, within seconds, and not before; each gives its name.
    pub(super) tasks: &'a mut JoinSet<&'static str>,
    /// Tasks that are ended with the process.
    pub(super) background: &'a mut JoinSet<&'static str>,
    pub(super) stop: &'a CancellationToken,
}

/// Starts what writes Services, EndpointSlices and valid denies while this replica leads, and the
/// push server.
pub(super) fn plug_in(parts: Parts<'_>) {
    let (leading, is_leading) = watch::channel(false);
    let denies = parts.controller.denies().map(|port| {
        let (client, namespace) = (parts.client.clone(), &parts.settings.namespace);
        let keeper = kept_denies::Keeper::new(client, namespace, port, is_leading.clone());
        keeper.telling(Arc::clone(&parts.teller))
    });
    let writer = cluster::Writer::new(parts.client.clone(), parts.controller.desired(), is_leading);
    writer.counts().register(parts.registry);
    let (leadership, stop) = (parts.leadership.clone(), parts.stop.clone());
    let agents = parts.agents.clone();
    parts.tasks.spawn(async move {
        // The writer ends when there is nobody any more to say who leads.
        tokio::join!(writer.run(), lead(leadership, agents, leading, stop));
        "the writer of Services and EndpointSlices"
    });
    if let Some(denies) = denies {
        let stop = parts.stop.clone();
        parts.tasks.spawn(async move {
            // It may be waiting for the API server; what it writes replaces one version only.
            tokio::select! {
                () = denies.run() => {}
                () = stop.cancelled() => {}
            }
            "the keeper of valid denies"
        });
    }
    push::start(parts);
}

/// Tells the index and the writer whether this replica leads, until the process stops.
async fn lead(
    mut leadership: watch::Receiver<Leadership>,
    agents: Agents,
    leading: watch::Sender<bool>,
    stop: CancellationToken,
) {
    loop {
        let leads = leadership.borrow_and_update().leading;
        agents.lead(leads);
        leading.send_replace(leads);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

/// The settings of the index.
pub(super) fn cluster_config(settings: &Settings, local: LocalPeer) -> ClusterConfig {
    let mut config = ClusterConfig::new(local, settings.namespace.clone());
    config.target_ports = settings.target_ports.clone();
    config.node_ports = settings.node_ports.clone();
    let agent_ports = AGENT_PORTS.into_iter();
    config.agent_ports = (agent_ports.map(|(port, purpose)| (port, purpose.to_owned()))).collect();
    config
}
