//! Who a client is, from the kernel's record of its connect, or by its address where there is none:
//! what the gateway asks for every accepted connection, answered from an immutable table.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use clusterlink_gateway::view::{Connection, Found as ClientFound, Origin, Origins};
use clusterlink_model::{Client, Import, Workload};
use tokio::sync::mpsc;

use super::{
    cgroups::{nearest, walk},
    denials::Denial,
    history::{History, Recent},
    local::LocalClients,
    lookups::Lookups,
    places::{Places, has},
};
use crate::{
    control::{Found, Lookup},
    datapath::Datapath,
};

/// The table in force, replaced as a whole.
pub(super) type Shared = Arc<ArcSwap<Identities>>;

/// Workloads by what a connection shows of its client.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// By cgroup; `None` is one that exists but has no workload (any more), or several.
    pub(super) cgroups: HashMap<u64, Option<Arc<Workload>>>,
    /// Cgroups above pods: who is seen in one is in a pod whose own cgroup was not known yet.
    pub(super) above_pods: HashSet<u64>,
    /// The directories that all pods are below.
    pub(super) pod_roots: Vec<PathBuf>,
    /// By address; `None` is one that several workloads claim. A workload of a node's network has none
    /// of its own.
    pub(super) addresses: HashMap<IpAddr, Option<Arc<Workload>>>,
    /// Nodes and the ranges of pods.
    pub(super) places: Arc<Places>,
    /// Every declared directory: a cgroup may be newer than this table.
    pub(super) directories: Vec<(PathBuf, Arc<Workload>)>,
    /// Cgroups outside of the table that were looked for in `directories`.
    searched: ArcSwap<Searched>,
}

#[derive(Clone, Debug, Default)]
struct Searched {
    found: HashMap<u64, Arc<Workload>>,
    elsewhere: HashSet<u64>,
}

/// How many cgroups a table remembers to be elsewhere; a host with more is searched again.
const REMEMBERED: usize = 4096;

impl Identities {
    /// Who opened the connection.
    pub(super) fn client(&self, origin: &Origin, source: SocketAddr) -> Client {
        let address = source.ip().to_canonical();
        match self.cgroups.get(&origin.cgroup) {
            Some(Some(workload)) => return judge(workload, origin, address),
            Some(None) => return Client::Unknown,
            None => {}
        }
        let in_some_pod = self.above_pods.contains(&origin.cgroup);
        if !in_some_pod && let Some(workload) = self.search(origin.cgroup) {
            return judge(&workload, origin, address);
        }
        if origin.same_namespace {
            // Every process of the host could use any of its addresses: they name nobody.
            return if in_some_pod {
                Client::Unknown
            } else {
                Client::Host
            };
        }
        match self.addresses.get(&address) {
            Some(Some(workload)) => pod(workload),
            Some(None) | None => Client::Unknown,
        }
    }

    /// The cgroup by which the kernel's hooks would name a process: the innermost around its own that
    /// is known, since a container's is below its pod's. Reads directories.
    pub(super) fn around(&self, cgroup: u64) -> u64 {
        let is_known = |id: u64| self.cgroups.contains_key(&id) || self.above_pods.contains(&id);
        if is_known(cgroup) {
            return cgroup;
        }
        (self.pod_roots.iter())
            .find_map(|root| nearest(root, cgroup, &is_known, None))
            .unwrap_or(cgroup)
    }

    /// Looks for a cgroup below the declared directories: the kernel reports the innermost
    /// cgroup, and directories appear before this table knows of them. Without this the first
    /// connect of a unit that has just started would count as the host's.
    fn search(&self, cgroup: u64) -> Option<Arc<Workload>> {
        let searched = self.searched.load();
        if let Some(workload) = searched.found.get(&cgroup) {
            return Some(workload.clone());
        }
        if searched.elsewhere.contains(&cgroup) {
            return None;
        }
        let found = (self.directories.iter())
            .find(|(path, _)| walk(path, &mut |_, id| id == cgroup))
            .map(|(_, workload)| workload.clone());
        self.searched.rcu(|searched| {
            let mut searched = Searched::clone(searched);
            match &found {
                Some(workload) => drop(searched.found.insert(cgroup, workload.clone())),
                None if searched.elsewhere.len() < REMEMBERED => {
                    searched.elsewhere.insert(cgroup);
                }
                None => {}
            }
            searched
        });
        found
    }
}

/// A recorded identity counts only if the source address belongs to the pod, where the pod has
/// addresses of its own.
fn judge(workload: &Workload, origin: &Origin, address: IpAddr) -> Client {
    // A standalone peer's workloads are processes of the host; a pod of Kubernetes that has a network of
    // its own is not itself when it comes from the host's.
    let of_host = workload.host_network || workload.uids.is_empty();
    let own = (origin.same_namespace && of_host)
        || workload.addresses.is_empty()
        || has(workload, address);
    if own { pod(workload) } else { Client::Unknown }
}

pub(super) fn pod(workload: &Workload) -> Client {
    Client::Pod {
        name: workload.name.clone(),
        attributes: workload.attributes.clone(),
    }
}

/// The agent's answer to the gateway's questions.
pub struct NodeOrigins {
    datapath: Arc<dyn Datapath>,
    identities: Shared,
    history: Arc<History>,
    denials: mpsc::Sender<Denial>,
    lookups: Lookups,
    local_clients: LocalClients,
}

/// How long the controller is left alone after it said that nobody has an address of the pods' ranges:
/// the pod may be about to be announced to it.
const AGAIN: Duration = Duration::from_millis(250);

impl NodeOrigins {
    pub(super) fn new(
        datapath: Arc<dyn Datapath>,
        identities: Shared,
        history: Arc<History>,
        denials: mpsc::Sender<Denial>,
    ) -> Self {
        Self {
            datapath,
            identities,
            history,
            denials,
            lookups: Lookups::default(),
            local_clients: LocalClients::default(),
        }
    }

    /// Clients of the Service path that this node was not told of are looked up; without this nobody
    /// answers for them.
    pub fn with_lookup(mut self, lookup: Arc<dyn Lookup>) -> Self {
        self.lookups = Lookups::new(lookup);
        self
    }

    /// Replaces how the kernel is asked for clients of this node, for tests.
    #[cfg(test)]
    pub(super) fn with_local_clients(mut self, local_clients: LocalClients) -> Self {
        self.local_clients = local_clients;
        self
    }

    /// Who connects from an address of this node.
    async fn local(&self, connection: Connection) -> ClientFound {
        let (clients, table) = (self.local_clients, self.identities.load_full());
        let find = move || clients.owner(connection, &table);
        let found = tokio::task::spawn_blocking(find).await;
        let owner = match found {
            Ok(Ok(Some(owner))) => owner,
            Ok(Ok(None)) | Err(_) => return Client::Unknown.into(),
            Ok(Err(error)) => {
                let source = connection.source;
                tracing::warn!(%source, %error, "cannot find the socket of a client of this node");
                return Client::Unknown.into();
            }
        };
        let origin = Origin {
            import: 0,
            destination: connection.asked,
            cgroup: owner.cgroup,
            cookie: 0,
            same_namespace: true,
        };
        ClientFound {
            client: self.identities.load().client(&origin, owner.source),
            cgroup: Some(owner.cgroup),
        }
    }

    /// Who has an address, with what the controller may have said of it.
    fn at(&self, address: IpAddr, found: Option<&Found>) -> Option<Client> {
        let table = self.identities.load();
        let workload = table.addresses.get(&address);
        table.places.client(address, workload, found)
    }

    /// What was in force since this was called last, for the flow log.
    pub fn recent(&self) -> Recent {
        self.history.fetch()
    }
}

impl Origins for NodeOrigins {
    fn origin(&self, socket: BorrowedFd<'_>) -> io::Result<Option<Origin>> {
        self.datapath.origin(socket)
    }

    fn client(&self, origin: &Origin, source: SocketAddr) -> Client {
        self.identities.load().client(origin, source)
    }

    fn denied_everywhere(&self, client: &Client, import: &Arc<Import>) {
        let attributes = match client {
            Client::Pod { attributes, .. } => Some(attributes.clone()),
            Client::Host => None,
            // Of these the kernel has no verdict.
            Client::Outside | Client::Unknown => return,
        };
        let import = import.clone();
        // With too many of them waiting, this one is asked again.
        let _ = self.denials.try_send(Denial { attributes, import });
    }

    fn client_at(&self, source: SocketAddr) -> Client {
        let address = source.ip().to_canonical();
        let client = (self.at(address, None))
            .or_else(|| self.at(address, Some(&self.lookups.answer(address)?)));
        client.unwrap_or(Client::Unknown)
    }

    fn look_up(
        &self,
        connection: Connection,
    ) -> Pin<Box<dyn Future<Output = ClientFound> + Send + '_>> {
        let address = connection.source.ip().to_canonical();
        Box::pin(async move {
            if self.identities.load().places.is_own(address) {
                return self.local(connection).await;
            }
            if let Some(client) = self.at(address, None) {
                return client.into();
            }
            loop {
                let found = self.lookups.ask(address).await;
                let client = self.at(address, Some(&found)).unwrap_or(Client::Unknown);
                if found != Found::Nothing || client == Client::Outside {
                    return client.into();
                }
                tokio::time::sleep(AGAIN).await;
            }
        })
    }
}
