//! A datapath without a kernel, for tests of everything that uses one.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use clusterlink_gateway::view::Origin;

use super::{Datapath, DatapathError, KernelFlow, Refusal, VerdictBlock};

/// Keeps in memory what the kernel would keep, and remembers the order of the writes.
#[derive(Debug, Default)]
pub struct MemoryDatapath {
    tables: Mutex<Tables>,
}

/// A write, as [`MemoryDatapath::writes`] remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A service was set.
    Service(SocketAddr, u32),
    /// A service was removed.
    ServiceRemoved(SocketAddr),
    /// A target was set.
    Target(SocketAddr, u32),
    /// A target was removed.
    TargetRemoved(SocketAddr),
    /// A workload was set.
    Workload(u64, u32),
    /// A workload was removed.
    WorkloadRemoved(u64),
    /// A block of verdicts was set.
    Verdicts(u32, u32, VerdictBlock),
    /// All verdicts were removed.
    VerdictsCleared,
}

#[derive(Debug, Default)]
struct Tables {
    listeners: usize,
    target_listeners: usize,
    heartbeats: u64,
    services: HashMap<SocketAddr, u32>,
    targets: HashMap<SocketAddr, u32>,
    workloads: HashMap<u64, u32>,
    verdicts: HashMap<(u32, u32), VerdictBlock>,
    origins: HashMap<i32, Origin>,
    refusals: VecDeque<Refusal>,
    flows: Vec<KernelFlow>,
    writes: Vec<Write>,
    /// How many services and how many targets there may be, if not any number.
    room: Option<usize>,
}

impl Tables {
    fn has_room(&self, table: &HashMap<SocketAddr, u32>, address: SocketAddr) -> bool {
        table.contains_key(&address) || self.room.is_none_or(|room| table.len() < room)
    }
}

impl MemoryDatapath {
    /// An empty datapath.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the tables of services and of targets hold so many entries each, none for any number.
    pub fn set_room(&self, room: Option<usize>) {
        self.tables().room = room;
    }

    /// Whether the hooks would let a class connect to an import.
    pub fn allows(&self, class: u32, import: u32) -> bool {
        let word = (import / 64 % 8) as usize;
        self.tables()
            .verdicts
            .get(&(class, import / super::BLOCK_IMPORTS))
            .is_some_and(|block| block[word] >> (import % 64) & 1 == 1)
    }

    /// All verdicts, by class and block.
    pub fn verdicts(&self) -> HashMap<(u32, u32), VerdictBlock> {
        self.tables().verdicts.clone()
    }

    /// Every write so far, in order.
    pub fn writes(&self) -> Vec<Write> {
        self.tables().writes.clone()
    }

    /// Takes the writes since the last call.
    pub fn take_writes(&self) -> Vec<Write> {
        std::mem::take(&mut self.tables().writes)
    }

    /// How often the gateway said that it is alive.
    pub fn heartbeats(&self) -> u64 {
        self.tables().heartbeats
    }

    /// How many listeners were named last.
    pub fn listeners(&self) -> usize {
        self.tables().listeners
    }

    /// How many listeners of the Service path were named last.
    pub fn target_listeners(&self) -> usize {
        self.tables().target_listeners
    }

    /// Gives a socket an origin, as if its client had been steered.
    pub fn put_origin(&self, socket: BorrowedFd<'_>, origin: Origin) {
        self.tables().origins.insert(socket.as_raw_fd(), origin);
    }

    /// Adds a refusal, as if the hooks had refused a connect.
    pub fn put_refusal(&self, refusal: Refusal) {
        self.tables().refusals.push_back(refusal);
    }

    /// Replaces the open connections.
    pub fn put_flows(&self, flows: Vec<KernelFlow>) {
        self.tables().flows = flows;
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Datapath for MemoryDatapath {
    fn set_listeners(&self, listeners: &[BorrowedFd<'_>]) -> Result<(), DatapathError> {
        self.tables().listeners = listeners.len();
        Ok(())
    }

    fn heartbeat(&self) -> Result<(), DatapathError> {
        self.tables().heartbeats += 1;
        Ok(())
    }

    fn set_service(&self, address: SocketAddr, import: u32) -> Result<(), DatapathError> {
        let mut tables = self.tables();
        if !tables.has_room(&tables.services, address) {
            let limit = tables.services.len() as u32;
            return Err(DatapathError::ServicesFull { address, limit });
        }
        tables.services.insert(address, import);
        tables.writes.push(Write::Service(address, import));
        Ok(())
    }

    fn remove_service(&self, address: SocketAddr) -> Result<(), DatapathError> {
        let mut tables = self.tables();
        tables.services.remove(&address);
        tables.writes.push(Write::ServiceRemoved(address));
        Ok(())
    }

    fn services(&self) -> Result<Vec<(SocketAddr, u32)>, DatapathError> {
        Ok(self
            .tables()
            .services
            .iter()
            .map(|(address, import)| (*address, *import))
            .collect())
    }

    fn set_target_listeners(&self, listeners: &[BorrowedFd<'_>]) -> Result<(), DatapathError> {
        self.tables().target_listeners = listeners.len();
        Ok(())
    }

    fn set_target(&self, address: SocketAddr, import: u32) -> Result<(), DatapathError> {
        let mut tables = self.tables();
        if !tables.has_room(&tables.targets, address) {
            let limit = tables.targets.len() as u32;
            return Err(DatapathError::TargetsFull { address, limit });
        }
        tables.targets.insert(address, import);
        tables.writes.push(Write::Target(address, import));
        Ok(())
    }

    fn remove_target(&self, address: SocketAddr) -> Result<(), DatapathError> {
        let mut tables = self.tables();
        tables.targets.remove(&address);
        tables.writes.push(Write::TargetRemoved(address));
        Ok(())
    }

    fn targets(&self) -> Result<Vec<(SocketAddr, u32)>, DatapathError> {
        Ok(self
            .tables()
            .targets
            .iter()
            .map(|(address, import)| (*address, *import))
            .collect())
    }

    fn set_workload(&self, cgroup: u64, class: u32) -> Result<(), DatapathError> {
        let mut tables = self.tables();
        tables.workloads.insert(cgroup, class);
        tables.writes.push(Write::Workload(cgroup, class));
        Ok(())
    }

    fn remove_workload(&self, cgroup: u64) -> Result<(), DatapathError> {
        let mut tables = self.tables();
        tables.workloads.remove(&cgroup);
        tables.writes.push(Write::WorkloadRemoved(cgroup));
        Ok(())
    }

    fn workloads(&self) -> Result<Vec<(u64, u32)>, DatapathError> {
        Ok(self
            .tables()
            .workloads
            .iter()
            .map(|(cgroup, class)| (*cgroup, *class))
            .collect())
    }

    fn set_verdicts(
        &self,
        class: u32,
        block: u32,
        verdicts: &VerdictBlock,
    ) -> Result<(), DatapathError> {
        let mut tables = self.tables();
        tables.verdicts.insert((class, block), *verdicts);
        tables.writes.push(Write::Verdicts(class, block, *verdicts));
        Ok(())
    }

    fn clear_verdicts(&self) -> Result<(), DatapathError> {
        let mut tables = self.tables();
        tables.verdicts.clear();
        tables.writes.push(Write::VerdictsCleared);
        Ok(())
    }

    fn origin(&self, socket: BorrowedFd<'_>) -> io::Result<Option<Origin>> {
        Ok(self.tables().origins.get(&socket.as_raw_fd()).cloned())
    }

    fn refusals(&self) -> Vec<Refusal> {
        self.tables().refusals.drain(..).collect()
    }

    fn flows(&self) -> Result<Vec<KernelFlow>, DatapathError> {
        Ok(self.tables().flows.clone())
    }

    fn probe(&self) -> Result<(), DatapathError> {
        Ok(())
    }

    fn counters(&self) -> Result<Vec<(&'static str, u64)>, DatapathError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_bits_are_found_by_import_number() {
        let datapath = MemoryDatapath::new();
        let mut block = [0; 8];
        block[2] = 1 << 3;
        datapath.set_verdicts(7, 1, &block).unwrap();
        assert!(datapath.allows(7, 512 + 2 * 64 + 3));
        assert!(!datapath.allows(7, 2 * 64 + 3));
        assert!(!datapath.allows(7, 512 + 2 * 64 + 4));
        assert!(!datapath.allows(8, 512 + 2 * 64 + 3));
    }

    #[test]
    fn writes_are_remembered_in_order() {
        let datapath = MemoryDatapath::new();
        let address = "10.114.0.1:80".parse().unwrap();
        datapath.clear_verdicts().unwrap();
        datapath.set_service(address, 4).unwrap();
        datapath.remove_service(address).unwrap();
        assert_eq!(
            datapath.take_writes(),
            [
                Write::VerdictsCleared,
                Write::Service(address, 4),
                Write::ServiceRemoved(address)
            ]
        );
        assert!(datapath.writes().is_empty());
        assert!(datapath.services().unwrap().is_empty());
    }
}
