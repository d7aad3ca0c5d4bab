//! Agents of many nodes that only listen: the push client of the agent, without a node under it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clusterlink_agent::control::Updates as _;
use clusterlink_agent::push::{Client, Config, Inputs, PushHandle, PushUpdates};
use clusterlink_agent::released::Released;
use clusterlink_model::{Import, ObjectName, Snapshot};
use clusterlink_proto::NodeReport;
use clusterlink_tests::controller::SYSTEM;
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::wait::{always, wait_until};
use clusterlink_tests::world::NAMESPACE;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long it may take until all have heard of something.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What an agent was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) snapshot: Snapshot,
    pub(crate) upserts: usize,
    pub(crate) removals: usize,
}

impl Seen {
    /// An Import of the usual namespace.
    pub(crate) fn import(&self, name: &str) -> Option<&Import> {
        let name = ObjectName::new(NAMESPACE, name);
        self.snapshot.imports.get(&name).map(|import| &**import)
    }
}

/// An agent that applies what it is told, unless it is paused.
pub(crate) struct Agent {
    seen: Arc<Mutex<Seen>>,
    paused: watch::Sender<bool>,
    handle: PushHandle,
    task: JoinHandle<()>,
    _report: watch::Sender<Arc<NodeReport>>,
    _steered: watch::Sender<Option<Arc<std::collections::BTreeSet<std::net::IpAddr>>>>,
}

/// Where the controller is, and how it is known.
pub(crate) struct Way<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) plane: &'a ControlPlane,
    pub(crate) directory: &'a Path,
}

pub(crate) fn node_name(number: usize) -> String {
    format!("node-{number}")
}

impl Way<'_> {
    fn authorities(&self) -> PathBuf {
        self.directory.join("controller-ca.pem")
    }

    /// What kubelets do when the controller has published another authority.
    pub(crate) fn refresh_authorities(&self) -> Result<()> {
        let bundle = wait_until("the controller has published its CA", PATIENCE, || {
            let arguments = ["configmap", "clusterlink-controller-ca", "-n", SYSTEM];
            let map = self.plane.get(&arguments)?;
            let all = map["data"].as_object().context("it has no data")?;
            let all: Vec<&str> = all.values().filter_map(Value::as_str).collect();
            Ok((!all.is_empty()).then(|| all.join("\n")))
        })?;
        let unfinished = self.authorities().with_extension("new");
        std::fs::write(&unfinished, bundle).context("cannot write the authorities")?;
        std::fs::rename(&unfinished, self.authorities()).context("cannot put them in place")
    }

    /// Makes nodes with a Pod for the agent of each, and the tokens of those Pods.
    pub(crate) fn make_nodes(&self, count: usize) -> Result<()> {
        let nodes = (0..count).flat_map(|number| {
            let name = node_name(number);
            [
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}),
                json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": format!("agent-{name}"), "namespace": SYSTEM,
                        "labels": {"app.kubernetes.io/name": "clusterlink-agent"}},
                    "spec": {"nodeName": name, "hostNetwork": true,
                        "serviceAccountName": "clusterlink-agent",
                        "containers": [{"name": "agent", "image": "localhost/agent"}]},
                }),
            ]
        });
        self.plane.apply(&nodes.collect::<Vec<_>>())?;
        for number in 0..count {
            let name = node_name(number);
            let pod = format!("--bound-object-name=agent-{name}");
            let token = ["create", "token", "clusterlink-agent", "-n", SYSTEM];
            let bound = ["--bound-object-kind=Pod", &pod];
            let audience = ["--audience=clusterlink-controller"];
            let token = self.plane.run(&[&token[..], &bound, &audience].concat())?;
            std::fs::write(self.directory.join(name), token.trim())
                .context("cannot write a token")?;
        }
        Ok(())
    }

    /// Starts the agent of a node, which shows the token of one and may have kept something.
    pub(crate) fn start(
        &self,
        controller: &str,
        node: &str,
        token: &str,
        kept: Option<Snapshot>,
    ) -> Agent {
        let mut config = Config::new(controller.to_owned(), SYSTEM, node.into());
        config.authorities = self.authorities();
        config.token = self.directory.join(token);
        config.backoff.shortest = Duration::from_millis(50);
        config.backoff.longest = Duration::from_millis(500);
        let (report, reports) = watch::channel(Arc::default());
        let (steered, addresses) = watch::channel(Some(Arc::default()));
        let seen = Arc::new(Mutex::new(Seen {
            snapshot: kept.clone().unwrap_or_default(),
            ..Seen::default()
        }));
        let (paused, pauses) = watch::channel(false);
        let _inside = self.runtime.enter();
        let released = Released::default();
        let inputs = Inputs {
            kept,
            report: reports,
            steered: addresses,
            released: released.clone(),
        };
        let (updates, handle) = Client::start(config, inputs);
        let applied = apply(updates, Arc::clone(&seen), pauses);
        let task = self.runtime.spawn(async move {
            tokio::select! {
                () = applied => {}
                () = steer_nothing(released) => {}
            }
        });
        Agent {
            seen,
            paused,
            handle,
            task,
            _report: report,
            _steered: steered,
        }
    }
}

/// Asking for the next update says that the last one is applied, so a paused agent says nothing.
async fn apply(
    mut updates: PushUpdates,
    seen: Arc<Mutex<Seen>>,
    mut paused: watch::Receiver<bool>,
) {
    loop {
        if paused.wait_for(|paused| !paused).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            changed = paused.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            update = updates.next() => {
                let Some(update) = update else { return };
                let mut seen = lock(&seen);
                seen.upserts += update.upserts.len();
                seen.removals += update.removals.len();
                seen.snapshot.apply(update);
            }
        }
    }
}

/// Whatever address is asked about: it is not steered.
async fn steer_nothing(released: Released) {
    let mut asked = released.asked();
    loop {
        let number = asked.borrow_and_update().number;
        released.is_in_force(number);
        if asked.changed().await.is_err() {
            return;
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    /// What it was told so far.
    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Makes it apply nothing, or go on.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Ends it, and gives what it knew.
    pub(crate) fn stop(self) -> Snapshot {
        self.task.abort();
        self.seen().snapshot
    }

    /// Waits until it knows what is so.
    pub(crate) fn wait_synced(&self) -> Result<()> {
        wait_until("the agent is up to date", PATIENCE, || {
            let status = self.handle.status().borrow().clone();
            if status.synced {
                return Ok(Some(()));
            }
            bail!("{status:?}")
        })
    }

    /// Waits until it is refused, and gives the reason that it was told.
    pub(crate) fn wait_refused(&self) -> Result<String> {
        wait_until("the agent is refused", PATIENCE, || {
            let status = self.handle.status().borrow().clone();
            always(!status.synced, format_args!("it was let in: {status:?}"))?;
            Ok(status.error)
        })
    }
}
