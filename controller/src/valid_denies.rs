//! The last valid version of every policy that denies, so that a later mistake in its manifest, or
//! a restart in the middle of one, does not open what it closes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use clusterlink_model::{Policy, PolicyName};

use crate::state_file::{self, StateFileError};

/// Valid denies by name, stored in one file.
#[derive(Debug)]
pub(crate) struct ValidDenies {
    path: PathBuf,
    denies: BTreeMap<PolicyName, Arc<Policy>>,
    /// Those that were read from the file, while no manifest of that name was seen since.
    from_before: BTreeSet<PolicyName>,
    unsaved: bool,
}

impl ValidDenies {
    /// Reads the file. A damaged one is an error: going on without it might remove a deny.
    pub(crate) fn open(path: PathBuf) -> Result<Self, StateFileError> {
        let stored: Vec<Arc<Policy>> = state_file::read(&path)?;
        let denies: BTreeMap<_, _> = stored
            .into_iter()
            .map(|policy| (policy.name.clone(), policy))
            .collect();
        let from_before = denies.keys().cloned().collect();
        Ok(Self {
            path,
            denies,
            from_before,
            unsaved: false,
        })
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

    /// Forgets a policy that is deleted or allows now.
    pub(crate) fn remove(&mut self, name: &PolicyName) {
        self.from_before.remove(name);
        self.unsaved |= self.denies.remove(name).is_some();
    }

    /// Stores what changed since the last success.
    pub(crate) fn save(&mut self) -> Result<(), StateFileError> {
        if self.unsaved {
            let denies: Vec<&Arc<Policy>> = self.denies.values().collect();
            state_file::write_json(&self.path, &denies)?;
            self.unsaved = false;
        }
        Ok(())
    }
}
