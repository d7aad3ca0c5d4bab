//! One worker: a thread with a runtime, listeners and sessions of its own. A flow stays on the
//! worker that accepted it; nothing on the data path crosses threads.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use clusterlink_model::{ObjectName, WorkloadAttributes};
use rand::Rng as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    arrival::Way,
    egress,
    flow::{EndReason, FlowLog, now_ms},
    forgotten, ingress,
    judge::Live,
    link::{Link, Opened, Over, Owner, drive},
    metrics::Metrics,
    outcomes::Outcomes,
    peers::PeerTable,
    pool::{IDLE, Pool},
    scratch::Scratch,
    stream::{Ended, Stream},
    targets::{Share, TargetTable, Targets},
    tls::{self, Credentials, PeerIdentity},
    tunnel::{Bounds, Hello, Limits, Session, SessionConfig, Side, VERSION},
    view::{Origins, View},
};

/// What the workers of a gateway share.
pub(crate) struct Shared {
    pub(crate) credentials: watch::Receiver<Arc<Credentials>>,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) origins: Arc<dyn Origins>,
    pub(crate) flows: Arc<FlowLog>,
    pub(crate) metrics: Metrics,
    pub(crate) peers: PeerTable,
    pub(crate) outcomes: Outcomes,
    pub(crate) targets: TargetTable,
    pub(crate) software: String,
    /// Where the rotation of each import stands.
    rotation: Mutex<HashMap<ObjectName, Arc<AtomicU64>>>,
    /// Where the draws of `random` imports stand.
    draws: AtomicU64,
    /// Open flows of all workers.
    pub(crate) open: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        credentials: watch::Receiver<Arc<Credentials>>,
        view: watch::Receiver<Arc<View>>,
        origins: Arc<dyn Origins>,
        metrics: Metrics,
        software: String,
        random_seed: Option<u64>,
    ) -> Self {
        Self {
            credentials,
            view,
            origins,
            flows: Arc::default(),
            metrics,
            peers: PeerTable::default(),
            outcomes: Outcomes::default(),
            targets: TargetTable::default(),
            software,
            rotation: Mutex::default(),
            draws: AtomicU64::new(random_seed.unwrap_or_else(|| rand::rng().next_u64())),
            open: AtomicU64::new(0),
        }
    }

    fn rotation(&self, import: &ObjectName) -> Arc<AtomicU64> {
        let mut all = self.rotation.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(import.clone()).or_default().clone()
    }
}

/// One worker. Lives on its thread only.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    pub(crate) live: RefCell<HashMap<u64, Rc<Live>>>,
    /// Sessions that peers dialled.
    pub(crate) inbound: RefCell<Vec<Rc<Link>>>,
    view: RefCell<Arc<View>>,
    scratch: Rc<RefCell<Scratch>>,
    rotation: RefCell<HashMap<ObjectName, Arc<AtomicU64>>>,
    /// Handshakes of callers that are under way.
    pub(crate) handshakes: RefCell<HashMap<IpAddr, usize>>,
    /// Clients of the Service path that are held until it is known who they are.
    pub(crate) held: Cell<usize>,
    /// Where clients are that were forgotten and are looked up now.
    pub(crate) asked: RefCell<HashSet<IpAddr>>,
    next_live: Cell<u64>,
    stop: CancellationToken,
    /// Names this worker to other peers.
    instance: String,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, stop: CancellationToken) -> Rc<Self> {
        let view = shared.view.borrow().clone();
        Rc::new(Self {
            shared,
            pool: Pool::default(),
            live: RefCell::default(),
            inbound: RefCell::default(),
            view: RefCell::new(view),
            scratch: Scratch::new(),
            rotation: RefCell::default(),
            handshakes: RefCell::default(),
            held: Cell::new(0),
            asked: RefCell::default(),
            next_live: Cell::new(0),
            stop,
            instance: format!("{:016x}", rand::rng().next_u64()),
        })
    }

    /// The view as of the last look; flows are judged again when it changes.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// The next value of an import's rotation, over all workers.
    pub(crate) fn next_turn(&self, import: &ObjectName) -> u64 {
        if let Some(counter) = self.rotation.borrow().get(import) {
            return counter.fetch_add(1, Relaxed);
        }
        let counter = self.shared.rotation(import);
        let turn = counter.fetch_add(1, Relaxed);
        self.rotation.borrow_mut().insert(import.clone(), counter);
        turn
    }

    /// A number that the order of a `random` import's sources is drawn from: a SplitMix64 sequence
    /// over all workers, whose last steps [`Order`](clusterlink_model::select::Order) does.
    pub(crate) fn next_draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        self.shared.draws.fetch_add(STEP, Relaxed)
    }

    /// Registers a flow to be judged again; the guard takes it out.
    pub(crate) fn watch(self: &Rc<Self>, live: Rc<Live>) -> Watched {
        let id = self.next_live.get();
        self.next_live.set(id + 1);
        self.live.borrow_mut().insert(id, live);
        Watched {
            worker: self.clone(),
            id,
        }
    }

    /// Builds the link of a session whose handshake is done.
    pub(crate) fn link(
        &self,
        established: tls::Established,
        socket: TcpStream,
        side: Side,
    ) -> (Rc<Link>, Vec<u8>, Vec<u8>) {
        let view = self.view();
        let hello = Hello {
            versions: vec![VERSION],
            features: Vec::new(),
            software: self.shared.software.clone(),
            labels: view.local.labels.clone(),
            clock_ms: now_ms(),
            limits: Limits::default(),
            association: random(),
            session: 0,
            instance: self.instance.clone(),
        };
        let bounds = Bounds::default();
        let seed = rand::rng().next_u64();
        let config = SessionConfig {
            side,
            hello,
            bounds,
            first_stream: 0,
            seed,
        };
        let session = Session::new(config, Instant::now());
        let link = Link::new(
            socket,
            established.channel,
            established.peer,
            session,
            self.scratch.clone(),
        );
        (link, established.leftover, established.early)
    }

    /// Drives a link to its end.
    pub(crate) async fn drive(
        self: &Rc<Self>,
        link: &Rc<Link>,
        leftover: Vec<u8>,
        early: Vec<u8>,
    ) -> Over {
        self.shared.metrics.sessions.inc();
        let over = drive(link.clone(), leftover, early, self).await;
        self.shared.metrics.sessions.dec();
        self.shared
            .peers
            .down(&link.identity.name, &link.stats, &over.reason);
        over
    }

    /// Whether a session whose handshake has just ended may begin. Certificate files may have
    /// changed while it ran, and [`revoke`] sees only sessions that exist.
    pub(crate) fn admit(&self, identity: &PeerIdentity, dialled: bool) -> Result<(), String> {
        let credentials = self.shared.credentials.borrow().clone();
        let trusted = if identity.credentials_generation == credentials.generation() {
            Ok(())
        } else {
            credentials.still_trusted(identity, SystemTime::now())
        };
        let (reason, text) = match trusted {
            Err(why) => (
                why.reason(),
                format!(
                    "the certificate of peer {} is refused: {why}",
                    identity.name
                ),
            ),
            Ok(()) => match self.check_identity(identity) {
                Err(text) => ("not_admitted", text),
                Ok(()) => return Ok(()),
            },
        };
        self.shared.metrics.handshake_refused(dialled, reason);
        Err(text)
    }

    /// Whether a peer may have a session with us, by what the view says of it.
    fn check_identity(&self, identity: &PeerIdentity) -> Result<(), String> {
        let view = self.view();
        let listed = view.snapshot.peers.get(&identity.name);
        if listed.is_none() && view.require_listed_peers {
            return Err(format!(
                "peer {} has no Peer object here, and --require-listed-peers is set",
                identity.name
            ));
        }
        if let Some(not_before) = listed.and_then(|peer| peer.not_issued_before)
            && identity.issued_at < not_before
        {
            return Err(format!(
                "the certificate of peer {} was issued before the Peer object's notIssuedBefore",
                identity.name
            ));
        }
        Ok(())
    }

    /// Takes a new view: sessions and flows that it no longer allows are ended.
    fn adopt(&self, view: &Arc<View>) {
        let labels_changed = {
            let mut current = self.view.borrow_mut();
            let changed = current.local.labels != view.local.labels;
            *current = view.clone();
            changed
        };
        self.pool.follow(&view.snapshot.peers);
        for link in self.links() {
            if let Err(reason) = self.check_identity(&link.identity) {
                link.close(&reason);
            } else if labels_changed {
                link.set_labels(&view.local.labels);
            }
        }
        self.judge_all(view);
    }

    /// All sessions, dialled by either side.
    fn links(&self) -> Vec<Rc<Link>> {
        let mut links = self.pool.links();
        links.extend(self.inbound.borrow().iter().cloned());
        links
    }

    /// Judges every flow again.
    pub(crate) fn judge_all(&self, view: &View) {
        let live: Vec<_> = self.live.borrow().values().cloned().collect();
        for flow in live {
            flow.judge(view, &*self.shared.origins);
        }
    }
}

impl Owner for Rc<Worker> {
    fn hello(&self, link: &Rc<Link>, hello: &Hello) {
        self.shared.peers.hello(&link.identity.name, hello);
    }

    fn labels(&self, link: &Rc<Link>) {
        self.shared
            .peers
            .set_labels(&link.identity.name, link.labels());
        self.judge_all(&self.view());
    }

    fn opened(&self, link: &Rc<Link>, opened: Opened) {
        ingress::opened(self, link, opened);
    }

    fn attested(&self, link: &Rc<Link>, id: u32, workload: Option<Arc<WorkloadAttributes>>) {
        let live: Vec<_> = self.live.borrow().values().cloned().collect();
        let view = self.view();
        for flow in live {
            if flow.is_ingress_of(link, id) {
                flow.attested(workload.clone());
                flow.judge(&view, &*self.shared.origins);
            }
        }
    }
}

/// A flow that is judged again on every change, until this is dropped.
pub(crate) struct Watched {
    worker: Rc<Worker>,
    id: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.worker.live.borrow_mut().remove(&self.id);
    }
}

/// An open flow in the log: closed on drop, whatever happens to its task.
pub(crate) struct OpenFlow {
    shared: Arc<Shared>,
    pub(crate) flow: Arc<crate::flow::Flow>,
    direction: crate::flow::Direction,
    end: Option<(EndReason, Option<String>)>,
}

impl OpenFlow {
    pub(crate) fn new(shared: &Arc<Shared>, direction: crate::flow::Direction) -> Self {
        shared.open.fetch_add(1, Relaxed);
        let flow = shared.flows.open(direction);
        Self {
            shared: shared.clone(),
            flow,
            direction,
            end: None,
        }
    }

    /// Says why it ends.
    pub(crate) fn ends(&mut self, reason: EndReason, detail: Option<String>) {
        self.end = Some((reason, detail));
    }
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        let (reason, detail) = self.end.take().unwrap_or((EndReason::Shutdown, None));
        self.shared.metrics.ended(self.direction, reason);
        self.shared.flows.close(&self.flow, reason, detail);
        self.shared.open.fetch_sub(1, Relaxed);
    }
}

/// Where a worker's connections come from.
pub(crate) struct Listeners {
    /// Steered connections of local clients.
    pub(crate) steering: Vec<std::net::TcpListener>,
    /// Local clients that come by the Service path, as the kernel hands them over.
    pub(crate) targets: Vec<std::net::TcpListener>,
    /// The targets that it listens at itself, if it does.
    pub(crate) share: Option<Share>,
    /// Other peers.
    pub(crate) peers: std::net::TcpListener,
}

/// Runs a worker until it is told to stop and its flows have ended or `grace` is over.
pub(crate) async fn run(
    worker: Rc<Worker>,
    listeners: Listeners,
    keeps_warm: bool,
    grace: watch::Receiver<Duration>,
) -> std::io::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    let steering = listeners.steering.into_iter().map(|l| (Way::Steering, l));
    let targets = listeners.targets.into_iter().map(|l| (Way::ServicePath, l));
    for (way, listener) in steering.chain(targets) {
        let listener = TcpListener::from_std(listener)?;
        tasks.spawn_local(egress::accept(worker.clone(), listener, way));
    }
    let listener = TcpListener::from_std(listeners.peers)?;
    tasks.spawn_local(ingress::accept(worker.clone(), listener));
    let mut targets = Targets::new(worker.clone(), listeners.share);
    let stop = worker.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow(&worker, &mut targets, keeps_warm) => {}
    }
    // The listeners close with their tasks: nothing new is accepted from here on.
    tasks.shutdown().await;
    targets.close_all().await;
    let grace = *grace.borrow();
    for link in worker.links() {
        link.go_away(grace, "shutting down");
    }
    let deadline = Instant::now() + grace;
    let mut poll = tokio::time::interval(Duration::from_millis(20));
    while !worker.live.borrow().is_empty() && Instant::now() < deadline {
        poll.tick().await;
    }
    for flow in worker.live.borrow().values() {
        flow.abort(EndReason::Shutdown);
    }
    // The resets reach the peers before the sessions end.
    tokio::task::yield_now().await;
    for link in worker.links() {
        link.close("shutting down");
    }
    let closed = Instant::now() + Duration::from_millis(500);
    while worker.shared.metrics.sessions.get() > 0 && Instant::now() < closed {
        poll.tick().await;
    }
    Ok(())
}

/// Follows the view and the credentials, keeps one session per peer warm on one worker.
async fn follow(worker: &Rc<Worker>, targets: &mut Targets, keeps_warm: bool) {
    let mut views = worker.shared.view.clone();
    let mut credentials = worker.shared.credentials.clone();
    let mut meetings = worker.shared.peers.meetings();
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut again = tokio::time::interval(forgotten::AGAIN);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    views.mark_changed();
    loop {
        tokio::select! {
            changed = views.changed() => {
                if changed.is_err() {
                    return;
                }
                let view = views.borrow_and_update().clone();
                worker.adopt(&view);
                targets.follow().await;
            }
            changed = credentials.changed() => {
                if changed.is_err() {
                    return;
                }
                let current = credentials.borrow_and_update().clone();
                revoke(worker, &current);
            }
            // The sending end is shared by the workers.
            Ok(()) = meetings.changed() => worker.pool.revive(&worker.shared.peers),
            _ = tick.tick() => {
                if !keeps_warm {
                    worker.pool.close_idle(IDLE);
                }
            }
            _ = again.tick() => {
                forgotten::look_up(worker);
                targets.retry();
                continue;
            }
        }
        if keeps_warm {
            let view = worker.view();
            for peer in view.snapshot.peers.values() {
                worker.pool.warm(worker, peer);
            }
        }
    }
}

/// Ends sessions whose certificate was revoked. Expiry and a removed root only refuse new ones.
fn revoke(worker: &Worker, credentials: &Credentials) {
    for link in worker.links() {
        let judged = credentials.still_trusted(&link.identity, SystemTime::now());
        if judged.is_err_and(|why| why.ends_live_sessions()) {
            link.close("the peer's certificate was revoked");
        }
    }
}

/// Ends a stream of a flow that may not go on.
pub(crate) fn abort(stream: &Stream, reason: EndReason) {
    stream.end(Ended::Aborted(reason));
}

/// Random bytes for identifiers.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}
