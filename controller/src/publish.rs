//! Hands every subscriber a complete snapshot, then what changed since it last asked.
//!
//! ```text
//! publish(changes) ─▶ Log: current resources + newest change of each key ─▶ Subscription::next
//! ```
//! The log names each key once, at its newest revision, so that a slow subscriber sees only the
//! newest state, and memory is bounded by the number of resources and a fixed number of removals.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clusterlink_model::{Resource, ResourceKey, Update};
use tokio::sync::watch;

/// How many removals are remembered for subscribers that lag behind. One that lags further is
/// given a complete snapshot again.
const REMEMBERED_REMOVALS: usize = 65_536;

/// A resource's new state; `None` when it is gone.
pub(crate) type Change = (ResourceKey, Option<Resource>);

/// The writing end: there is one, owned by the index task.
#[derive(Debug)]
pub(crate) struct Publisher {
    log: Arc<Mutex<Log>>,
    revision: watch::Sender<u64>,
}

/// One reader of the controller's knowledge.
#[derive(Debug)]
pub struct Subscription {
    log: Arc<Mutex<Log>>,
    revision: watch::Receiver<u64>,
    /// The revision that this subscriber has; 0 is nothing at all.
    seen: u64,
}

/// Lets others subscribe without owning the writing end.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    log: Arc<Mutex<Log>>,
    revision: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Log {
    /// Revision 0 means that nothing complete was published yet.
    revision: u64,
    current: BTreeMap<ResourceKey, (u64, Resource)>,
    removed: BTreeMap<ResourceKey, u64>,
    changes: BTreeMap<u64, ResourceKey>,
    /// Removals up to this revision may have been forgotten.
    floor: u64,
    removals_kept: usize,
}

impl Publisher {
    /// An empty log, from which nothing can be read before the first [`Self::publish`].
    pub(crate) fn new() -> Self {
        Self::with_removals_kept(REMEMBERED_REMOVALS)
    }

    fn with_removals_kept(removals_kept: usize) -> Self {
        let log = Log {
            revision: 0,
            current: BTreeMap::new(),
            removed: BTreeMap::new(),
            changes: BTreeMap::new(),
            floor: 0,
            removals_kept,
        };
        Self {
            log: Arc::new(Mutex::new(log)),
            revision: watch::Sender::new(0),
        }
    }

    /// Makes `changes` visible in one step. The first call closes the complete snapshot.
    pub(crate) fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let revision = {
            let mut log = lock(&self.log);
            if log.revision == 0 {
                log.revision = 1;
            }
            for (key, resource) in changes {
                log.record(key, resource);
            }
            log.forget_old_removals();
            log.revision
        };
        self.revision
            .send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
    }

    /// A handle that makes subscriptions.
    pub(crate) fn subscriber(&self) -> Subscriber {
        Subscriber {
            log: Arc::clone(&self.log),
            revision: self.revision.subscribe(),
        }
    }
}

impl Subscriber {
    /// A new reader that has nothing yet.
    pub(crate) fn subscribe(&self) -> Subscription {
        Subscription {
            log: Arc::clone(&self.log),
            revision: self.revision.clone(),
            seen: 0,
        }
    }
}

impl Subscription {
    /// Waits for news: first the complete snapshot, then what changed since. `None` once the
    /// controller has stopped. May be cancelled without losing anything.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            if *self.revision.borrow_and_update() > self.seen {
                return Some(self.catch_up());
            }
            self.revision.changed().await.ok()?;
        }
    }

    fn catch_up(&mut self) -> Update {
        let log = lock(&self.log);
        let update = if self.seen == 0 || self.seen < log.floor {
            Update {
                upserts: log
                    .current
                    .values()
                    .map(|(_, resource)| resource.clone())
                    .collect(),
                removals: Vec::new(),
                complete: true,
            }
        } else {
            log.since(self.seen)
        };
        self.seen = log.revision;
        update
    }
}

impl Log {
    fn record(&mut self, key: ResourceKey, resource: Option<Resource>) {
        let previous = match (self.current.get(&key), &resource) {
            (Some((_, old)), Some(new)) if old == new => return,
            (None, None) => return,
            (Some((revision, _)), _) => Some(*revision),
            (None, _) => self.removed.remove(&key),
        };
        if let Some(revision) = previous {
            self.changes.remove(&revision);
        }
        self.revision += 1;
        self.changes.insert(self.revision, key.clone());
        match resource {
            Some(resource) => {
                self.current.insert(key, (self.revision, resource));
            }
            None => {
                self.current.remove(&key);
                self.removed.insert(key, self.revision);
            }
        }
    }

    fn forget_old_removals(&mut self) {
        if self.removed.len() <= self.removals_kept {
            return;
        }
        // Half of them go at once, so that the walk below is rare.
        let mut revisions: Vec<u64> = self.removed.values().copied().collect();
        let (_, &mut newest_forgotten, _) = revisions.select_nth_unstable(self.removed.len() / 2);
        self.removed
            .retain(|_, revision| *revision > newest_forgotten);
        for revision in revisions
            .into_iter()
            .filter(|revision| *revision <= newest_forgotten)
        {
            self.changes.remove(&revision);
        }
        self.floor = newest_forgotten;
    }

    fn since(&self, seen: u64) -> Update {
        let mut update = Update::default();
        for key in self.changes.range(seen + 1..).map(|(_, key)| key) {
            match self.current.get(key) {
                Some((_, resource)) => update.upserts.push(resource.clone()),
                None => update.removals.push(key.clone()),
            }
        }
        update
    }
}

/// A poisoned log is still whole: nothing in [`Log`] is left half-written by a panic elsewhere.
fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
