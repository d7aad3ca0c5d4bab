//! A push server, agents, and a wire between them that counts.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use clusterlink_agent::{
    control::Updates as _,
    push::{self as client, Client, Inputs, PushHandle, PushUpdates},
    released::Released,
    state::SteeredAddresses,
};
use clusterlink_model::{
    Import, LbScheme, ObjectName, PeerName, Resource, Snapshot, Source, Update, Workload,
    WorkloadAttributes,
};
use clusterlink_proto::NodeReport;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    agents::Agents,
    publish::Publisher,
    push::{
        Authenticator, Authority, Identity, Leadership, LivePods, Metrics, PushConfig, PushServer,
        Refusal, serve,
    },
};

/// Nothing here takes so long.
pub(super) const SOON: Duration = Duration::from_secs(20);
pub(super) const NAMESPACE: &str = "clusterlink-system";

/// Knows who shows which token.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    known: Arc<Mutex<BTreeMap<String, Result<Identity, Refusal>>>>,
}

/// A push server.
pub(super) struct Server {
    pub(super) publisher: Publisher,
    pub(super) agents: Agents,
    pub(super) tokens: Tokens,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) live_pods: watch::Sender<LivePods>,
    pub(super) authority: Arc<Authority>,
    pub(super) metrics: Metrics,
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What a server may share with an earlier one.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) config: PushConfig,
    pub(super) address: SocketAddr,
    pub(super) authority: Arc<Authority>,
    pub(super) tokens: Tokens,
}

/// A node with an agent's client.
pub(super) struct Node {
    pub(super) name: Arc<str>,
    pub(super) updates: PushUpdates,
    pub(super) handle: PushHandle,
    pub(super) report: watch::Sender<Arc<NodeReport>>,
    pub(super) steered: watch::Sender<SteeredAddresses>,
    pub(super) released: Released,
    /// What was applied.
    pub(super) snapshot: Snapshot,
    /// What it took.
    pub(super) seen: Seen,
    _files: TempDir,
}

/// What the updates of a node were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) complete: usize,
    pub(super) upserts: usize,
    pub(super) removals: usize,
}

/// A wire that counts, and can be cut.
pub(super) struct Wire {
    pub(super) address: SocketAddr,
    /// From the server to the agents.
    pub(super) down: Arc<AtomicU64>,
    whole: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Tokens {
    pub(super) fn set(&self, token: &str, answer: Result<Identity, Refusal>) {
        self.known.lock().unwrap().insert(token.to_owned(), answer);
    }

    /// A token of the agent of a node.
    pub(super) fn issue(&self, node: &str, ttl: Duration) -> String {
        let token = format!("token-of-{node}");
        self.set(&token, Ok(identity(node, ttl)));
        token
    }
}

impl Authenticator for Tokens {
    async fn authenticate(&self, token: &str) -> Result<Identity, Refusal> {
        let known = self.known.lock().unwrap().get(token).cloned();
        known.unwrap_or_else(|| Err(Refusal::NotValid("nobody knows it".to_owned())))
    }
}

pub(super) fn identity(node: &str, ttl: Duration) -> Identity {
    Identity {
        pod: ObjectName::new(NAMESPACE, format!("agent-of-{node}")),
        pod_uid: format!("uid-of-{node}").into(),
        node: node.into(),
        expires: SystemTime::now() + ttl,
    }
}

impl Setup {
    pub(super) fn new() -> Self {
        static CRYPTO: Once = Once::new();
        CRYPTO.call_once(|| {
            // Tests of other modules may have been first.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        });
        Self {
            config: PushConfig::default(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            authority: Arc::new(Authority::new(NAMESPACE).unwrap()),
            tokens: Tokens::default(),
        }
    }

    pub(super) async fn start(self) -> Server {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (leadership, leadership_receiver) = watch::channel(Leadership::Leading);
        let (live_pods, live_pods_receiver) = watch::channel(None);
        let publisher = Publisher::new();
        let agents = Agents::default();
        let metrics = Metrics::default();
        let stop = CancellationToken::new();
        let server = PushServer {
            config: self.config,
            resources: publisher.subscriber(),
            authenticator: self.tokens.clone(),
            agents: agents.clone(),
            leadership: leadership_receiver,
            live_pods: live_pods_receiver,
            authority: Arc::clone(&self.authority),
            metrics: metrics.clone(),
        };
        let task = tokio::spawn(serve(listener, server, stop.clone()));
        Server {
            publisher,
            agents,
            tokens: self.tokens,
            leadership,
            live_pods,
            authority: self.authority,
            metrics,
            address,
            stop,
            task,
        }
    }
}

impl Server {
    pub(super) fn put(&self, resources: impl IntoIterator<Item = Resource>) {
        self.publisher
            .publish(resources.into_iter().map(|r| (r.key(), Some(r))));
    }

    pub(super) fn remove(&self, resources: impl IntoIterator<Item = Resource>) {
        self.publisher
            .publish(resources.into_iter().map(|r| (r.key(), None)));
    }

    /// Stops, and returns what a successor at the same address needs.
    pub(super) async fn stop(self) -> Setup {
        self.stop.cancel();
        timeout(SOON, self.task).await.unwrap().unwrap();
        Setup {
            address: self.address,
            authority: self.authority,
            tokens: self.tokens,
            config: PushConfig::default(),
        }
    }

    /// A node whose agent connects to this server.
    pub(super) fn node(&self, name: &str) -> Node {
        self.node_at(name, self.address, None)
    }

    /// A node whose agent connects to an address, having kept something.
    pub(super) fn node_at(&self, name: &str, at: SocketAddr, kept: Option<Snapshot>) -> Node {
        let token = self.tokens.issue(name, Duration::from_secs(3600));
        let files = Files::new(&self.authority.certificate_pem(), &token);
        Node::start(name, at, files, kept)
    }
}

/// The files of an agent.
pub(super) struct Files {
    directory: TempDir,
}

impl Files {
    pub(super) fn new(authorities: &str, token: &str) -> Self {
        let files = Self {
            directory: TempDir::new().unwrap(),
        };
        std::fs::write(files.path("ca.pem"), authorities).unwrap();
        std::fs::write(files.path("token"), token).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Node {
    pub(super) fn start(name: &str, at: SocketAddr, files: Files, kept: Option<Snapshot>) -> Self {
        let name: Arc<str> = name.into();
        let mut config = client::Config::new(at.to_string(), NAMESPACE, Arc::clone(&name));
        config.authorities = files.path("ca.pem");
        config.token = files.path("token");
        config.backoff.shortest = Duration::from_millis(20);
        config.backoff.longest = Duration::from_millis(200);
        config.report_interval = Duration::from_millis(10);
        let report = NodeReport {
            software: format!("agent of {name}"),
            ..NodeReport::default()
        };
        let (report, report_receiver) = watch::channel(Arc::new(report));
        let (steered, steered_receiver) = watch::channel(Some(Arc::default()));
        let released = Released::default();
        let snapshot = kept.clone().unwrap_or_default();
        let (updates, handle) = Client::start(
            config,
            Inputs {
                kept,
                report: report_receiver,
                steered: steered_receiver,
                released: released.clone(),
            },
        );
        Self {
            name,
            updates,
            handle,
            report,
            steered,
            released,
            snapshot,
            seen: Seen::default(),
            _files: files.directory,
        }
    }

    pub(super) fn files(&self) -> &Path {
        self._files.path()
    }

    /// Applies one update.
    pub(super) async fn apply(&mut self) -> Update {
        let update = timeout(SOON, self.updates.next()).await;
        let Ok(update) = update else {
            let status = self.handle.status().borrow().clone();
            panic!(
                "no update comes to {}: {status:?}, {:?}",
                self.name, self.seen
            );
        };
        let update = update.expect("it goes on");
        self.seen.complete += usize::from(update.complete);
        self.seen.upserts += update.upserts.len();
        self.seen.removals += update.removals.len();
        self.snapshot.apply(update.clone());
        update
    }

    /// Applies updates until the snapshot is as it should be, and waits until the server knows.
    pub(super) async fn until(&mut self, condition: impl Fn(&Snapshot) -> bool) {
        while !condition(&self.snapshot) {
            self.apply().await;
        }
        self.settle();
    }

    /// Asks for the next update without waiting, which acknowledges the last one.
    pub(super) fn settle(&mut self) {
        use futures::FutureExt as _;
        if let Some(update) = self.updates.next().now_or_never() {
            panic!("nothing more was expected: {update:?}");
        }
    }

    /// Waits until everything is known as of now.
    pub(super) async fn synced(&mut self) {
        let mut status = self.handle.status();
        let synced = status.wait_for(|status| status.synced);
        timeout(SOON, synced)
            .await
            .expect("it is soon")
            .expect("it goes on");
    }

    /// Waits until there is no subscription, for the reason that the controller gave.
    pub(super) async fn disconnected(&mut self) -> String {
        let mut status = self.handle.status();
        let failed = status.wait_for(|status| status.error.is_some());
        let failed = timeout(SOON, failed).await.expect("it is soon");
        failed.expect("it goes on").error.clone().unwrap()
    }
}

impl Wire {
    pub(super) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let whole = watch::Sender::new(true);
        let down = Arc::new(AtomicU64::new(0));
        let (count, watched) = (Arc::clone(&down), whole.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (count, mut whole) = (Arc::clone(&count), watched.subscribe());
                tokio::spawn(async move {
                    if !*whole.borrow_and_update() {
                        return;
                    }
                    let Ok(far) = TcpStream::connect(target).await else {
                        return;
                    };
                    let mut far = Counted { stream: far, count };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = whole.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            down,
            whole,
            task,
        }
    }

    /// Ends all connections, and lets none through until it is mended.
    pub(super) fn cut(&self) {
        self.whole.send_replace(false);
    }

    pub(super) fn mend(&self) {
        self.whole.send_replace(true);
    }

    /// Bytes to the agents since this was last asked.
    pub(super) fn bytes(&self) -> u64 {
        self.down.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts what is read.
struct Counted {
    stream: TcpStream,
    count: Arc<AtomicU64>,
}

impl tokio::io::AsyncRead for Counted {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = std::pin::Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        self.count.fetch_add(read as u64, Ordering::SeqCst);
        result
    }
}

impl tokio::io::AsyncWrite for Counted {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Waits until something holds, which nothing announces.
pub(super) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn import_name(number: usize) -> ObjectName {
    ObjectName::new("shop", format!("import-{number:05}"))
}

/// An import of about 200 bytes.
pub(super) fn import(number: usize, port: u16) -> Resource {
    let source = |peer: &str| Source {
        peer: PeerName::new(peer).unwrap(),
        export: ObjectName::new("theirs", format!("export-{number:05}")),
    };
    let number = u32::try_from(number).unwrap();
    Resource::Import(Arc::new(Import {
        name: import_name(number as usize),
        labels: BTreeMap::from([("app".to_owned(), format!("app-{number}"))]),
        addresses: vec![std::net::Ipv4Addr::from(0x0a60_0000 + number).into()],
        port: port.try_into().unwrap(),
        target_port: None,
        sources: vec![source("east"), source("west")],
        scheme: LbScheme::Random,
    }))
}

pub(super) fn port_of(snapshot: &Snapshot, number: usize) -> Option<u16> {
    snapshot
        .imports
        .get(&import_name(number))
        .map(|import| import.port.get())
}

pub(super) fn pod(name: &str, node: &str, address: [u8; 4]) -> Resource {
    Resource::Workload(Arc::new(Workload {
        name: ObjectName::new("shop", name),
        attributes: Arc::new(WorkloadAttributes {
            namespace: "shop".into(),
            service_account: "default".into(),
            labels: BTreeMap::new(),
        }),
        cgroup: None,
        addresses: vec![address.into()],
        uids: vec![format!("uid-of-{name}").into()],
        node: Some(node.into()),
        host_network: false,
    }))
}
