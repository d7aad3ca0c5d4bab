//! The client of the push protocol: keeps what this node was told current, and tells what the node
//! is like.
//!
//! ```text
//! controller ═Subscribe═▶ Replica ─▶ PushUpdates::next ─▶ state
//!            ◀═ Ack ════════════════════════┘ (when the next one is asked for)
//! leader     ◀═Report═══ NodeReport, answers to questions about released addresses
//! ```
//! Each stream is a connection of its own, since only one controller takes reports. Files are read
//! anew for each connection: tokens are replaced long before they end, and the bundle of authorities
//! when a controller is.

mod backoff;
mod connect;
mod lookups;
mod report;
mod shared;
mod subscribe;

use std::{future::Future, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use clusterlink_model::{Snapshot, Update};
use clusterlink_proto::{NodeReport, Rejected};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::{sync::watch, task::JoinSet, time::Instant};

pub use self::backoff::Limits as Backoff;
use self::shared::{Due, Shared};
use crate::{
    control::{Found, Lookup, Updates},
    released::Released,
    state::SteeredAddresses,
};

/// How the controller is reached.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port` of the controller, most often a Service of several.
    pub controller: String,
    /// The name in the controllers' certificates: `clusterlink-controller.<namespace>.svc`.
    pub server_name: String,
    /// The certificates of the controllers' authorities, PEM, one after the other.
    pub authorities: PathBuf,
    /// The projected token of the agent's ServiceAccount, with the audience
    /// `clusterlink-controller`.
    pub token: PathBuf,
    /// The node that this is, as Kubernetes names it.
    pub node: Arc<str>,
    /// The name and version of this software.
    pub software: String,
    /// The boot id of the node.
    pub boot_id: String,
    /// How long to wait before connecting again.
    pub backoff: Backoff,
    /// A controller that says nothing for so long is given up.
    pub silence: Duration,
    /// The shortest time between two reports.
    pub report_interval: Duration,
}

/// What the node tells.
#[derive(Debug)]
pub struct Inputs {
    /// What the caller has applied already, having kept it on its node: only differences are
    /// handed out then, else the first update is complete.
    pub kept: Option<Snapshot>,
    /// The state of the node; what cannot be used of the controller's resources is added to it.
    pub report: watch::Receiver<Arc<NodeReport>>,
    /// The addresses that are steered in the kernel; before that is settled, no question about released
    /// ones is answered.
    pub steered: watch::Receiver<SteeredAddresses>,
    /// Where questions about released addresses go: one is answered once it is in force.
    pub released: Released,
}

/// How things stand with the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushStatus {
    /// The software of the controller that the node is subscribed to, while it is.
    pub controller: Option<String>,
    /// Everything is known as of now.
    pub synced: bool,
    /// Why there is no subscription.
    pub error: Option<String>,
}

/// Starts the client.
#[derive(Debug)]
pub enum Client {}

/// What the node is told, for the state.
#[derive(Debug)]
pub struct PushUpdates {
    shared: Arc<Shared>,
    /// What is due once the last update is applied.
    due: Option<Due>,
    _tasks: Arc<JoinSet<()>>,
}

/// Questions and observations. Cloning shares it.
#[derive(Clone, Debug)]
pub struct PushHandle {
    shared: Arc<Shared>,
    _tasks: Arc<JoinSet<()>>,
}

impl Config {
    /// The settings for a controller, with the default times.
    pub fn new(controller: String, namespace: &str, node: Arc<str>) -> Self {
        Self {
            controller,
            server_name: format!("clusterlink-controller.{namespace}.svc"),
            authorities: PathBuf::from("/etc/clusterlink/controller/ca.pem"),
            token: PathBuf::from("/var/run/secrets/clusterlink/token"),
            node,
            software: format!("clusterlink-agent {}", env!("CARGO_PKG_VERSION")),
            boot_id: String::new(),
            backoff: Backoff::default(),
            silence: Duration::from_secs(45),
            report_interval: Duration::from_millis(500),
        }
    }
}

impl Client {
    /// Starts both streams on the current runtime; they end with the last of the two that are
    /// returned.
    pub fn start(config: Config, inputs: Inputs) -> (PushUpdates, PushHandle) {
        let config = Arc::new(config);
        let shared = Arc::new(Shared::new(&config.node, inputs.kept.as_ref()));
        let mut tasks = JoinSet::new();
        tasks.spawn(subscribe::run(Arc::clone(&config), Arc::clone(&shared)));
        tasks.spawn(report::run(
            config,
            inputs.report,
            (inputs.steered, inputs.released),
            shared.rejected(),
        ));
        let tasks = Arc::new(tasks);
        let updates = PushUpdates {
            shared: Arc::clone(&shared),
            due: None,
            _tasks: Arc::clone(&tasks),
        };
        (
            updates,
            PushHandle {
                shared,
                _tasks: tasks,
            },
        )
    }
}

impl Updates for PushUpdates {
    /// Asking for the next update says that the last one is applied. May be cancelled without
    /// losing anything.
    fn next(&mut self) -> impl Future<Output = Option<Update>> + Send {
        if let Some(due) = self.due.take() {
            self.shared.applied(due);
        }
        async {
            let (update, due) = self.shared.next().await;
            self.due = Some(due);
            Some(update)
        }
    }
}

impl Lookup for PushHandle {
    fn lookup(&self, address: IpAddr) -> BoxFuture<'_, Found> {
        self.shared.look_up(address).boxed()
    }
}

impl PushHandle {
    /// When a controller was last heard that has told everything. Before the first, it is when the
    /// client started.
    pub fn last_heard(&self) -> watch::Receiver<Instant> {
        self.shared.heard()
    }

    /// How things stand.
    pub fn status(&self) -> watch::Receiver<PushStatus> {
        self.shared.status()
    }

    /// What cannot be used of what the controller says.
    pub fn rejected(&self) -> watch::Receiver<Arc<Vec<Rejected>>> {
        self.shared.rejected()
    }
}
