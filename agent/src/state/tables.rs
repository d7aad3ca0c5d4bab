//! The kernel's tables as they should be and as they are, and the order in which one becomes the
//! other: at no moment is something allowed that is denied both before and after.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use tracing::warn;

use super::steered::{Ports, Steered};
use crate::datapath::{BLOCK_IMPORTS, CLASS_UNKNOWN, Datapath, DatapathError, VerdictBlock};

/// Verdict blocks of one class, by block number.
pub(super) type Row = Vec<VerdictBlock>;

const DENIED: VerdictBlock = [0; 8];

/// What the kernel should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Desired {
    /// Steered address to import number.
    pub(super) services: HashMap<SocketAddr, u32>,
    /// Cgroup to class.
    pub(super) identities: HashMap<u64, u32>,
    /// Class to verdicts.
    pub(super) rows: BTreeMap<u32, Row>,
    /// Class and import number of verdicts that are not given for now, whatever the rows say.
    pub(super) withheld: BTreeSet<(u32, u32)>,
}

impl Desired {
    /// The verdicts of a class on one block of imports.
    fn block(&self, class: u32, block: u32) -> VerdictBlock {
        let row = self.rows.get(&class);
        let verdicts = row.and_then(|row| row.get(block as usize));
        let mut verdicts = verdicts.copied().unwrap_or(DENIED);
        let first = block * BLOCK_IMPORTS;
        let imports = (class, first)..=(class, first + (BLOCK_IMPORTS - 1));
        for (_, import) in self.withheld.range(imports) {
            verdicts[(import / 64 % 8) as usize] &= !(1 << (import % 64));
        }
        verdicts
    }
}

/// Which entries may differ from what the kernel holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    pub(super) services: HashSet<SocketAddr>,
    pub(super) identities: HashSet<u64>,
    pub(super) blocks: BTreeSet<(u32, u32)>,
}

impl Touched {
    fn is_empty(&self) -> bool {
        self.services.is_empty() && self.identities.is_empty() && self.blocks.is_empty()
    }
}

/// The kernel's tables, mirrored.
pub(super) struct Tables {
    datapath: Arc<dyn Datapath>,
    services: HashMap<SocketAddr, u32>,
    ports: Ports,
    identities: HashMap<u64, u32>,
    rows: HashMap<(u32, u32), VerdictBlock>,
    /// Writes that failed; tried again with the next commit.
    failed: Touched,
    error: Option<String>,
}

impl Tables {
    /// Takes over what an earlier process left: verdicts are cleared first, since classes are
    /// numbered anew, and every known cgroup becomes unknown, which the gateway judges. Services
    /// stay only if their import number is still `known`.
    pub(super) fn take_over(
        datapath: Arc<dyn Datapath>,
        steered: Steered,
        known: impl Fn(u32) -> bool,
    ) -> Result<Self, DatapathError> {
        datapath.clear_verdicts()?;
        let mut identities = HashMap::new();
        for (cgroup, class) in datapath.workloads()? {
            if class != CLASS_UNKNOWN {
                datapath.set_workload(cgroup, CLASS_UNKNOWN)?;
            }
            identities.insert(cgroup, CLASS_UNKNOWN);
        }
        let mut services = HashMap::new();
        let mut ports = Ports::new(steered);
        for (address, import) in datapath.services()? {
            if known(import) {
                ports.add(address);
                services.insert(address, import);
            } else {
                datapath.remove_service(address)?;
            }
        }
        Ok(Self {
            datapath,
            services,
            ports,
            identities,
            rows: HashMap::new(),
            failed: Touched::default(),
            error: None,
        })
    }

    /// The addresses that are steered now.
    pub(super) fn services(&self) -> impl Iterator<Item = SocketAddr> {
        self.services.keys().copied()
    }

    /// From now on it is said which addresses are steered.
    pub(super) fn settle(&mut self) {
        self.ports.settle();
    }

    /// The cgroups that have an entry now.
    pub(super) fn identities(&self) -> impl Iterator<Item = u64> {
        self.identities.keys().copied()
    }

    /// Why the last commit was not complete.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The addresses of which a write failed.
    pub(super) fn unwritten_services(&self) -> impl Iterator<Item = &SocketAddr> {
        self.failed.services.iter()
    }

    /// The cgroups of which a write failed.
    pub(super) fn unwritten_identities(&self) -> impl Iterator<Item = u64> {
        self.failed.identities.iter().copied()
    }

    /// Whether writes have to be tried again.
    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Makes the kernel hold what is desired, as far as `touched` goes. `between` runs when
    /// everything that is newly denied is in force, and nothing newly allowed is.
    pub(super) fn commit(
        &mut self,
        desired: &Desired,
        mut touched: Touched,
        between: impl FnOnce(),
    ) {
        let failed = std::mem::take(&mut self.failed);
        touched.services.extend(failed.services);
        touched.identities.extend(failed.identities);
        touched.blocks.extend(failed.blocks);
        self.error = None;
        self.remove_services(desired, &touched);
        let mut later = Vec::new();
        for &(class, block) in &touched.blocks {
            let new = desired.block(class, block);
            let old = self.rows.get(&(class, block)).copied().unwrap_or(DENIED);
            if self.identities.values().any(|&given| given == class) || class < 2 {
                self.set_block(class, block, std::array::from_fn(|i| old[i] & new[i]));
                later.push((class, block, new));
            } else {
                // Nobody has this class yet (or any more): its row is complete before the first
                // cgroup gets it.
                self.set_block(class, block, new);
            }
        }
        between();
        for cgroup in touched.identities {
            self.set_identity(cgroup, desired.identities.get(&cgroup).copied());
        }
        for (class, block, new) in later {
            self.set_block(class, block, new);
        }
        for address in touched.services {
            if let Some(&import) = desired.services.get(&address) {
                self.set_service(address, import);
            }
        }
        self.ports.publish();
    }

    fn remove_services(&mut self, desired: &Desired, touched: &Touched) {
        for &address in &touched.services {
            if desired.services.contains_key(&address) || !self.services.contains_key(&address) {
                continue;
            }
            match self.datapath.remove_service(address) {
                Ok(()) => {
                    self.services.remove(&address);
                    self.ports.remove(address);
                }
                Err(error) => {
                    self.failed.services.insert(address);
                    self.note(&error);
                }
            }
        }
    }

    fn set_service(&mut self, address: SocketAddr, import: u32) {
        if self.services.get(&address) == Some(&import) {
            return;
        }
        match self.datapath.set_service(address, import) {
            Ok(()) => {
                if self.services.insert(address, import).is_none() {
                    self.ports.add(address);
                }
            }
            Err(error) => {
                self.failed.services.insert(address);
                self.note(&error);
            }
        }
    }

    fn set_identity(&mut self, cgroup: u64, class: Option<u32>) {
        if self.identities.get(&cgroup).copied() == class {
            return;
        }
        let result = match class {
            Some(class) => self.datapath.set_workload(cgroup, class),
            None => self.datapath.remove_workload(cgroup),
        };
        match (result, class) {
            (Ok(()), Some(class)) => drop(self.identities.insert(cgroup, class)),
            (Ok(()), None) => drop(self.identities.remove(&cgroup)),
            (Err(error), _) => {
                self.failed.identities.insert(cgroup);
                self.note(&error);
            }
        }
    }

    fn set_block(&mut self, class: u32, block: u32, verdicts: VerdictBlock) {
        if self.rows.get(&(class, block)).copied().unwrap_or(DENIED) == verdicts {
            return;
        }
        match self.datapath.set_verdicts(class, block, &verdicts) {
            Ok(()) => drop(self.rows.insert((class, block), verdicts)),
            Err(error) => {
                self.failed.blocks.insert((class, block));
                self.note(&error);
            }
        }
    }

    fn note(&mut self, error: &DatapathError) {
        if self.error.is_none() {
            let text = crate::chain(error);
            warn!(
                error = text,
                "a kernel table could not be written; it is tried again"
            );
            self.error = Some(text);
        }
    }
}
