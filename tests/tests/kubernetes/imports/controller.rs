//! The controller of a cluster in this process, in the network of a host of the scene.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clusterlink_controller::agents::{AgentStatus, Agents};
use clusterlink_controller::cluster::{ClusterConfig, WriteCounts, Writer};
use clusterlink_controller::kept_denies::Keeper;
use clusterlink_controller::source::api_server::ApiServer;
use clusterlink_controller::status::ImportStatus;
use clusterlink_controller::{Handle, start_in_cluster};
use clusterlink_crds::Import;
use clusterlink_model::{LocalPeer, ObjectName, PeerName, Snapshot};
use clusterlink_proto::{NodeReport, PeerReport};
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::network;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::watch;

pub(crate) const SYSTEM: &str = "clusterlink-system";

/// A running controller; dropping it stops it.
pub(crate) struct Controller {
    pub(crate) agents: Agents,
    pub(crate) counts: Arc<WriteCounts>,
    snapshot: watch::Receiver<Snapshot>,
    lead: watch::Sender<bool>,
    stop: Option<watch::Sender<bool>>,
    thread: Option<JoinHandle<Result<()>>>,
}

struct Started {
    agents: Agents,
    counts: Arc<WriteCounts>,
    snapshot: watch::Receiver<Snapshot>,
}

impl Controller {
    /// Starts it against a control plane on the host `namespace` is the network of.
    pub(crate) fn start(plane: &ControlPlane, namespace: &str, leads: bool) -> Result<Self> {
        let (lead, leader) = watch::channel(leads);
        let (stop, stopped) = watch::channel(false);
        let (tell, started) = mpsc::channel();
        let (kubeconfig, namespace) = (plane.kubeconfig(), namespace.to_owned());
        let thread = std::thread::spawn(move || {
            network::within(&namespace, move || run(kubeconfig, &tell, &leader, stopped))?
        });
        let started = match started.recv_timeout(Duration::from_secs(20)) {
            Ok(started) => started,
            Err(_) if thread.is_finished() => match thread.join() {
                Ok(result) => bail!("the controller has ended: {result:?}"),
                Err(panic) => std::panic::resume_unwind(panic),
            },
            Err(_) => bail!("the controller does not start"),
        };
        Ok(Self {
            agents: started.agents,
            counts: started.counts,
            snapshot: started.snapshot,
            lead,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Takes or loses the lease.
    pub(crate) fn lead(&self, leads: bool) {
        self.agents.lead(leads);
        self.lead.send_replace(leads);
    }

    /// What every agent would be told now.
    pub(crate) fn served(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// What the agent of a node says.
    pub(crate) fn agent_says(&self, node: &str, reachable: &[&str], lets_go: bool) -> Result<()> {
        let peers = reachable.iter().map(|peer| {
            Ok(PeerReport {
                name: PeerName::new(peer)?,
                reachable: true,
                rtt: None,
                last_seen_ms: None,
                software: None,
                labels: BTreeMap::new(),
                error: None,
            })
        });
        let report = NodeReport {
            peers: peers.collect::<Result<_>>()?,
            ..NodeReport::default()
        };
        let let_go = if lets_go {
            self.agents.asked()
        } else {
            Default::default()
        };
        let agent = AgentStatus {
            pod: ObjectName::new(SYSTEM, format!("agent-{node}")),
            report: Arc::new(report),
            let_go,
        };
        self.agents.set(&node.into(), Some(agent));
        Ok(())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("the controller has failed: {error:#}"),
            Err(_) => eprintln!("the controller has panicked"),
        }
    }
}

fn run(
    kubeconfig: PathBuf,
    tell: &mpsc::Sender<Started>,
    leader: &watch::Receiver<bool>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    // A second controller of the process finds it installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let peer = LocalPeer {
            name: PeerName::new("here")?,
            labels: BTreeMap::new(),
        };
        let mut config = ClusterConfig::new(peer, SYSTEM);
        config.agent_ports = [(4443, "other peers".to_owned())].into();
        let agents = Agents::default();
        agents.lead(*leader.borrow());
        let source = ApiServer::new(client.clone(), SYSTEM);
        let handle = start_in_cluster(config, source, agents.clone())?;
        let writer = Writer::new(client.clone(), handle.desired(), leader.clone());
        let counts = writer.counts();
        let writing = tokio::spawn(writer.run());
        let port = handle
            .denies()
            .context("it is the controller of a cluster")?;
        let denies = Keeper::new(client.clone(), SYSTEM, port, leader.clone());
        let keeping = tokio::spawn(denies.run());
        let (snapshot, seen) = watch::channel(Snapshot::default());
        let started = Started {
            agents,
            counts,
            snapshot: seen,
        };
        tell.send(started).context("nobody waits for the start")?;
        let follow = follow(&handle, &client, leader, &snapshot);
        tokio::select! {
            _ = stopped.changed() => {}
            result = follow => result?,
        }
        writing.abort();
        keeping.abort();
        handle.shutdown().await;
        Ok(())
    })
}

/// Puts the updates together, and writes the Imports' status as often as it changes.
async fn follow(
    handle: &Handle,
    client: &Client,
    leader: &watch::Receiver<bool>,
    snapshot: &watch::Sender<Snapshot>,
) -> Result<()> {
    let mut subscription = handle.subscribe();
    let mut written = BTreeMap::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            update = subscription.next() => {
                let update = update.context("the controller has ended")?;
                snapshot.send_modify(|snapshot| snapshot.apply(update));
            }
            _ = ticks.tick() => {}
        }
        if !*leader.borrow() {
            continue;
        }
        let now = handle.status();
        for import in &now.imports {
            if written.get(&import.name) != Some(import) && write_status(client, import).await? {
                written.insert(import.name.clone(), Arc::clone(import));
            }
        }
    }
}

async fn write_status(client: &Client, import: &ImportStatus) -> Result<bool> {
    let api = Api::<Import>::namespaced(client.clone(), &import.name.namespace);
    let status = json!({"conditions": import.conditions, "targetPort": import.target_port});
    let patch = Patch::Merge(json!({"status": status}));
    let name = &import.name.name;
    match api
        .patch_status(name, &PatchParams::default(), &patch)
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
        Err(error) => Err(error).with_context(|| format!("the status of {name}")),
    }
}
