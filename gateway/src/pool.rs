//! One worker's sessions to other peers: opened on demand, kept while they are used.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use clusterlink_model::{HostPort, Peer, PeerName};
use rand::RngExt;
use tokio::{net::TcpStream, sync::Notify, time::timeout};

use crate::{link::Link, peers::PeerTable, socket, tls, tunnel::Side, worker::Worker};

/// How long a dial may take before the TLS handshake begins.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a connection waits for a session to a peer.
const WAIT: Duration = Duration::from_secs(5);

/// Between two attempts at a gateway that does not answer: doubled from the first to the second,
/// with jitter, so that a returning peer is not met by everybody at once.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A session that ends sooner is an attempt that failed: a peer that has revoked our certificate says so
/// after the handshake only, and is not to be called over and over.
const STEADY: Duration = Duration::from_secs(2);

/// A session that carried nothing for this long is closed.
pub(crate) const IDLE: Duration = Duration::from_secs(600);

/// Sessions of one worker by peer.
#[derive(Default)]
pub(crate) struct Pool {
    peers: RefCell<HashMap<PeerName, Rc<PeerPool>>>,
}

#[derive(Default)]
struct PeerPool {
    links: RefCell<Vec<(HostPort, Rc<Link>)>>,
    dials: RefCell<HashMap<HostPort, Dial>>,
    changed: Notify,
    turn: Cell<usize>,
}

/// The last or present attempt at one gateway.
#[derive(Default)]
struct Dial {
    running: bool,
    failure: Option<Failure>,
    backoff: Option<Duration>,
}

/// Why an attempt came to nothing.
struct Failure {
    error: String,
    at: Instant,
    /// No new attempt before this.
    not_before: Instant,
}

impl Pool {
    fn peer(&self, name: &PeerName) -> Rc<PeerPool> {
        self.peers
            .borrow_mut()
            .entry(name.clone())
            .or_default()
            .clone()
    }

    /// Whether the peer gives no sign of life: its sessions are suspect, or the last attempts at
    /// all of its gateways failed. A client of such a peer would wait for a dial first.
    pub(crate) fn is_unreachable(&self, peer: &Peer) -> bool {
        let peers = self.peers.borrow();
        let Some(pool) = peers.get(&peer.name) else {
            return peer.gateways.is_empty();
        };
        pool.pick().is_none() && (pool.has_suspects() || pool.has_failed(peer))
    }

    /// A session to the peer: one that is up, or a new one. The error says why there is none.
    pub(crate) async fn get(
        &self,
        worker: &Rc<Worker>,
        peer: &Arc<Peer>,
    ) -> Result<Rc<Link>, String> {
        if peer.gateways.is_empty() {
            return Err("the Peer object names no gateways to dial".to_owned());
        }
        let pool = self.peer(&peer.name);
        let deadline = Instant::now() + WAIT;
        let mut forced = false;
        loop {
            if let Some(link) = pool.pick() {
                if pool.links.borrow().len() < peer.gateways.len() {
                    pool.dial_missing(worker, peer, false);
                }
                return Ok(link);
            }
            // A client waits: one attempt is made whatever the back-off says.
            let running = pool.dial_missing(worker, peer, !std::mem::replace(&mut forced, true));
            if !running {
                return Err(pool.last_error(peer));
            }
            let changed = pool.changed.notified();
            let left = deadline.saturating_duration_since(Instant::now());
            if timeout(left, changed).await.is_err() {
                return Err(format!("no session within {} s", WAIT.as_secs()));
            }
        }
    }

    /// Forgets the failures of peers that have been met since, by whichever worker and whichever side
    /// called: they are back, and worth an attempt before their time.
    pub(crate) fn revive(&self, known: &PeerTable) {
        for (name, pool) in &*self.peers.borrow() {
            if let Some(met) = known.last_met(name) {
                pool.revive(met);
            }
        }
    }

    /// Dials what is not connected, without waiting.
    pub(crate) fn warm(&self, worker: &Rc<Worker>, peer: &Arc<Peer>) {
        self.peer(&peer.name).dial_missing(worker, peer, false);
    }

    /// All sessions.
    pub(crate) fn links(&self) -> Vec<Rc<Link>> {
        let peers = self.peers.borrow();
        peers
            .values()
            .flat_map(|p| {
                p.links
                    .borrow()
                    .iter()
                    .map(|l| l.1.clone())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Follows the Peer objects: sessions of a peer that is gone end, and one to a gateway that its
    /// peer no longer names ends with its last stream.
    pub(crate) fn follow(&self, known: &BTreeMap<PeerName, Arc<Peer>>) {
        for (name, pool) in &*self.peers.borrow() {
            let peer = known.get(name);
            for (gateway, link) in &*pool.links.borrow() {
                follow(peer, gateway, link);
            }
        }
    }

    /// Closes sessions that carried nothing for longer than `limit`.
    pub(crate) fn close_idle(&self, limit: Duration) {
        let now = Instant::now();
        for pool in self.peers.borrow().values() {
            for (_, link) in &*pool.links.borrow() {
                if link.idle_for(now).is_some_and(|idle| idle > limit) {
                    link.close("idle");
                }
            }
        }
    }
}

impl PeerPool {
    /// The usable session with the fewest streams; equal ones take turns.
    fn pick(&self) -> Option<Rc<Link>> {
        let links = self.links.borrow();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let n = links.len();
        (0..n)
            .map(|i| &links[(turn.wrapping_add(i)) % n].1)
            .filter(|link| link.is_usable())
            .min_by_key(|link| link.stream_count())
            .cloned()
    }

    fn has_suspects(&self) -> bool {
        self.links
            .borrow()
            .iter()
            .any(|(_, link)| link.is_suspect())
    }

    fn has_failed(&self, peer: &Peer) -> bool {
        let dials = self.dials.borrow();
        let failed = |gateway| {
            dials
                .get(gateway)
                .is_some_and(|dial| dial.failure.is_some())
        };
        peer.gateways.iter().all(failed)
    }

    fn revive(&self, met: Instant) {
        for dial in self.dials.borrow_mut().values_mut() {
            dial.failure.take_if(|failure| failure.at < met);
        }
    }

    /// Starts dials to gateways without a usable session; true if any dial is running.
    fn dial_missing(self: &Rc<Self>, worker: &Rc<Worker>, peer: &Arc<Peer>, force: bool) -> bool {
        let now = Instant::now();
        let mut running = false;
        for gateway in &peer.gateways {
            let connected = self
                .links
                .borrow()
                .iter()
                .any(|(g, link)| g == gateway && link.is_usable());
            let mut dials = self.dials.borrow_mut();
            let dial = dials.entry(gateway.clone()).or_default();
            let failure = dial.failure.as_ref();
            let due = force || failure.is_none_or(|failure| failure.not_before <= now);
            if !connected && !dial.running && due {
                dial.running = true;
                let (pool, worker) = (self.clone(), worker.clone());
                let (peer, gateway) = (peer.clone(), gateway.clone());
                tokio::task::spawn_local(async move {
                    pool.dial(&worker, &peer, &gateway).await;
                });
            }
            running |= dial.running;
        }
        running
    }

    /// Why the last attempt at a gateway failed that the Peer object names; it may have named others before.
    fn last_error(&self, peer: &Peer) -> String {
        let dials = self.dials.borrow();
        (peer.gateways.iter())
            .find_map(|gateway| Some(dials.get(gateway)?.failure.as_ref()?.error.clone()))
            .unwrap_or_else(|| "no session".to_owned())
    }

    /// Dials one gateway and drives the session to its end.
    async fn dial(self: Rc<Self>, worker: &Rc<Worker>, peer: &Arc<Peer>, gateway: &HostPort) {
        let connected = Box::pin(connect(worker, peer, gateway)).await;
        let (established, stream, resolved) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                self.dial_failed(worker, peer, gateway, error);
                return;
            }
        };
        let (link, leftover, early) = worker.link(established, stream, Side::Dialler);
        worker
            .shared
            .peers
            .up(&peer.name, Some((gateway, resolved)), &link.stats);
        self.dialled(gateway);
        self.links
            .borrow_mut()
            .push((gateway.clone(), link.clone()));
        // The Peer object may have changed while it was dialled.
        follow(worker.view().snapshot.peers.get(&peer.name), gateway, &link);
        self.changed.notify_waiters();
        tracing::info!(peer = %peer.name, gateway = %gateway, "session up");
        let since = Instant::now();
        let over = worker.drive(&link, leftover, early).await;
        let reason = over.reason;
        tracing::info!(peer = %peer.name, gateway = %gateway, %reason, "session ended");
        self.links
            .borrow_mut()
            .retain(|(_, other)| !Rc::ptr_eq(other, &link));
        let failed = over.unanswered || since.elapsed() < STEADY;
        if failed && !self.is_dialling(gateway) {
            self.dial_failed(worker, peer, gateway, reason);
            return;
        }
        if let Some(dial) = self.dials.borrow_mut().get_mut(gateway) {
            dial.backoff = None;
        }
        self.changed.notify_waiters();
    }

    /// A dial has led to a session, which has yet to prove steady.
    fn dialled(&self, gateway: &HostPort) {
        let mut dials = self.dials.borrow_mut();
        let dial = dials.entry(gateway.clone()).or_default();
        *dial = Dial {
            backoff: dial.backoff,
            ..Dial::default()
        };
    }

    fn is_dialling(&self, gateway: &HostPort) -> bool {
        let dials = self.dials.borrow();
        dials.get(gateway).is_some_and(|dial| dial.running)
    }

    fn dial_failed(&self, worker: &Worker, peer: &Peer, gateway: &HostPort, error: String) {
        {
            let mut dials = self.dials.borrow_mut();
            let dial = dials.entry(gateway.clone()).or_default();
            let backoff = dial
                .backoff
                .map_or(BACKOFF.0, |last| (last * 2).min(BACKOFF.1));
            let jitter = rand::rng().random_range(0.75..1.25);
            if dial.failure.as_ref().map(|failure| &failure.error) != Some(&error) {
                tracing::warn!(peer = %peer.name, gateway = %gateway, %error, "peer unreachable");
            }
            let now = Instant::now();
            *dial = Dial {
                running: false,
                failure: Some(Failure {
                    error: error.clone(),
                    at: now,
                    not_before: now + backoff.mul_f64(jitter),
                }),
                backoff: Some(backoff),
            };
        }
        worker.shared.peers.dial_failed(&peer.name, gateway, error);
        self.changed.notify_waiters();
    }
}

/// Ends or retires a session that its Peer object no longer asks for.
fn follow(peer: Option<&Arc<Peer>>, gateway: &HostPort, link: &Link) {
    match peer {
        None => link.close("the Peer object is gone"),
        Some(peer) => link.retire(!peer.gateways.contains(gateway)),
    }
}

async fn connect(
    worker: &Worker,
    peer: &Peer,
    gateway: &HostPort,
) -> Result<(tls::Established, TcpStream, SocketAddr), String> {
    let target = (gateway.host.as_ref(), gateway.port.get());
    let dialled = timeout(CONNECT_TIMEOUT, TcpStream::connect(target));
    let stream = match dialled.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("cannot connect to {gateway}: {error}")),
        Err(_) => {
            return Err(format!(
                "no answer from {gateway} within {} s",
                CONNECT_TIMEOUT.as_secs()
            ));
        }
    };
    let resolved = stream.peer_addr().map_err(|error| error.to_string())?;
    socket::prepare_session(&stream).map_err(|error| error.to_string())?;
    let credentials = worker.shared.credentials.borrow().clone();
    let established = tls::connect(&stream, &credentials, &peer.name)
        .await
        .map_err(|error| {
            worker
                .shared
                .metrics
                .handshake_refused(true, error.reason());
            format!("TLS with {gateway}: {}", crate::chain(&error))
        })?;
    worker.admit(&established.peer, true)?;
    Ok((established, stream, resolved))
}
