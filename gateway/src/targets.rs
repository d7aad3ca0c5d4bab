//! Leased ports that the gateway listens on itself, where no kernel hands it the connections to them.
//!
//! A port belongs to one worker, which opens and closes it as its view says: the socket shares its port
//! with nobody, since another process would get a part of the clients, and nothing has to be locked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clusterlink_model::ObjectName;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    arrival::Way,
    egress, socket,
    worker::{Shared, Worker},
};

/// A leased port at which clients of the Service path are not served, though they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnservedTarget {
    /// The import that has the lease.
    pub import: ObjectName,
    /// The address and port.
    pub address: SocketAddr,
    /// Why nobody listens there, and the cure.
    pub reason: String,
}

/// The ports of all workers, with why one cannot be listened on.
#[derive(Debug, Default)]
pub(crate) struct TargetTable(Mutex<BTreeMap<SocketAddr, Option<String>>>);

impl TargetTable {
    /// The ports that are listened on, or will be in a moment.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        let all = self.lock();
        let served = all.iter().filter(|(_, failure)| failure.is_none());
        served.map(|(address, _)| address.port()).collect()
    }

    /// Those that cannot be listened on, and why.
    pub(crate) fn failures(&self) -> Vec<(SocketAddr, String)> {
        let all = self.lock();
        let failed = all.iter().filter_map(|(address, failure)| {
            let failure = failure.as_ref()?;
            Some((*address, failure.clone()))
        });
        failed.collect()
    }

    /// Says of a new port that it will be listened on: whoever sees the socket then knows whose it is.
    fn announce(&self, address: SocketAddr) {
        self.lock().entry(address).or_default();
    }

    fn set(&self, address: SocketAddr, failure: Option<String>) {
        self.lock().insert(address, failure);
    }

    fn remove(&self, address: SocketAddr) {
        self.lock().remove(&address);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which ports are a worker's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// The number of the worker.
    pub(crate) number: usize,
    /// How many workers there are.
    pub(crate) workers: usize,
}

impl Share {
    fn has(self, address: SocketAddr) -> bool {
        usize::from(address.port()) % self.workers == self.number
    }
}

/// The ports of one worker.
pub(crate) struct Targets {
    worker: Rc<Worker>,
    /// None where the gateway does not listen itself.
    share: Option<Share>,
    /// What the ports were opened for.
    followed: (bool, Arc<HashMap<SocketAddr, u32>>),
    open: HashMap<SocketAddr, JoinHandle<()>>,
    failed: HashSet<SocketAddr>,
}

impl Targets {
    pub(crate) fn new(worker: Rc<Worker>, share: Option<Share>) -> Self {
        Self {
            worker,
            share,
            followed: Default::default(),
            open: HashMap::new(),
            failed: HashSet::new(),
        }
    }

    /// Opens and closes what the worker's view says. Until everything is known nobody is served, and no
    /// port is open.
    pub(crate) async fn follow(&mut self) {
        let Some(share) = self.share else { return };
        let view = self.worker.view();
        let (was_ready, before) = &self.followed;
        if (*was_ready, Arc::as_ptr(before)) == (view.ready, Arc::as_ptr(&view.targets)) {
            return;
        }
        self.followed = (view.ready, view.targets.clone());
        let all = view.targets.keys().copied().filter(|_| view.ready);
        let wanted: HashSet<SocketAddr> = all.filter(|at| share.has(*at)).collect();
        self.close(|address| !wanted.contains(&address)).await;
        for address in wanted {
            if !self.open.contains_key(&address) {
                self.open(address);
            }
        }
    }

    /// Tries again to open what could not be opened.
    pub(crate) fn retry(&mut self) {
        for address in self.failed.clone() {
            self.open(address);
        }
    }

    /// Closes everything.
    pub(crate) async fn close_all(mut self) {
        self.close(|_| true).await;
    }

    fn open(&mut self, address: SocketAddr) {
        let shared = &self.worker.shared;
        shared.targets.announce(address);
        let listener = socket::listen_alone(address).and_then(TcpListener::from_std);
        match listener {
            Ok(listener) => {
                shared.targets.set(address, None);
                if self.failed.remove(&address) {
                    tracing::info!(%address, "a target port is listened on that could not be before");
                    shared.metrics.target_listeners_missing.dec();
                }
                shared.metrics.target_listeners.inc();
                let accept = egress::accept(self.worker.clone(), listener, Way::ServicePath);
                self.open.insert(address, tokio::task::spawn_local(accept));
            }
            Err(error) => {
                let why = why(address, &error);
                if self.failed.insert(address) {
                    tracing::warn!(why, "clients of an import are not served here");
                    shared.metrics.target_listeners_missing.inc();
                }
                shared.targets.set(address, Some(why));
            }
        }
    }

    /// Closes some; a port is free again when this returns.
    async fn close(&mut self, gone: impl Fn(SocketAddr) -> bool) {
        let closed: Vec<_> = (self.open)
            .extract_if(|address, _| gone(*address))
            .collect();
        for (address, task) in closed {
            task.abort();
            // The listener is closed by that, whichever way it ends.
            let _ = task.await;
            self.worker.shared.metrics.target_listeners.dec();
            self.worker.shared.targets.remove(address);
        }
        for address in self.failed.extract_if(|address| gone(*address)) {
            self.worker.shared.metrics.target_listeners_missing.dec();
            self.worker.shared.targets.remove(address);
        }
    }
}

/// The leased ports that cannot be listened on.
pub(crate) fn unserved(shared: &Shared) -> Vec<UnservedTarget> {
    let view = shared.view.borrow().clone();
    let failures = shared.targets.failures().into_iter();
    let of_import = |(address, reason)| {
        let import = view.import_ids.get(view.targets.get(&address)?)?.clone();
        Some(UnservedTarget {
            import,
            address,
            reason,
        })
    };
    failures.filter_map(of_import).collect()
}

fn why(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process of this node has it (ss -tanp 'sport = :{port}' shows which): end that, or give the Import another targetPort"
        ),
        io::ErrorKind::PermissionDenied => {
            "it is a privileged port of this node (net.ipv4.ip_unprivileged_port_start): give the Import another targetPort".to_owned()
        }
        _ => "it is tried again".to_owned(),
    };
    format!("cannot listen at target port {address}: {error}; {cure}")
}
