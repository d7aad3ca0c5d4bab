//! Hands every subscriber a complete snapshot, then what changed since it last asked.
//!
//! ```text
//! publish(changes) ─▶ Log: current resources + newest change of each key ─▶ Subscription::next
//!                                                                        └▶ NodeView, for agents
//! ```
//! The log names each key once, at its newest revision, so that a slow subscriber sees only the
//! newest state, and memory is bounded by the number of resources and a fixed number of removals.

mod log;
#[cfg(feature = "push")]
mod node_view;
#[cfg(feature = "push")]
mod on_demand;
#[cfg(feature = "push")]
mod owners;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clusterlink_model::{Resource, ResourceKey, Update};
use tokio::sync::watch;

use self::log::{Log, Reader};
#[cfg(feature = "push")]
pub(crate) use self::{
    log::Entry,
    node_view::{Batch, Held, HeldVersion, NodeView},
    owners::Owner,
};

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
pub struct Subscriber {
    log: Arc<Mutex<Log>>,
    revision: watch::Receiver<u64>,
}

impl Publisher {
    /// An empty log, from which nothing can be read before the first [`Self::publish`].
    pub(crate) fn new() -> Self {
        Self::with_removals_kept(REMEMBERED_REMOVALS)
    }

    fn with_removals_kept(removals_kept: usize) -> Self {
        Self {
            log: Arc::new(Mutex::new(Log::new(removals_kept))),
            revision: watch::Sender::new(0),
        }
    }

    /// Makes `changes` visible in one step. The first call closes the complete snapshot.
    pub(crate) fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let revision = lock(&self.log).publish(changes);
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
        let since = match self.seen {
            0 => None,
            seen => log.since(seen, &Reader::Everything),
        };
        let (entries, removals, complete) = match since {
            Some(changes) => (changes.upserts, changes.removals, false),
            None => (log.readable(&Reader::Everything), Vec::new(), true),
        };
        let update = Update {
            upserts: (entries.iter())
                .map(|entry| entry.resource.clone())
                .collect(),
            removals,
            complete,
        };
        self.seen = log.revision();
        update
    }
}

/// A poisoned log is still whole: nothing in [`Log`] is left half-written by a panic elsewhere.
fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
