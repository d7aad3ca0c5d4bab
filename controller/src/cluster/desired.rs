//! What is to be written to the API server, by object: the newest wish replaces the one before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clusterlink_model::ObjectName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use tokio::sync::watch;

/// The kinds that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A Service.
    Service,
    /// An EndpointSlice.
    EndpointSlice,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: ObjectName,
}

/// What has to be done to an object so that it is as it should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// It is to be made.
    Create {
        /// The whole object.
        object: Value,
        /// The object to make if the first is refused because of what it asks for.
        otherwise: Option<Value>,
    },
    /// Some of it is to be changed.
    Patch {
        /// A merge patch with UID and resource version of the object that it is based on.
        patch: Value,
    },
    /// It is to be deleted.
    Delete {
        /// The one that is meant, not another of the same name.
        uid: String,
        /// As it was seen: what somebody has changed since is looked at again first.
        resource_version: String,
    },
}

impl Write {
    /// Deletes an object as it was seen.
    pub(crate) fn delete(observed: &ObjectMeta) -> Self {
        Self::Delete {
            uid: observed.uid.clone().unwrap_or_default(),
            resource_version: observed.resource_version.clone().unwrap_or_default(),
        }
    }
}

/// The writes that are wanted now, shared by the index, which knows what is, and the writer.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    wanted: watch::Sender<u64>,
    failed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    writes: BTreeMap<WriteKey, Arc<Write>>,
    changed: BTreeSet<WriteKey>,
    failures: BTreeMap<WriteKey, String>,
    failed: BTreeSet<WriteKey>,
    held: bool,
    /// How often a hold has ended.
    releases: u64,
}

impl Kind {
    /// Its name in Kubernetes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for WriteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl Desired {
    /// The write that is wanted for an object.
    pub fn get(&self, key: &WriteKey) -> Option<Arc<Write>> {
        self.lock().writes.get(key).cloned()
    }

    /// All writes that are wanted.
    pub fn all(&self) -> BTreeMap<WriteKey, Arc<Write>> {
        self.lock().writes.clone()
    }

    /// Tells when there is something to take with [`Self::take_changed`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.wanted.subscribe()
    }

    /// The objects whose writes have changed since the last call.
    pub fn take_changed(&self) -> BTreeSet<WriteKey> {
        std::mem::take(&mut self.lock().changed)
    }

    /// Whether nothing is to be written for now, since it may be decided upon what is old.
    pub fn is_held(&self) -> bool {
        self.lock().held
    }

    /// How often what is decided upon was old and is no more: everything was read anew then, so what is
    /// still wanted is not on its way.
    pub(crate) fn releases(&self) -> u64 {
        self.lock().releases
    }

    /// Notes how a write went, for the status of its Import; the text is for people.
    pub fn report(&self, key: &WriteKey, failure: Option<String>) {
        let mut table = self.lock();
        let before = table.failures.get(key);
        if before == failure.as_ref() {
            return;
        }
        match failure {
            Some(failure) => table.failures.insert(key.clone(), failure),
            None => table.failures.remove(key),
        };
        table.failed.insert(key.clone());
        drop(table);
        self.shared.failed.send_modify(|count| *count += 1);
    }

    /// Replaces what is wanted for an object.
    pub(crate) fn set(&self, key: WriteKey, write: Option<Write>) {
        let mut table = self.lock();
        match write {
            Some(write) => {
                if table
                    .writes
                    .get(&key)
                    .is_some_and(|before| **before == write)
                {
                    return;
                }
                table.writes.insert(key.clone(), Arc::new(write));
            }
            None => {
                table.failures.remove(&key);
                if table.writes.remove(&key).is_none() {
                    return;
                }
            }
        }
        table.changed.insert(key);
        drop(table);
        self.shared.wanted.send_modify(|count| *count += 1);
    }

    /// Says that nothing is to be written for now, or that all may be again.
    pub(crate) fn hold(&self, held: bool) {
        let mut table = self.lock();
        let was = std::mem::replace(&mut table.held, held);
        table.releases += u64::from(was && !held);
        drop(table);
        if was != held {
            self.shared.wanted.send_modify(|count| *count += 1);
        }
    }

    /// Why an object could not be written, if it could not.
    pub(crate) fn failure(&self, key: &WriteKey) -> Option<String> {
        self.lock().failures.get(key).cloned()
    }

    /// Tells when there is something to take with [`Self::take_failed`].
    pub(crate) fn failures(&self) -> watch::Receiver<u64> {
        self.shared.failed.subscribe()
    }

    /// The objects whose writes went differently since the last call.
    pub(crate) fn take_failed(&self) -> BTreeSet<WriteKey> {
        std::mem::take(&mut self.lock().failed)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each entry is whole, so a poisoned table is still right.
        self.shared
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
