//! The wiring of one process: what is built, in which order, and how it is taken down again.
//!
//! ```text
//! admin socket ─▶ kernel programs ─▶ routes, addresses ─▶ state ─▶ gateway ─▶ steering ─▶ ready
//! stop: gateway drains ─▶ pins ─▶ names, addresses, routes ─▶ admin socket
//! ```

mod tasks;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use clusterlink_gateway::{Config as GatewayConfig, Gateway, GatewayError, tls, view::DialRules};
use clusterlink_model::LocalPeer;
use ipnet::IpNet;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    admin::{self, Admin, AdminSocket, SocketError, metrics::NodeMetrics, status::Steering},
    control::{Control, Updates},
    datapath::{self, Datapath, DatapathError, KernelDatapath},
    host::{Host, HostError, Record, net::has_ipv6},
    readiness::Readiness,
    state::{self, State, StateError},
};

/// The port at the gateway addresses that steered connections go to.
pub const STEERING_PORT: u16 = 4440;

/// How long open connections may take to end when the process stops.
const GRACE: Duration = Duration::from_secs(5);

/// The settings of a standalone peer's node.
#[derive(Clone, Debug)]
pub struct Config {
    /// This peer.
    pub local: LocalPeer,
    /// Where other peers connect.
    pub listen: SocketAddr,
    /// Where steered connections go, at most one address per family.
    pub gateway_addresses: Vec<IpAddr>,
    /// Whether the addresses were asked for; a default one is left out where the host lacks IPv6.
    pub gateway_addresses_explicit: bool,
    /// The ranges of the imports' addresses.
    pub service_cidrs: Vec<IpNet>,
    /// The hosts file that gets a block of names.
    pub hosts_file: Option<PathBuf>,
    /// The subtree whose connects are steered; none is the whole cgroup v2 tree.
    pub cgroup: Option<PathBuf>,
    /// Where programs and maps are pinned.
    pub bpf_dir: PathBuf,
    /// The state directory, locked by the caller.
    pub state_dir: PathBuf,
    /// Whether callers without a Peer object are refused.
    pub require_listed_peers: bool,
    /// Where Prometheus finds metrics.
    pub metrics: Option<SocketAddr>,
    /// The socket of the local API.
    pub admin: PathBuf,
    /// How many workers the gateway has.
    pub workers: NonZeroUsize,
    /// The software version.
    pub software: String,
    /// Makes `random` imports draw the same sequence of sources in every run.
    pub random_seed: Option<u64>,
    /// What the kernel programs log: 0 is nothing, 1 errors, up to 5 for everything.
    pub kernel_log_level: u8,
}

/// Why a process did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel cannot steer.
    #[error("cannot steer connects in the kernel (--ebpf); no other way is built in yet")]
    Datapath(#[source] DatapathError),
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
    datapath: Option<Arc<KernelDatapath>>,
    admin: Option<Arc<Admin>>,
    tasks: JoinSet<&'static str>,
    /// An earlier process was killed, and this one did not get as far as to replace it.
    takes_over: bool,
}

/// Runs until `stop` is cancelled or something fails, and takes everything down that was put on
/// the host. A start that fails after a crash of an earlier process leaves that one's denials.
pub async fn run(
    config: Config,
    credentials: tls::Watcher,
    updates: impl Updates,
    control: Arc<dyn Control>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let (socket, listener) = AdminSocket::bind(&config.admin)?;
    let mut standing = Standing::default();
    let started = start(
        &config,
        credentials,
        updates,
        control,
        listener,
        &mut standing,
    )
    .await;
    let result = match started {
        Ok(()) => supervise(&mut standing, &stop).await,
        Err(error) => Err(error),
    };
    let removed = take_down(standing, result.is_ok() || stop.is_cancelled()).await;
    drop(socket);
    result.and(removed)
}

async fn start(
    config: &Config,
    credentials: tls::Watcher,
    updates: impl Updates,
    control: Arc<dyn Control>,
    listener: std::os::unix::net::UnixListener,
    standing: &mut Standing,
) -> Result<(), AgentError> {
    let readiness = Readiness::default();
    let steering_blocker = readiness.block("the kernel to steer connects");
    let snapshot_blocker = readiness.block("the first complete snapshot");
    let addresses = usable_addresses(config);
    let name = config.local.name.as_str();

    standing.takes_over = !Record::open(&config.state_dir)
        .map_err(HostError::from)?
        .contents()
        .is_empty();
    let host = standing.host.insert(Host::open(&config.state_dir, name)?);
    host.note_paths(&config.bpf_dir, &config.admin)?;
    let cgroup_root = datapath::cgroup2_mount().map_err(AgentError::Datapath)?;
    let cgroup = config.cgroup.clone().unwrap_or_else(|| cgroup_root.clone());
    // Unreachable ranges come first: from here on nothing for an import leaves this host.
    host.set_routes(&config.service_cidrs).await?;
    host.set_addresses(&addresses).await?;
    let kernel = start_datapath(config, &addresses, cgroup.clone())?;
    let kernel = standing.datapath.insert(Arc::new(kernel)).clone();
    let datapath: Arc<dyn Datapath> = kernel;

    let state = State::new(
        state::Config {
            local: config.local.clone(),
            require_listed_peers: config.require_listed_peers,
            dial_rules: DialRules {
                allow_local: true,
                ..DialRules::default()
            },
            steered: cgroup.canonicalize().unwrap_or(cgroup),
            finds_pods: false,
            steered_addresses: state::Steered::default(),
            cgroup_root,
            state_dir: config.state_dir.clone(),
            node: None,
            target_addresses: Vec::new(),
            outside_ranges: Vec::new(),
        },
        &datapath,
    )?;
    let origins = Arc::new(state.origins(datapath.clone()));
    let view = state.view();
    let (credentials_sender, credentials_receiver) = watch::channel(credentials.current().clone());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(NodeMetrics {
        version: config.software.clone(),
        readiness: readiness.clone(),
        view: view.clone(),
        datapath: datapath.clone(),
    }));
    let gateway = Gateway::start(
        &GatewayConfig {
            workers: config.workers,
            listen: config.listen,
            steering: addresses
                .iter()
                .map(|&ip| SocketAddr::new(ip, STEERING_PORT))
                .collect(),
            targets: Vec::new(),
            software: config.software.clone(),
            random_seed: config.random_seed,
        },
        credentials_receiver.clone(),
        view.clone(),
        origins.clone(),
        &mut registry,
    )?;
    info!(address = %gateway.listen_address(), "other peers connect here");
    let listeners: Vec<_> = gateway
        .steering_listeners()
        .iter()
        .map(|fd| fd.as_fd())
        .collect();
    let named = datapath
        .set_listeners(&listeners)
        .map_err(AgentError::Datapath);
    drop(listeners);
    let remote_labels = gateway.remote_labels();
    let flows = gateway.flows().clone();
    let (report_sender, report) = watch::channel(state.report());
    let (steering_sender, steering) = watch::channel(Steering::default());
    let admin = Arc::new(Admin {
        software: config.software.clone(),
        readiness,
        control,
        datapath: datapath.clone(),
        credentials: credentials_receiver,
        view: view.clone(),
        report,
        steering,
        gateway: Mutex::new(Some(gateway)),
        flows: flows.clone(),
    });
    standing.admin = Some(admin.clone());
    named?;
    datapath.heartbeat().map_err(AgentError::Datapath)?;
    tasks::heartbeat(&datapath);
    probe(&*datapath, &steering_sender).map_err(AgentError::Datapath)?;
    drop(steering_blocker);

    let spawn = &mut standing.tasks;
    if let Some(file) = &config.hosts_file {
        let host = standing.host.as_mut().expect("it was opened above");
        host.use_hosts_file(file.clone(), name)?;
        if let Some(hosts) = host.hosts_file() {
            spawn.spawn(tasks::names(hosts, view.clone()));
        }
    }
    let metrics = serve(config, &admin, registry, listener).await?;
    spawn.spawn(metrics);
    spawn.spawn(tasks::state(
        state,
        updates,
        remote_labels,
        report_sender,
        snapshot_blocker,
    ));
    spawn.spawn(tasks::credentials(credentials, credentials_sender));
    spawn.spawn(tasks::refusals(datapath, origins, flows));
    spawn.spawn(async move {
        // The sender is kept for as long as the status is read.
        steering_sender.closed().await;
        "the status"
    });
    standing.takes_over = false;
    Ok(())
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

fn start_datapath(
    config: &Config,
    addresses: &[IpAddr],
    cgroup: PathBuf,
) -> Result<KernelDatapath, AgentError> {
    let v4 = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(std::net::SocketAddrV4::new(*address, STEERING_PORT)),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(std::net::SocketAddrV6::new(*address, STEERING_PORT, 0, 0)),
        IpAddr::V4(_) => None,
    });
    KernelDatapath::start(datapath::Config {
        bpf_dir: config.bpf_dir.clone(),
        cgroup,
        gateway_v4: v4,
        gateway_v6: v6,
        pass_when_stale: false,
        service_path: false,
        log_level: config.kernel_log_level,
    })
    .map_err(AgentError::Datapath)
}

fn probe(datapath: &dyn Datapath, steering: &watch::Sender<Steering>) -> Result<(), DatapathError> {
    let result = datapath.probe();
    steering.send_replace(match &result {
        Ok(()) => Steering {
            on: true,
            reason: None,
        },
        Err(error) => Steering {
            on: false,
            reason: Some(crate::chain(error)),
        },
    });
    result
}

/// Serves the local API and the metrics.
async fn serve(
    config: &Config,
    admin: &Arc<Admin>,
    registry: Registry,
    listener: std::os::unix::net::UnixListener,
) -> Result<impl Future<Output = &'static str> + Send + 'static, AgentError> {
    let failed = |source| {
        AgentError::Socket(SocketError::Io {
            path: config.admin.clone(),
            source,
        })
    };
    let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
    let routes = admin::router(admin.served());
    let metrics = match config.metrics {
        None => None,
        Some(address) => {
            let failed = |source| AgentError::Metrics { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            Some((listener, admin::metrics::router(Arc::new(registry))))
        }
    };
    Ok(async move {
        let api = async {
            if let Err(error) = axum::serve(listener, routes).await {
                error!(%error, "the local API has ended");
            }
        };
        let metrics = async {
            match metrics {
                None => std::future::pending().await,
                Some((listener, routes)) => {
                    if let Err(error) = axum::serve(listener, routes).await {
                        error!(%error, "the metrics endpoint has ended");
                    }
                }
            }
        };
        tokio::select! { () = api => "the local API", () = metrics => "the metrics endpoint" }
    })
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

/// Takes everything down. What cannot be removed does not keep the rest from being removed; the
/// first error is returned.
async fn take_down(mut standing: Standing, orderly: bool) -> Result<(), AgentError> {
    if let Some(admin) = &standing.admin {
        let gateway = admin.gateway().take();
        if let Some(gateway) = gateway {
            info!(open = gateway.open_flows(), grace = ?GRACE, "stopping: waiting for open flows");
            gateway.shutdown(GRACE).await;
        }
    }
    standing.tasks.shutdown().await;
    if standing.takes_over && !orderly {
        warn!("what an earlier process denied stays denied; `clusterlink cleanup` removes it");
        return Ok(());
    }
    let mut result = Ok(());
    if let Some(datapath) = standing.datapath.take()
        && let Err(error) = datapath.remove()
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

/// Removes what a crashed process of this peer left, and says what that was.
pub async fn cleanup(
    state_dir: &Path,
    bpf_dir: Option<&Path>,
    admin: &Path,
) -> Result<Vec<String>, AgentError> {
    let mut removed = Vec::new();
    let record = Record::open(state_dir).map_err(HostError::from)?;
    let recorded = record.contents().clone();
    let sockets = [Some(admin.to_owned()), recorded.admin];
    for socket in sockets.into_iter().flatten() {
        if admin::socket::remove_stale(&socket)? {
            removed.push(format!("admin socket {}", socket.display()));
        }
    }
    if let Some(bpf_dir) = bpf_dir.map(Path::to_owned).or(recorded.bpf_dir) {
        let pins = datapath::cleanup(&bpf_dir).map_err(AgentError::Datapath)?;
        let links = pins.links.iter().map(|path| ("program link", path));
        let maps = pins.maps.iter().map(|path| ("map", path));
        let rest = pins.directories.iter().map(|path| ("directory", path));
        removed.extend(
            links
                .chain(maps)
                .chain(rest)
                .map(|(kind, path)| format!("{kind} {}", path.display())),
        );
        removed.extend(
            pins.unmounted
                .map(|path| format!("mount of bpffs at {}", path.display())),
        );
    }
    removed.extend(crate::host::remove_leftovers(state_dir).await?);
    Ok(removed)
}
