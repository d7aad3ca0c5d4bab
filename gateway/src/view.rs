//! What the gateway is told: the compiled view of the node, and who opened a connection.
//!
//! The gateway knows neither eBPF nor Kubernetes. The agent hands it a [`View`] through a watch
//! channel whenever anything changes, and answers [`Origins`] questions about accepted sockets.

use std::{
    collections::{BTreeMap, HashMap},
    future::{Future, ready},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    pin::Pin,
    sync::Arc,
};

use clusterlink_model::{
    Client, HostPort, Import, Labels, LocalPeer, ObjectName, PeerName, Snapshot, policy::PolicySet,
};
use ipnet::IpNet;

/// Everything that decisions depend on, at one moment. Replaced as a whole, never changed.
#[derive(Clone, Debug)]
pub struct View {
    /// Grows with every change of anything that a decision depends on.
    pub generation: u64,
    /// Whether a first complete snapshot has arrived. Until then everything is refused.
    pub ready: bool,
    /// The peer that this gateway speaks for.
    pub local: Arc<LocalPeer>,
    /// The resources.
    pub snapshot: Arc<Snapshot>,
    /// The policies of `snapshot`, compiled.
    pub policies: Arc<PolicySet>,
    /// The imports by the number that the kernel knows them by.
    pub import_ids: Arc<HashMap<u32, ObjectName>>,
    /// The numbers of imports by the address and port at which the Service path reaches them.
    pub targets: Arc<HashMap<SocketAddr, u32>>,
    /// Where clients that are neither pods nor nodes may come from.
    pub outside_ranges: Arc<[IpNet]>,
    /// The labels in force of each peer: the Peer object's own, else what the peer says of itself
    /// (see `Gateway::remote_labels`).
    pub peer_labels: Arc<BTreeMap<PeerName, Arc<Labels>>>,
    /// Whether callers without a Peer object are refused.
    pub require_listed_peers: bool,
    /// Which addresses may be dialled as backends of local Exports.
    pub dial_rules: DialRules,
}

impl View {
    /// A view that refuses everything: what a gateway has before its first snapshot.
    pub fn not_ready(local: LocalPeer) -> Self {
        Self {
            generation: 0,
            ready: false,
            local: Arc::new(local),
            snapshot: Arc::default(),
            policies: Arc::default(),
            import_ids: Arc::default(),
            targets: Arc::default(),
            outside_ranges: Arc::default(),
            peer_labels: Arc::default(),
            require_listed_peers: false,
            dial_rules: DialRules::default(),
        }
    }

    /// The import that the kernel knows by this number.
    pub fn import(&self, number: u32) -> Option<&Arc<Import>> {
        self.snapshot.imports.get(self.import_ids.get(&number)?)
    }

    /// Whether a client that is neither a pod nor a node may come from this address.
    pub fn admits_outside(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (self.outside_ranges.iter()).any(|range| range.contains(&address))
    }

    /// The labels in force of a peer; none are known of a peer that was never heard.
    pub fn labels_of(&self, peer: &PeerName) -> &Labels {
        static NONE: Labels = Labels::new();
        self.peer_labels.get(peer).map_or(&NONE, |labels| labels)
    }

    /// The gateways that the Peer object names; none of a peer without an object.
    pub fn gateways_of(&self, peer: &PeerName) -> &[HostPort] {
        (self.snapshot.peers.get(peer)).map_or(&[], |peer| &peer.gateways)
    }
}

/// Which resolved addresses may be dialled as backends: the gateway must not lend its host's rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DialRules {
    /// Loopback and the host's own addresses are services of this peer (standalone peers).
    pub allow_local: bool,
    /// What an administrator allows although it would be refused.
    pub allow: Arc<[IpNet]>,
    /// What no name may resolve to, besides the nodes' addresses and the pods' ranges: the API
    /// server's addresses, the range of ClusterIPs.
    pub refuse: Arc<[IpNet]>,
}

/// What is known of an accepted connection to the steering address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The number of the import that the client connected to.
    pub import: u32,
    /// The address and port that the client asked for.
    pub destination: SocketAddr,
    /// The cgroup of the client, as the kernel numbers it.
    pub cgroup: u64,
    /// The cookie of the client's socket.
    pub cookie: u64,
    /// Whether the client runs in the gateway's own network namespace.
    pub same_namespace: bool,
}

/// Tells who opened a connection. Implemented by the agent's datapath.
pub trait Origins: Send + Sync + 'static {
    /// The kernel's record of an accepted connection; `None` if it has none (the connection was
    /// not steered and is reset).
    fn origin(&self, socket: BorrowedFd<'_>) -> io::Result<Option<Origin>>;

    /// Who the client is, as of now. Asked again when the view changes while it is unknown.
    fn client(&self, origin: &Origin, source: SocketAddr) -> Client;

    /// Hears that every source of an import was tried for a client, and that each of their peers
    /// denied it; the next connects of such clients may be refused for a moment without asking.
    fn denied_everywhere(&self, _client: &Client, _import: &Arc<Import>) {}

    /// Who connects from an address, as far as that is known now: the client of a connection that came
    /// by the Service path, of which the kernel has no record. Asked again when the view changes.
    fn client_at(&self, _source: SocketAddr) -> Client {
        Client::Unknown
    }

    /// Finds out who the client of a connection is that [`client_at`](Self::client_at) does not know. May
    /// take as long as it likes: who asks waits for two seconds. An unknown client is refused then.
    fn look_up(&self, _connection: Connection) -> Pin<Box<dyn Future<Output = Found> + Send + '_>> {
        Box::pin(ready(Client::Unknown.into()))
    }
}

/// A connection that came by the Service path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where it comes from, as the accepted socket says.
    pub source: SocketAddr,
    /// Where it was sent to, as the accepted socket says.
    pub destination: SocketAddr,
    /// What the client connected to, if it was this node that translated that; else the destination.
    pub asked: SocketAddr,
}

/// Who a client of the Service path was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The client.
    pub client: Client,
    /// The cgroup of its socket, where it is by that that it is known: its address tells nothing then.
    pub cgroup: Option<u64>,
}

impl From<Client> for Found {
    /// A client that is known by its address.
    fn from(client: Client) -> Self {
        Self {
            client,
            cgroup: None,
        }
    }
}
