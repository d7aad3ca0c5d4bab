//! Which addresses are steered: those of the imports that are not released, as long as the node's lease
//! on them holds.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::sync::watch;

use crate::released::ReleasedAddresses;

/// What is to be steered.
#[derive(Debug, Default)]
pub(super) struct Steering {
    imports: HashMap<SocketAddr, u32>,
    lapsed: bool,
    released: Released,
}

/// What is not steered although it is an import's.
#[derive(Debug)]
enum Released {
    These(Arc<BTreeSet<IpAddr>>),
    /// It is not known which are.
    Unknown,
}

impl Default for Released {
    fn default() -> Self {
        Self::These(Arc::default())
    }
}

impl Steering {
    /// Connects to `address` are an import's.
    pub(super) fn want(&mut self, address: SocketAddr, import: u32) {
        self.imports.insert(address, import);
    }

    /// They are not that import's any more. Returns whether they were.
    pub(super) fn forget(&mut self, address: SocketAddr, import: u32) -> bool {
        let was = self.imports.get(&address) == Some(&import);
        if was {
            self.imports.remove(&address);
        }
        was
    }

    /// Whether anything may be steered. Returns whether that is new.
    pub(super) fn set_lease(&mut self, holds: bool) -> bool {
        std::mem::replace(&mut self.lapsed, !holds) == holds
    }

    /// Replaces what is not to be steered though it is an import's: all, if that is not known.
    pub(super) fn set_released(&mut self, released: ReleasedAddresses) {
        self.released = released.map_or(Released::Unknown, Released::These);
    }

    /// Whether an address is not to be steered though it may be an import's.
    pub(super) fn is_released(&self, address: &SocketAddr) -> bool {
        match &self.released {
            Released::These(released) => released.contains(&address.ip()),
            Released::Unknown => true,
        }
    }

    /// All addresses of imports.
    pub(super) fn wanted(&self) -> impl Iterator<Item = SocketAddr> {
        self.imports.keys().copied()
    }

    /// Puts into `desired` what is to be steered of `touched`.
    pub(super) fn choose(
        &self,
        touched: &HashSet<SocketAddr>,
        desired: &mut HashMap<SocketAddr, u32>,
    ) {
        for address in touched {
            let may_be = !self.lapsed && !self.is_released(address);
            match self.imports.get(address).filter(|_| may_be) {
                Some(import) => drop(desired.insert(*address, *import)),
                None => drop(desired.remove(address)),
            }
        }
    }
}

/// The addresses that the kernel steers now, for whoever has to say that one was let go. Cloning
/// shares it.
#[derive(Clone, Debug, Default)]
pub struct Steered(watch::Sender<SteeredAddresses>);

/// What is steered; `None` until that is settled. What an earlier process left in the kernel, or on
/// the node, may still be steered for a while that the controller has long taken back.
pub type SteeredAddresses = Option<Arc<BTreeSet<IpAddr>>>;

impl Steered {
    /// The addresses as they change: one that is gone is not in the kernel any more.
    pub fn subscribe(&self) -> watch::Receiver<SteeredAddresses> {
        self.0.subscribe()
    }
}

/// Keeps [`Steered`]: an address may have several ports.
#[derive(Debug)]
pub(super) struct Ports {
    by_address: HashMap<IpAddr, usize>,
    changed: BTreeSet<IpAddr>,
    steered: Steered,
    is_settled: bool,
}

impl Ports {
    pub(super) fn new(steered: Steered) -> Self {
        Self {
            by_address: HashMap::new(),
            changed: BTreeSet::new(),
            steered,
            is_settled: false,
        }
    }

    /// A port that was not steered is now.
    pub(super) fn add(&mut self, address: SocketAddr) {
        *self.by_address.entry(address.ip()).or_default() += 1;
        self.changed.insert(address.ip());
    }

    /// A port that was steered is not any more.
    pub(super) fn remove(&mut self, address: SocketAddr) {
        if let Some(ports) = self.by_address.get_mut(&address.ip()) {
            *ports -= 1;
            if *ports == 0 {
                self.by_address.remove(&address.ip());
            }
        }
        self.changed.insert(address.ip());
    }

    /// From now on everybody is told.
    pub(super) fn settle(&mut self) {
        self.is_settled = true;
        self.changed.clear();
        let all = self.by_address.keys().copied().collect();
        self.steered.0.send_replace(Some(Arc::new(all)));
    }

    /// Tells everybody.
    pub(super) fn publish(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        if !self.is_settled {
            return;
        }
        self.steered.0.send_if_modified(|all| {
            let Some(all) = all else { return false };
            let wrong =
                |address: &IpAddr| self.by_address.contains_key(address) != all.contains(address);
            let changed: Vec<IpAddr> = changed.into_iter().filter(wrong).collect();
            if changed.is_empty() {
                return false;
            }
            let all = Arc::make_mut(all);
            for address in changed {
                if !all.remove(&address) {
                    all.insert(address);
                }
            }
            true
        });
    }
}
