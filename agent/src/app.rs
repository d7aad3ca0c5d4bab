//! The wiring of one process: what is built, in which order, and how it is taken down again.
//!
//! ```text
//! admin socket ─▶ addresses ─▶ kernel programs ─▶ state ─▶ gateway ─▶ steering ─▶ ready
//!
//! standalone   steering from the start: what is not known yet is refused
//!   stop       gateway drains ─▶ pins ─▶ names, addresses, routes ─▶ admin socket
//! node         steering from the first snapshot on: until then other agents serve
//!   stop       not ready ─▶ steering ends ─▶ gateway drains; everything stays on the host
//! ```

mod cleanup;
mod config;
mod serve;
mod steering;
mod tasks;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{fd::AsFd as _, unix::net::UnixListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use clusterlink_gateway::{
    Config as GatewayConfig, Gateway, GatewayError, ServicePath, view::DialRules,
};
use clusterlink_proto::ports;
use prometheus_client::registry::Registry;
use socket2::SockRef;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::{
    cleanup::cleanup,
    config::{Config, Ebpf, Mode, Node, NodeLink, Parts, Standalone},
};
use self::{
    steering::{Chosen, Heart},
    tasks::{Leased, StateTask},
};
use crate::{
    admin::{Admin, AdminSocket, SocketError, metrics::NodeMetrics, status::Steering},
    control::{SnapshotControl, Updates},
    datapath::{self, Datapath, DatapathError, KernelDatapath},
    host::{Host, HostError, HostsFile, Record, net::has_ipv6},
    last_state::Keeper,
    readiness::{Blocker, Readiness},
    report,
    state::{self, State, StateError},
};

/// The port at the gateway addresses that steered connections go to.
pub const STEERING_PORT: u16 = ports::STEERING;

/// How long open connections of a standalone peer may take to end when the process stops.
const GRACE: Duration = Duration::from_secs(5);

/// The same on a node of a cluster: together with [`HAND_OVER`] less than the 30 seconds that a pod
/// has by default.
const NODE_GRACE: Duration = Duration::from_secs(20);

/// How long a node goes on accepting connections after its last heartbeat: the hooks leave connects
/// alone two seconds after it, and until then they still send them here. Other nodes' kube-proxies
/// hear of the end of our readiness in that time, too.
const HAND_OVER: Duration = Duration::from_millis(2500);

/// Why a process did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel cannot steer.
    #[error("cannot steer connects in the kernel (--ebpf)")]
    Datapath(#[source] DatapathError),
    /// What an earlier agent left in the kernel would take the connections meant for this one.
    #[error(
        "cannot remove the programs that an earlier agent left pinned: they would go on refusing clients of imports; end what uses them, and run `clusterlink-agent cleanup`"
    )]
    Leftovers(#[source] DatapathError),
    /// The host could not be changed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The state could not be set up.
    #[error(transparent)]
    State(#[from] StateError),
    /// The gateway did not start.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The local API has no socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The metrics have no socket.
    #[error("cannot listen for metrics at {address}; choose another --metrics")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A part that must not end has ended.
    #[error("{0} has ended; this is a fault of this program, its log says more")]
    Ended(&'static str),
}

/// What was put up so far, to be taken down in the right order.
#[derive(Default)]
struct Standing {
    host: Option<Host>,
    kernel: Option<Arc<KernelDatapath>>,
    heart: Heart,
    readiness: Readiness,
    admin: Option<Arc<Admin>>,
    keeper: Option<Arc<Keeper>>,
    tasks: JoinSet<&'static str>,
    /// An earlier process was killed, and this one did not get as far as to replace it.
    takes_over: bool,
}

/// Runs until `stop` is cancelled or something fails. A standalone peer takes everything down then
/// that was put on the host, except that a start that fails after a crash of an earlier process
/// leaves that one's denials. A node of a cluster leaves everything to the next agent.
pub async fn run<U: Updates>(
    config: Config,
    parts: Parts<U>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let (socket, listener) = AdminSocket::bind(&config.admin)?;
    let mut standing = Standing::default();
    let started = start(&config, parts, listener, &mut standing).await;
    let result = match started {
        Ok(()) => supervise(&mut standing, &stop).await,
        Err(error) => Err(error),
    };
    let removed = match &config.mode {
        Mode::Standalone(_) => take_down(standing, result.is_ok() || stop.is_cancelled()).await,
        Mode::Node(_) => {
            leave(standing).await;
            Ok(())
        }
    };
    drop(socket);
    result.and(removed)
}

async fn start<U: Updates>(
    config: &Config,
    parts: Parts<U>,
    listener: UnixListener,
    standing: &mut Standing,
) -> Result<(), AgentError> {
    let readiness = standing.readiness.clone();
    let steering_blocker = readiness.block("the kernel to steer connects");
    let snapshot_blocker = readiness.block("the first complete snapshot");
    let addresses = usable_addresses(config);

    let host = put_on_host(config, &addresses, standing).await?;
    let cgroup_root = datapath::cgroup2_mount().map_err(AgentError::Datapath)?;
    let cgroup = config.cgroup.clone().unwrap_or_else(|| cgroup_root.clone());
    let chosen = steering::choose(config, parts.datapath, &addresses, cgroup.clone())?;
    standing.kernel = chosen.kernel.clone();
    let datapath = chosen.datapath.clone();

    let steered = parts.link.as_ref().map(|link| link.steered.clone());
    let state = State::new(
        state::Config {
            local: config.local.clone(),
            require_listed_peers: config.require_listed_peers,
            dial_rules: dial_rules(config),
            steered: cgroup.canonicalize().unwrap_or(cgroup),
            finds_pods: config.node().is_some(),
            steered_addresses: steered.unwrap_or_default(),
            cgroup_root,
            state_dir: config.state_dir.clone(),
            node: config.node().map(|node| node.name.clone()),
            target_addresses: config.target_addresses().to_vec(),
            host_addresses: (config.node())
                .map_or_else(Vec::new, |node| node.host_addresses.clone()),
            gateway_addresses: addresses.clone(),
            outside_ranges: (config.node())
                .map_or_else(Vec::new, |node| node.outside_ranges.clone()),
        },
        &datapath,
    )?;
    let mut origins = state.origins(datapath.clone());
    if let Some(link) = &parts.link {
        origins = origins.with_lookup(link.lookup.clone());
    }
    let origins = Arc::new(origins);
    let view = state.view();
    let (credentials_sender, credentials) = watch::channel(parts.credentials.current().clone());
    let (steering_sender, steering) = watch::channel(Steering::default());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(NodeMetrics {
        version: config.software.clone(),
        readiness: readiness.clone(),
        view: view.clone(),
        steering: steering.clone(),
        datapath: datapath.clone(),
    }));
    let gateway = Gateway::start(
        &gateway_config(config, &addresses, &chosen),
        credentials.clone(),
        view.clone(),
        origins.clone(),
        &mut registry,
    )?;
    info!(address = %gateway.listen_address(), "other peers connect here");
    let named = name_listeners(&*datapath, &gateway);
    let remote_labels = gateway.remote_labels();
    let flows = gateway.flows().clone();
    let subject = subject(config, &gateway);
    let (report_sender, report) = watch::channel(state.report());
    let control = (parts.control).unwrap_or_else(|| Arc::new(SnapshotControl::new(view.clone())));
    let admin = Arc::new(Admin {
        software: config.software.clone(),
        readiness,
        control,
        datapath: datapath.clone(),
        credentials,
        view: view.clone(),
        report,
        steering,
        gateway: Mutex::new(Some(gateway)),
        flows: flows.clone(),
    });
    standing.admin = Some(admin.clone());
    named?;
    let first_snapshot = begin_steering(
        config,
        &chosen,
        standing,
        &steering_sender,
        (steering_blocker, snapshot_blocker),
    )?;

    let spawn = &mut standing.tasks;
    if let Some(hosts) = host {
        spawn.spawn(tasks::names(hosts, view.clone()));
    }
    spawn.spawn(serve::serve(config, &admin, registry, listener).await?);
    let mut leased = None;
    if let Some(link) = parts.link {
        let (released, file) = (link.released, link.released_file);
        leased = Some(Leased::new(link.heard, link.last_contact, released, file));
        standing.keeper = Some(link.keeper.clone());
        spawn.spawn(link.keeper.run());
        if let Some(subject) = subject {
            spawn.spawn(report::run(subject, admin.clone(), link.report));
        }
    }
    spawn.spawn(tasks::state(StateTask {
        state,
        updates: parts.updates,
        remote_labels,
        report: report_sender,
        leased,
        first_snapshot,
    }));
    spawn.spawn(tasks::credentials(parts.credentials, credentials_sender));
    spawn.spawn(tasks::refusals(datapath, origins, flows));
    spawn.spawn(async move {
        // The sender is kept for as long as the status is read.
        steering_sender.closed().await;
        "the status"
    });
    standing.takes_over = false;
    Ok(())
}

/// Addresses, and what else a standalone peer needs; returns its hosts file.
async fn put_on_host(
    config: &Config,
    addresses: &[IpAddr],
    standing: &mut Standing,
) -> Result<Option<HostsFile>, AgentError> {
    standing.takes_over = !Record::open(&config.state_dir)
        .map_err(HostError::from)?
        .contents()
        .is_empty();
    let name = config.local.name.as_str();
    let host = standing.host.insert(Host::open(&config.state_dir, name)?);
    host.note_paths(&config.bpf_dir, &config.admin)?;
    if let Mode::Standalone(standalone) = &config.mode {
        // Unreachable ranges come first: from here on nothing for an import leaves this host.
        host.set_routes(&standalone.service_cidrs).await?;
        if let Some(file) = &standalone.hosts_file {
            host.use_hosts_file(file.clone(), name)?;
        }
    }
    host.set_addresses(addresses).await?;
    Ok(host.hosts_file())
}

fn gateway_config(config: &Config, addresses: &[IpAddr], chosen: &Chosen) -> GatewayConfig {
    GatewayConfig {
        workers: config.workers,
        listen: config.listen,
        steering: addresses
            .iter()
            .map(|&ip| SocketAddr::new(ip, config.steering_port))
            .collect(),
        service_path: match &config.mode {
            Mode::Standalone(_) => ServicePath::None,
            Mode::Node(_) if chosen.off.is_some() => ServicePath::Listeners,
            Mode::Node(_) => ServicePath::HandedOver(target_loopbacks(config)),
        },
        software: config.software.clone(),
        random_seed: config.random_seed,
    }
}

/// Where listeners are bound that the kernel hands the Service path's connections to: a loopback
/// address for each family of those that they stand for, which the cluster may yet have to tell.
fn target_loopbacks(config: &Config) -> Vec<IpAddr> {
    let addresses = config.target_addresses();
    let told = addresses.is_empty();
    let v4 = told || addresses.iter().any(IpAddr::is_ipv4);
    let v6 = (told && has_ipv6()) || addresses.iter().any(IpAddr::is_ipv6);
    let v4 = v4.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let v6 = v6.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    v4.into_iter().chain(v6).collect()
}

/// Which backends may be dialled.
fn dial_rules(config: &Config) -> DialRules {
    match config.node() {
        Some(node) => DialRules {
            allow_local: false,
            allow: node.allowed_backends.as_slice().into(),
            refuse: node.refused_backends.as_slice().into(),
        },
        // A standalone peer's services live on its host.
        None => DialRules {
            allow_local: true,
            ..DialRules::default()
        },
    }
}

fn name_listeners(datapath: &dyn Datapath, gateway: &Gateway) -> Result<(), AgentError> {
    let steering: Vec<_> = (gateway.steering_listeners().iter())
        .map(|fd| fd.as_fd())
        .collect();
    let targets: Vec<_> = (gateway.target_listeners().iter())
        .map(|fd| fd.as_fd())
        .collect();
    datapath
        .set_listeners(&steering)
        .and_then(|()| datapath.set_target_listeners(&targets))
        .map_err(AgentError::Datapath)
}

/// Lets the kernel steer, now or (what is returned) when the first snapshot is in force.
fn begin_steering(
    config: &Config,
    chosen: &Chosen,
    standing: &Standing,
    steering: &watch::Sender<Steering>,
    (steering_blocker, snapshot_blocker): (Blocker, Blocker),
) -> Result<Box<dyn FnOnce() + Send>, AgentError> {
    let heart = standing.heart.clone();
    let datapath = chosen.datapath.clone();
    if config.node().is_none() {
        heart.start(&datapath).map_err(AgentError::Datapath)?;
        steering.send_replace(steering::probe(config, chosen)?);
        drop(steering_blocker);
        return Ok(Box::new(move || drop(snapshot_blocker)));
    }
    let found = steering::probe(config, chosen)?;
    // Hooks that see no connect do not keep the kernel from serving the Service path, which needs to
    // know that the gateway lives.
    let is_heard = found.on || chosen.kernel.is_some();
    steering.send_replace(found);
    Ok(Box::new(move || {
        if is_heard && let Err(error) = heart.start(&datapath) {
            // The hooks leave connects alone, as if this agent were not there.
            warn!(
                error = crate::chain(&error),
                "the kernel cannot be told that we live; nothing is steered"
            );
        }
        drop((steering_blocker, snapshot_blocker));
    }))
}

/// The ports that a process with these addresses listens on, with what they are for.
pub fn own_ports(
    listen: SocketAddr,
    steering: u16,
    metrics: Option<SocketAddr>,
) -> BTreeMap<u16, String> {
    let metrics = metrics.map(|at| (at.port(), ports::FOR_METRICS));
    [
        (listen.port(), ports::FOR_GATEWAY),
        (steering, ports::FOR_STEERING),
    ]
    .into_iter()
    .chain(metrics)
    .map(|(port, purpose)| (port, purpose.to_owned()))
    .collect()
}

/// What a node of a cluster reports on.
fn subject(config: &Config, gateway: &Gateway) -> Option<report::Subject> {
    let node = config.node()?;
    let private = gateway.target_listeners().iter();
    let private = private.filter_map(|fd| SockRef::from(fd).local_addr().ok()?.as_socket());
    Some(report::Subject {
        node: node.name.clone(),
        addresses: node.addresses.clone(),
        host_addresses: node.host_addresses.clone(),
        own_ports: own_ports(
            gateway.listen_address(),
            config.steering_port,
            config.metrics,
        ),
        private_ports: private.map(|at| at.port()).collect(),
        software: format!("clusterlink-agent {}", config.software),
    })
}

/// The gateway addresses that this host can have.
fn usable_addresses(config: &Config) -> Vec<IpAddr> {
    let mut addresses = config.gateway_addresses.clone();
    if !config.gateway_addresses_explicit && !has_ipv6() {
        addresses.retain(IpAddr::is_ipv4);
        warn!("this host has no IPv6: imports are reachable by IPv4 only");
    }
    addresses
}

/// Waits for the stop, or for a part that ends though it should not.
async fn supervise(standing: &mut Standing, stop: &CancellationToken) -> Result<(), AgentError> {
    let mut health = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = standing.tasks.join_next() => {
                return Err(AgentError::Ended(ended.and_then(Result::ok).unwrap_or("a task")));
            }
            _ = health.tick() => {
                let healthy = standing.admin.as_ref().is_some_and(|admin| {
                    admin.gateway().as_ref().is_some_and(Gateway::is_healthy)
                });
                if !healthy {
                    return Err(AgentError::Ended("a gateway worker"));
                }
            }
        }
    }
}

/// Stops accepting and waits for open connections.
async fn drain(standing: &Standing, grace: Duration) {
    let Some(admin) = &standing.admin else {
        return;
    };
    let gateway = admin.gateway().take();
    if let Some(gateway) = gateway {
        info!(
            open = gateway.open_flows(),
            ?grace,
            "stopping: waiting for open flows"
        );
        gateway.shutdown(grace).await;
    }
}

/// Ends a node's part in its cluster: others take over, and what is on the host stays there for the
/// next agent.
async fn leave(mut standing: Standing) {
    let was_ready = standing.readiness.blockers().is_empty();
    let _draining = standing
        .readiness
        .block("open connections to end: it is draining");
    // Without hooks there is no heart, and still the endpoints of imports' Services name this node.
    if standing.heart.stop() || was_ready {
        info!(takes = ?HAND_OVER, "stopping: handing over to other agents");
        tokio::time::sleep(HAND_OVER).await;
    }
    drain(&standing, NODE_GRACE).await;
    standing.tasks.shutdown().await;
    if let Some(keeper) = standing.keeper.take() {
        keeper.flush();
    }
    info!(
        "stopped; the next agent takes over what is pinned, `clusterlink-agent cleanup` removes it"
    );
}

/// Takes everything down. What cannot be removed does not keep the rest from being removed; the
/// first error is returned.
async fn take_down(mut standing: Standing, orderly: bool) -> Result<(), AgentError> {
    drain(&standing, GRACE).await;
    standing.heart.stop();
    standing.tasks.shutdown().await;
    if standing.takes_over && !orderly {
        warn!("what an earlier process denied stays denied; `clusterlink cleanup` removes it");
        return Ok(());
    }
    let mut result = Ok(());
    if let Some(kernel) = standing.kernel.take()
        && let Err(error) = kernel.remove()
    {
        result = Err(AgentError::Datapath(error));
    }
    if let Some(host) = standing.host.take() {
        match host.remove().await {
            Ok(removed) => info!(?removed, "removed from this host"),
            Err(error) => result = result.and(Err(error.into())),
        }
    }
    result
}
