//! The local API: status and flows over a socket that only its owner may open, and metrics.
//!
//! ```text
//! GET /v1/status   /v1/flows   /v1/flows/follow (JSON lines)   /livez   /readyz
//! ```

mod compose;
pub mod metrics;
mod routes;
pub mod socket;
pub mod status;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use clusterlink_gateway::{
    Gateway, UnservedTarget, flow::FlowLog, status::PeerStatus, tls::Credentials, view::View,
};
use tokio::sync::watch;

use self::status::{Certificate, Local, Steering};
pub use self::{
    routes::{Flows, Served, health, router},
    socket::{AdminSocket, SocketError},
    status::Status,
};
use crate::{control::Control, datapath::Datapath, readiness::Readiness, state::StateReport};

/// Everything that the local API shows.
pub struct Admin {
    pub(crate) software: String,
    pub(crate) readiness: Readiness,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) datapath: Arc<dyn Datapath>,
    pub(crate) credentials: watch::Receiver<Arc<Credentials>>,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) report: watch::Receiver<StateReport>,
    pub(crate) steering: watch::Receiver<Steering>,
    pub(crate) gateway: Mutex<Option<Gateway>>,
    pub(crate) flows: Arc<FlowLog>,
}

impl Admin {
    /// What the routes of the local API need.
    pub fn served(self: &Arc<Self>) -> Served {
        let admin = self.clone();
        Served {
            readiness: self.readiness.clone(),
            flows: self.flows.clone(),
            status: Arc::new(move || admin.status()),
        }
    }

    /// The whole status, composed now.
    pub fn status(&self) -> Status {
        let view = self.view.borrow().clone();
        let blockers = self.readiness.blockers();
        let mut status = compose::compose(&view, self.control.report(), &self.peers());
        let report = self.report.borrow().clone();
        status
            .problems
            .extend(report.problems.into_iter().map(compose::own_problem));
        let unserved = self.unserved_targets().into_iter().map(|target| {
            let what = format!("Import {}: {}", target.import, target.reason);
            compose::own_problem(what)
        });
        status.problems.extend(unserved);
        let credentials = self.credentials.borrow().clone();
        status.problems.extend(
            credentials
                .warnings()
                .iter()
                .map(|warning| compose::own_problem(warning.clone())),
        );
        let not_after = credentials
            .not_after()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Status {
            ready: blockers.is_empty(),
            waiting_for: blockers.into_iter().map(str::to_owned).collect(),
            software: self.software.clone(),
            generation: view.generation,
            peer: Local {
                name: view.local.name.clone(),
                labels: view.local.labels.clone(),
                certificate: Certificate {
                    expires: not_after.as_secs(),
                    generation: credentials.generation(),
                },
            },
            steering: self.steering.borrow().clone(),
            open_flows: self.open_flows(),
            counters: (self.datapath.counters().unwrap_or_default().into_iter())
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
            ..status
        }
    }

    /// What the gateway knows of other peers.
    fn peers(&self) -> Vec<PeerStatus> {
        self.gateway()
            .as_ref()
            .map(Gateway::peers)
            .unwrap_or_default()
    }

    /// The target ports that the gateway should listen on, and cannot.
    pub(crate) fn unserved_targets(&self) -> Vec<UnservedTarget> {
        (self.gateway().as_ref())
            .map(Gateway::unserved_targets)
            .unwrap_or_default()
    }

    fn open_flows(&self) -> u64 {
        self.gateway().as_ref().map_or(0, Gateway::open_flows)
    }

    pub(crate) fn gateway(&self) -> std::sync::MutexGuard<'_, Option<Gateway>> {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
