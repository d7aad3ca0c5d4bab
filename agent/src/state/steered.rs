//! Which addresses are steered: those of the imports, as long as the node's lease on them holds.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

/// What is to be steered.
#[derive(Debug, Default)]
pub(super) struct Steering {
    imports: HashMap<SocketAddr, u32>,
    lapsed: bool,
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
            match self.imports.get(address).filter(|_| !self.lapsed) {
                Some(import) => drop(desired.insert(*address, *import)),
                None => drop(desired.remove(address)),
            }
        }
    }
}

/// The addresses that the kernel steers now, for whoever has to say that one was let go.
#[derive(Clone, Debug, Default)]
pub struct Steered(Arc<RwLock<HashMap<IpAddr, HashSet<u16>>>>);

impl Steered {
    /// Whether connects to any port of `address` are steered.
    pub fn contains(&self, address: &IpAddr) -> bool {
        let steered = self.0.read().unwrap_or_else(PoisonError::into_inner);
        steered.contains_key(address)
    }

    pub(super) fn set(&self, address: SocketAddr, steered: bool) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if steered {
            all.entry(address.ip()).or_default().insert(address.port());
        } else if let Some(ports) = all.get_mut(&address.ip()) {
            ports.remove(&address.port());
            if ports.is_empty() {
                all.remove(&address.ip());
            }
        }
    }
}
