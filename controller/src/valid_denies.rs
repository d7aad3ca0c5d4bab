//! The last valid version of every policy that denies, so that a later mistake in its manifest, or
//! a restart in the middle of one, does not open what it closes.

mod port;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use clusterlink_model::{Policy, PolicyName};
use tokio::sync::watch;

pub(crate) use self::port::Reading;
pub use self::port::{DenyPort, Kept};
use crate::state_file::{self, StateFileError};

/// Valid denies by name, and where they are stored.
#[derive(Debug)]
pub(crate) struct ValidDenies {
    store: Store,
    denies: BTreeMap<PolicyName, Arc<Policy>>,
    /// Those that were stored by an earlier process, while no manifest of that name was seen since.
    from_before: BTreeSet<PolicyName>,
    unsaved: bool,
}

#[derive(Debug)]
enum Store {
    /// One file of this process.
    File(PathBuf),
    /// An object that somebody else reads and writes; `reading` is the last one that came, from 1.
    Object {
        reading: u64,
        kept: watch::Sender<Arc<Kept>>,
    },
}

impl ValidDenies {
    /// Reads the file. A damaged one is an error: going on without it might remove a deny.
    pub(crate) fn open(path: PathBuf) -> Result<Self, StateFileError> {
        let stored: Vec<Arc<Policy>> = state_file::read(&path)?;
        let mut denies = Self::new(Store::File(path));
        for policy in &stored {
            denies.insert_from_before(policy);
        }
        denies.unsaved = false;
        Ok(denies)
    }

    /// Stored by whoever has the port; nothing is known until that has read them.
    pub(crate) fn elsewhere() -> (Self, DenyPort, watch::Receiver<Arc<Reading>>) {
        let (kept, wanted) = watch::channel(Arc::default());
        let (port, readings) = DenyPort::new(wanted);
        let denies = Self::new(Store::Object { reading: 0, kept });
        (denies, port, readings)
    }

    fn new(store: Store) -> Self {
        Self {
            store,
            denies: BTreeMap::new(),
            from_before: BTreeSet::new(),
            unsaved: false,
        }
    }

    /// Whether it is known what was stored.
    pub(crate) fn is_read(&self) -> bool {
        !matches!(self.store, Store::Object { reading: 0, .. })
    }

    /// Notes that what was stored has been taken in.
    pub(crate) fn read(&mut self, number: u64) {
        if let Store::Object { reading, .. } = &mut self.store {
            *reading = number;
            self.unsaved = true;
        }
    }

    /// The names of all of them.
    pub(crate) fn names(&self) -> impl Iterator<Item = &PolicyName> {
        self.denies.keys()
    }

    /// The last valid deny of that name.
    pub(crate) fn get(&self, name: &PolicyName) -> Option<&Arc<Policy>> {
        self.denies.get(name)
    }

    /// Whether all that is known of it was stored by an earlier process.
    pub(crate) fn is_from_before(&self, name: &PolicyName) -> bool {
        self.from_before.contains(name)
    }

    /// Notes that this process has seen a manifest of that name.
    pub(crate) fn seen(&mut self, name: &PolicyName) {
        self.from_before.remove(name);
    }

    /// Remembers a valid deny.
    pub(crate) fn insert(&mut self, policy: &Arc<Policy>) {
        let name = policy.name.clone();
        let before = self.denies.insert(name, Arc::clone(policy));
        self.unsaved |= before.is_none_or(|before| before != *policy);
    }

    /// Remembers a valid deny that an earlier process has stored.
    pub(crate) fn insert_from_before(&mut self, policy: &Arc<Policy>) {
        self.insert(policy);
        self.from_before.insert(policy.name.clone());
    }

    /// Forgets a policy that is deleted or allows now.
    pub(crate) fn remove(&mut self, name: &PolicyName) {
        self.from_before.remove(name);
        self.unsaved |= self.denies.remove(name).is_some();
    }

    /// Stores what changed since the last success, or hands it to whoever stores it.
    pub(crate) fn save(&mut self) -> Result<(), StateFileError> {
        if !self.unsaved {
            return Ok(());
        }
        match &self.store {
            Store::File(path) => {
                let denies: Vec<&Arc<Policy>> = self.denies.values().collect();
                state_file::write_json(path, &denies)?;
            }
            Store::Object { reading, kept } => {
                kept.send_replace(Arc::new(Kept {
                    reading: *reading,
                    denies: self.denies.values().cloned().collect(),
                }));
            }
        }
        self.unsaved = false;
        Ok(())
    }
}
