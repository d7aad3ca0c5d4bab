//! The kernel's table of target ports as it should be and as it is. Who comes by them is judged by the
//! gateway alone, so that no order of writes lets anybody in.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use crate::datapath::{Datapath, DatapathError};

/// The ports of the Service path.
pub(super) struct Targets {
    datapath: Arc<dyn Datapath>,
    held: HashMap<SocketAddr, u32>,
    /// What the gateway is told of them.
    desired: Arc<HashMap<SocketAddr, u32>>,
    /// What may differ between the two.
    touched: HashSet<SocketAddr>,
}

impl Targets {
    /// Takes over what an earlier process left: what an import that is still `known` may stand for is
    /// kept from other listeners until the first [`replace`](Self::replace).
    pub(super) fn take_over(
        datapath: Arc<dyn Datapath>,
        known: impl Fn(u32) -> bool,
    ) -> Result<Self, DatapathError> {
        let mut held = HashMap::new();
        for (address, import) in datapath.targets()? {
            if known(import) {
                held.insert(address, import);
            } else {
                datapath.remove_target(address)?;
            }
        }
        Ok(Self {
            datapath,
            touched: held.keys().copied().collect(),
            held,
            desired: Arc::default(),
        })
    }

    /// The numbers of imports by the ports that they are to be reached at.
    pub(super) fn desired(&self) -> Arc<HashMap<SocketAddr, u32>> {
        self.desired.clone()
    }

    /// Replaces the ports of some imports: `gone` are those that were theirs, `new` those that are. A
    /// port may pass from one import to another.
    pub(super) fn replace(
        &mut self,
        gone: impl Iterator<Item = (SocketAddr, u32)>,
        new: impl Iterator<Item = (SocketAddr, u32)>,
    ) {
        let (gone, new): (Vec<_>, Vec<_>) = (gone.collect(), new.collect());
        if gone == new {
            return;
        }
        let desired = Arc::make_mut(&mut self.desired);
        for (address, import) in gone {
            if desired.get(&address) == Some(&import) {
                desired.remove(&address);
            }
            self.touched.insert(address);
        }
        for (address, import) in new {
            desired.insert(address, import);
            self.touched.insert(address);
        }
    }

    /// The imports of ports that the kernel does not hold (yet).
    pub(super) fn unwritten(&self) -> impl Iterator<Item = &u32> {
        (self.touched.iter()).filter_map(|address| self.desired.get(address))
    }

    /// Whether [`write`](Self::write) has anything to do.
    pub(super) fn is_pending(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Makes the kernel hold what is desired; what cannot be written is tried again by the next call.
    /// Returns the first error.
    pub(super) fn write(&mut self) -> Option<DatapathError> {
        let mut first = None;
        let touched = std::mem::take(&mut self.touched);
        // A full table has room for what comes once that is gone that goes.
        let (set, removed): (Vec<_>, Vec<_>) = touched
            .into_iter()
            .partition(|address| self.desired.contains_key(address));
        for address in removed.into_iter().chain(set) {
            if let Err(error) = self.write_one(address) {
                self.touched.insert(address);
                first.get_or_insert(error);
            }
        }
        first
    }

    fn write_one(&mut self, address: SocketAddr) -> Result<(), DatapathError> {
        let (desired, held) = (self.desired.get(&address), self.held.get(&address));
        match (desired, held) {
            (desired, held) if desired == held => {}
            (Some(&import), _) => {
                self.datapath.set_target(address, import)?;
                self.held.insert(address, import);
            }
            (None, _) => {
                self.datapath.remove_target(address)?;
                self.held.remove(&address);
            }
        }
        Ok(())
    }
}
