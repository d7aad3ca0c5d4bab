//! A running gateway: its sockets and its workers.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::Duration,
};

use prometheus_client::registry::Registry;
use tokio::{sync::watch, task::LocalSet};
use tokio_util::sync::CancellationToken;

use crate::{
    flow::{FlowLog, now_ms},
    metrics::Metrics,
    outcomes::SourceOutcome,
    peers::RemoteLabels,
    socket,
    status::PeerStatus,
    targets::{self, Share, UnservedTarget},
    tls::{self, Credentials},
    view::{Origins, View},
    worker::{self, Listeners, Shared, Worker},
};

/// Settings of a gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many workers share the work.
    pub workers: NonZeroUsize,
    /// Where other peers connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where steered connections arrive, one address per family.
    pub steering: Vec<SocketAddr>,
    /// How clients of the Service path get here.
    pub service_path: ServicePath,
    /// The software version that other peers are told.
    pub software: String,
    /// Makes `random` imports draw the same sequence of sources in every run.
    pub random_seed: Option<u64>,
}

/// How clients of the Service path get to a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServicePath {
    /// There is none.
    #[default]
    None,
    /// The kernel hands connections to leased ports to listeners that are bound here, at a free port
    /// each: a loopback address per family.
    HandedOver(Vec<IpAddr>),
    /// The gateway listens itself at every target of its view.
    Listeners,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {purpose}; is another process using it (ss -ltnp)?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it is for.
        purpose: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A worker's thread or runtime cannot be made.
    #[error("cannot start a gateway worker")]
    Worker(#[source] io::Error),
    /// TLS does not work on this machine.
    #[error("TLS does not work with these credentials")]
    Tls(#[source] tls::HandshakeError),
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    listen: SocketAddr,
    steering: Vec<OwnedFd>,
    targets: Vec<OwnedFd>,
    stop: CancellationToken,
    grace: watch::Sender<Duration>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Binds the sockets and starts the workers.
    pub fn start(
        config: &Config,
        credentials: watch::Receiver<Arc<Credentials>>,
        view: watch::Receiver<Arc<View>>,
        origins: Arc<dyn Origins>,
        registry: &mut Registry,
    ) -> Result<Self, GatewayError> {
        // The first handshake of a process costs 60 ms: it is not a client that shall wait for it.
        let current = credentials.borrow().clone();
        tls::warm_up(&current).map_err(GatewayError::Tls)?;
        let metrics = Metrics::register(registry.sub_registry_with_prefix("clusterlink_gateway"));
        let software = config.software.clone();
        let shared = Arc::new(Shared::new(
            credentials,
            view,
            origins,
            metrics,
            software,
            config.random_seed,
        ));
        let mut listen = config.listen;
        let mut steering = Vec::new();
        let mut targets = Vec::new();
        let mut listeners = Vec::new();
        let handed_over: &[IpAddr] = match &config.service_path {
            ServicePath::HandedOver(addresses) => addresses,
            ServicePath::None | ServicePath::Listeners => &[],
        };
        let workers = config.workers.get();
        for number in 0..workers {
            let peers = bind(listen, "other peers (--listen)")?;
            // All workers share the port that the first one got.
            listen = peers.local_addr().map_err(GatewayError::Worker)?;
            let mut own_steering = Vec::new();
            for address in &config.steering {
                let listener = bind(*address, "steered connections (--gateway-address)")?;
                steering.push(copy(&listener)?);
                own_steering.push(listener);
            }
            let mut own_targets = Vec::new();
            for address in handed_over {
                let listener =
                    socket::listen_privately(*address).map_err(|source| GatewayError::Listen {
                        address: SocketAddr::new(*address, 0),
                        purpose: "the Service path",
                        source,
                    })?;
                targets.push(copy(&listener)?);
                own_targets.push(listener);
            }
            listeners.push(Listeners {
                steering: own_steering,
                targets: own_targets,
                share: (config.service_path == ServicePath::Listeners)
                    .then_some(Share { number, workers }),
                peers,
            });
        }
        let stop = CancellationToken::new();
        let (grace, grace_receiver) = watch::channel(Duration::ZERO);
        let mut threads = Vec::new();
        for (number, listeners) in listeners.into_iter().enumerate() {
            let (shared, stop) = (shared.clone(), stop.clone());
            let grace = grace_receiver.clone();
            let thread = std::thread::Builder::new()
                .name(format!("gateway-{number}"))
                .spawn(move || work(number, shared, listeners, stop, grace))
                .map_err(GatewayError::Worker)?;
            threads.push(thread);
        }
        Ok(Self {
            shared,
            listen,
            steering,
            targets,
            stop,
            grace,
            threads,
        })
    }

    /// The listening sockets of steered connections.
    pub fn steering_listeners(&self) -> &[OwnedFd] {
        &self.steering
    }

    /// The listening sockets that the kernel is to hand connections of the Service path to.
    pub fn target_listeners(&self) -> &[OwnedFd] {
        &self.targets
    }

    /// Where other peers connect.
    pub fn listen_address(&self) -> SocketAddr {
        self.listen
    }

    /// The flow log.
    pub fn flows(&self) -> &Arc<FlowLog> {
        &self.shared.flows
    }

    /// How many flows are open.
    pub fn open_flows(&self) -> u64 {
        self.shared.open.load(Relaxed)
    }

    /// What is known of the other peers.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.shared.peers.statuses()
    }

    /// What became of the imports' sources when they were last tried.
    pub fn source_outcomes(&self) -> Vec<SourceOutcome> {
        let view = self.shared.view.borrow().clone();
        (self.shared.outcomes).of(&view.snapshot.imports, now_ms())
    }

    /// The leased ports that it listens on itself.
    pub fn target_ports(&self) -> BTreeSet<u16> {
        self.shared.targets.ports()
    }

    /// The leased ports that it should listen on, and cannot.
    pub fn unserved_targets(&self) -> Vec<UnservedTarget> {
        targets::unserved(&self.shared)
    }

    /// What authenticated peers say of themselves.
    pub fn remote_labels(&self) -> watch::Receiver<RemoteLabels> {
        self.shared.peers.labels()
    }

    /// Whether all workers are running.
    pub fn is_healthy(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Stops accepting, gives open flows `grace` to end, resets the rest.
    pub async fn shutdown(mut self, grace: Duration) {
        // Kept open, the listening sockets would go on taking connections that nobody serves.
        self.steering.clear();
        self.targets.clear();
        self.grace.send_replace(grace);
        self.stop.cancel();
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a gateway worker panicked");
                }
            }
        });
        if joined.await.is_err() {
            tracing::error!("cannot wait for the gateway's workers");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn bind(address: SocketAddr, purpose: &'static str) -> Result<std::net::TcpListener, GatewayError> {
    socket::listen(address).map_err(|source| GatewayError::Listen {
        address,
        purpose,
        source,
    })
}

fn copy(listener: &std::net::TcpListener) -> Result<OwnedFd, GatewayError> {
    let copy = listener.try_clone().map_err(GatewayError::Worker)?;
    Ok(OwnedFd::from(copy))
}

fn work(
    number: usize,
    shared: Arc<Shared>,
    listeners: Listeners,
    stop: CancellationToken,
    grace: watch::Receiver<Duration>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(worker = number, %error, "cannot start a gateway worker");
            return;
        }
    };
    let local = LocalSet::new();
    let result = local.block_on(&runtime, async move {
        let worker = Worker::new(shared, stop);
        worker::run(worker, listeners, number == 0, grace).await
    });
    if let Err(error) = result {
        tracing::error!(worker = number, %error, "a gateway worker stopped");
    }
}
