//! A node, and agents that run on it one after the other.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    num::{NonZeroU16, NonZeroUsize},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clusterlink_agent::{
    app::{self, AgentError, Config, Ebpf, Mode, NodeLink, Parts},
    boot,
    control::{Found, Heard, Lookup, Updates},
    datapath::Datapath,
    last_state::{LastContact, LastState, Origin, Stored},
    released::{Released, ReleasedFile},
    state::{Steered, SteeredAddresses},
};
use clusterlink_gateway::tls::Watcher;
use clusterlink_model::{
    Action, Import, Labels, LbScheme, LocalPeer, ObjectName, Operator, Peer, Policy, PolicyName,
    Requirement, Resource, Selector, Source, Update, Workload, WorkloadAttributes,
};
use clusterlink_proto::NodeReport;
use futures::future::BoxFuture;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::scene::eventually;

/// What outlives an agent.
pub(crate) struct Node {
    dir: tempfile::TempDir,
    cgroup: PathBuf,
    bpf_dir: PathBuf,
    gateway: &'static str,
    address: IpAddr,
    runtime: Runtime,
}

/// A running agent, and the test as its controller.
pub(crate) struct Agent<'a> {
    node: &'a Node,
    pub(crate) metrics: SocketAddr,
    pub(crate) steering: SocketAddr,
    pub(crate) steered: watch::Receiver<SteeredAddresses>,
    pub(crate) released: Released,
    updates: mpsc::UnboundedSender<Update>,
    heard: watch::Sender<Instant>,
    reports: watch::Receiver<Arc<NodeReport>>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
}

struct Controller(mpsc::UnboundedReceiver<Update>);

impl Updates for Controller {
    async fn next(&mut self) -> Option<Update> {
        match self.0.recv().await {
            Some(update) => Some(update),
            // A controller that is away says nothing; it has not ended.
            None => std::future::pending().await,
        }
    }
}

impl Node {
    /// A node whose cgroups are plain directories.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = dir.path().join("cgroup");
        fs::create_dir_all(cgroup.join("kubepods")).unwrap();
        Self::with(dir, cgroup, PathBuf::from("/nonexistent"), "127.0.0.1")
    }

    /// A node on a part of this host's kernel.
    pub(crate) fn on_kernel(cgroup: &Path, bpf_dir: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(cgroup.join("kubepods")).unwrap();
        Self::with(dir, cgroup.to_owned(), bpf_dir.to_owned(), "169.254.77.1")
    }

    fn with(
        dir: tempfile::TempDir,
        cgroup: PathBuf,
        bpf_dir: PathBuf,
        gateway: &'static str,
    ) -> Self {
        let certs = dir.path().join("certs");
        fs::create_dir(&certs).unwrap();
        issue(&certs);
        fs::create_dir(dir.path().join("state")).unwrap();
        Self {
            dir,
            cgroup,
            bpf_dir,
            gateway,
            address: [192, 0, 2, 1].into(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    /// Serves target ports at this address of the host.
    pub(crate) fn at(self, address: IpAddr) -> Self {
        Self { address, ..self }
    }

    /// Removes a file of the state directory.
    pub(crate) fn forget(&self, file: &str) {
        fs::remove_file(self.dir.path().join("state").join(file)).unwrap();
    }

    /// Starts an agent that uses this instead of the kernel.
    pub(crate) fn start(&self, datapath: Arc<dyn Datapath>) -> Agent<'_> {
        self.start_with(Some(datapath), Ebpf::Require)
    }

    /// Starts an agent that does not use the kernel at all.
    pub(crate) fn start_without_steering(&self) -> Agent<'_> {
        self.start_with(None, Ebpf::Off)
    }

    /// Starts an agent that needs the kernel.
    pub(crate) fn start_on_kernel(&self) -> Agent<'_> {
        self.start_with(None, Ebpf::Require)
    }

    fn start_with(&self, datapath: Option<Arc<dyn Datapath>>, ebpf: Ebpf) -> Agent<'_> {
        let state_dir = self.dir.path().join("state");
        let credentials = Watcher::open(&self.dir.path().join("certs"), 1).unwrap();
        let metrics = free_address("127.0.0.1");
        let steering = free_address(self.gateway);
        let config = Config {
            local: LocalPeer {
                name: "west".parse().unwrap(),
                labels: Labels::new(),
            },
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            gateway_addresses: vec![steering.ip()],
            gateway_addresses_explicit: true,
            steering_port: steering.port(),
            cgroup: Some(self.cgroup.clone()),
            bpf_dir: self.bpf_dir.clone(),
            state_dir: state_dir.clone(),
            require_listed_peers: false,
            metrics: Some(metrics),
            admin: self.dir.path().join("admin.sock"),
            workers: NonZeroUsize::MIN,
            software: "test".to_owned(),
            random_seed: None,
            kernel_log_level: 1,
            ebpf,
            mode: Mode::Node(app::Node {
                name: "n1".into(),
                addresses: vec![self.address],
                host_addresses: Vec::new(),
                outside_ranges: Vec::new(),
                refused_backends: Vec::new(),
                allowed_backends: Vec::new(),
            }),
        };
        let (updates, said) = mpsc::unbounded_channel();
        let (heard_sender, heard) = watch::channel(Instant::now());
        let (report, reports) = watch::channel(<Arc<NodeReport>>::default());
        let steered = Steered::default();
        let boot = boot::id().unwrap();
        let origin = Origin {
            boot: boot.clone(),
            peer: config.local.name.clone(),
            node: "n1".into(),
        };
        let released_file = ReleasedFile::open(&state_dir, boot.clone());
        let released = Released::new(released_file.addresses());
        let stored = Stored::read(&state_dir, origin);
        let updates_of_node = LastState::new(stored, Controller(said));
        let link = NodeLink {
            report,
            heard: Heard::new(heard),
            steered: steered.clone(),
            released: released.clone(),
            released_file,
            last_contact: LastContact::open(&state_dir, boot),
            keeper: updates_of_node.keeper(),
            lookup: Arc::new(Nobody),
        };
        let mut parts = Parts::node(credentials, updates_of_node, link);
        if let Some(datapath) = datapath {
            parts = parts.with_datapath(datapath);
        }
        let stop = CancellationToken::new();
        let agent = Agent {
            node: self,
            metrics,
            steering,
            steered: steered.subscribe(),
            released,
            updates,
            heard: heard_sender,
            reports,
            stop: stop.clone(),
            task: self.runtime.spawn(app::run(config, parts, stop)),
        };
        eventually("the agent answers", || {
            assert!(!agent.task.is_finished(), "it ended");
            TcpStream::connect(agent.metrics).ok().map(drop)
        });
        agent
    }
}

impl Agent<'_> {
    /// Says something as its controller, which asks about no address unless it did before.
    pub(crate) fn tell(&self, update: Update) {
        if self.released.asked().borrow().addresses.is_none() {
            self.released.ask(BTreeSet::new(), false);
        }
        self.updates.send(update).unwrap();
    }

    /// Tells it of these imports, which everybody may use, and waits until it works by that.
    pub(crate) fn serves(&self, imports: impl IntoIterator<Item = Resource>) {
        let others = [peer(), allow_all()];
        self.tell(complete(imports.into_iter().chain(others).collect()));
        self.is_heard();
        self.is_ready();
    }

    /// The controller was heard from just now.
    pub(crate) fn is_heard(&self) {
        self.heard.send_replace(Instant::now());
    }

    /// Up to which question about released addresses all is in force.
    pub(crate) fn question_in_force(&self) -> u64 {
        *self.released.in_force().borrow()
    }

    pub(crate) fn report(&self) -> Arc<NodeReport> {
        self.reports.borrow().clone()
    }

    pub(crate) fn is_ready(&self) {
        eventually("ready", || (self.get("/readyz").0 == 200).then_some(()));
    }

    /// Status and text of an answer of the metrics endpoint.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let code = text.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        (code, body.to_owned())
    }

    pub(crate) fn asks_to_stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the end.
    pub(crate) fn ends(self) {
        self.node.runtime.block_on(self.task).unwrap().unwrap();
    }

    pub(crate) fn stop(self) {
        self.asks_to_stop();
        self.ends();
    }
}

/// An address that nobody listens on.
fn free_address(ip: &str) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Makes a fabric and the certificate of a peer in it.
pub(crate) fn issue(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["west".to_owned()]).unwrap();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params.signed_by(&key, &issuer).unwrap();
    fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    fs::write(dir.join("ca.pem"), authority).unwrap();
}

/// The ClusterIP of the imports.
pub(crate) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 7], port))
}

pub(crate) fn import(name: &str, port: u16) -> Resource {
    let name = ObjectName::new("shop", name);
    Resource::Import(Arc::new(Import {
        labels: Labels::new(),
        addresses: vec![address(port).ip()],
        port: NonZeroU16::new(port).unwrap(),
        target_port: None,
        sources: vec![Source {
            peer: "east".parse().unwrap(),
            export: name.clone(),
        }],
        scheme: LbScheme::Random,
        name,
    }))
}

/// An import with a lease of a target port.
pub(crate) fn leased(name: &str, port: u16, target: u16) -> Resource {
    let Resource::Import(import) = import(name, port) else {
        unreachable!("an import is one")
    };
    let mut import = Import::clone(&import);
    import.target_port = NonZeroU16::new(target);
    Resource::Import(Arc::new(import))
}

pub(crate) fn peer() -> Resource {
    Resource::Peer(Arc::new(Peer {
        name: "east".parse().unwrap(),
        gateways: Vec::new(),
        labels: None,
        not_issued_before: None,
    }))
}

pub(crate) fn allow_all() -> Resource {
    Resource::Policy(Arc::new(Policy {
        name: PolicyName::Privileged("all".into()),
        action: Action::Allow,
        from: vec![Selector::default()],
        to: vec![Selector::default()],
    }))
}

/// A pod of this node, its service account named like it.
pub(crate) fn pod(name: &str, uid: &str) -> Resource {
    Resource::Workload(Arc::new(Workload {
        name: ObjectName::new("shop", name),
        attributes: Arc::new(WorkloadAttributes {
            namespace: "shop".into(),
            service_account: name.into(),
            labels: Labels::new(),
        }),
        cgroup: None,
        addresses: Vec::new(),
        uids: vec![uid.into()],
        node: Some("n1".into()),
        host_network: false,
    }))
}

pub(crate) fn deny_pod(name: &str) -> Resource {
    let from = Selector {
        requirements: vec![Requirement {
            key: "client.clusterlink.net/service-account".to_owned(),
            operator: Operator::In(vec![name.to_owned()]),
        }],
    };
    Resource::Policy(Arc::new(Policy {
        name: PolicyName::Privileged("deny".into()),
        action: Action::Deny,
        from: vec![from],
        to: vec![Selector::default()],
    }))
}

pub(crate) fn complete(upserts: Vec<Resource>) -> Update {
    Update {
        upserts,
        removals: Vec::new(),
        complete: true,
    }
}

/// A controller that does not answer questions.
struct Nobody;

impl Lookup for Nobody {
    fn lookup(&self, _: IpAddr) -> BoxFuture<'_, Found> {
        Box::pin(std::future::pending())
    }
}
