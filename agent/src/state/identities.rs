//! Who a client is, from the kernel's record of its connect: what the gateway asks for every
//! accepted connection, answered from an immutable table.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::Arc,
};

use arc_swap::ArcSwap;
use clusterlink_gateway::view::{Origin, Origins};
use clusterlink_model::{Client, Import, Workload};
use tokio::sync::mpsc;

use super::{
    cgroups::walk,
    denials::Denial,
    history::{History, Recent},
};
use crate::datapath::Datapath;

/// The table in force, replaced as a whole.
pub(super) type Shared = Arc<ArcSwap<Identities>>;

/// Workloads by what a connection shows of its client.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// By cgroup; `None` is one that exists but has no workload (any more), or several.
    pub(super) cgroups: HashMap<u64, Option<Arc<Workload>>>,
    /// By address; `None` is one that several workloads claim.
    pub(super) addresses: HashMap<IpAddr, Option<Arc<Workload>>>,
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
        if let Some(workload) = self.search(origin.cgroup) {
            return judge(&workload, origin, address);
        }
        if origin.same_namespace {
            // Every process of the host could use any of its addresses: they name nobody.
            return Client::Host;
        }
        match self.addresses.get(&address) {
            Some(Some(workload)) => pod(workload),
            Some(None) | None => Client::Unknown,
        }
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
    let own = origin.same_namespace
        || workload.addresses.is_empty()
        || workload
            .addresses
            .iter()
            .any(|known| known.to_canonical() == address);
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
}

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
        }
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
}
