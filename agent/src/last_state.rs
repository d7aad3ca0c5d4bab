//! What the node was told last, kept on the node: an agent that starts while the controller is away
//! serves from it.
//!
//! ```text
//! controller ─Update─▶ LastState ─Update─▶ state
//!                       │    ▲ when the controller does not answer
//!                       ▼    │
//!                      Keeper: state-dir/last-state (a snapshot, then what changed)
//! ```
//! It counts in the boot in which it was written, and there alone: the pods, cgroups and addresses
//! that it names are gone with the boot. For the same reason nothing waits for the disk.

mod contact;
mod journal;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clusterlink_model::{Resource, ResourceKey, Snapshot, Update};
use tokio::{sync::Notify, time::Instant};
use tracing::{error, info, warn};

use self::journal::{Found, Journal};
pub use self::{contact::LastContact, journal::Origin};
use crate::control::Updates;

/// How long the controller has to answer before the stored state is served.
const PATIENCE: Duration = Duration::from_secs(1);

/// Changes are written together, this often at most.
const PAUSE: Duration = Duration::from_secs(1);

/// What an earlier process was told.
pub struct Stored {
    journal: Journal,
    snapshot: Option<Snapshot>,
}

/// The updates of a controller, preceded by what it said to an earlier process if it is away. The
/// controller may be told what is stored, and say only what is different now.
pub struct LastState<U> {
    controller: U,
    stored: Option<Snapshot>,
    deadline: Option<Instant>,
    keeper: Arc<Keeper>,
}

/// Writes down what the node is told.
pub struct Keeper {
    pending: Mutex<Pending>,
    changed: Notify,
    journal: Mutex<Journal>,
}

/// What was not written yet: the newest state of each resource, so that it has a bound.
#[derive(Default)]
struct Pending {
    complete: bool,
    changes: BTreeMap<ResourceKey, Option<Resource>>,
}

impl Stored {
    /// Reads what is stored in `state_dir`, if it is from this boot and `origin` wrote it. What is
    /// damaged is moved aside and named.
    pub fn read(state_dir: &Path, origin: Origin) -> Self {
        let (journal, found) = Journal::open(state_dir, origin);
        let snapshot = match found {
            Found::Nothing => None,
            Found::Outdated(why) => {
                info!(
                    why,
                    "the stored state does not count; waiting for the controller"
                );
                None
            }
            Found::Damaged { aside, why } => {
                warn!(
                    moved_to = %aside.display(),
                    why,
                    "the stored state is damaged and was moved aside; waiting for the controller"
                );
                None
            }
            Found::Snapshot(snapshot) => Some(snapshot),
        };
        Self { journal, snapshot }
    }

    /// What is stored, if it counts.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }
}

impl<U: Updates> LastState<U> {
    /// Puts what is stored before what `controller` says.
    pub fn new(stored: Stored, controller: U) -> Self {
        let Stored { journal, snapshot } = stored;
        Self {
            controller,
            stored: snapshot,
            deadline: None,
            keeper: Arc::new(Keeper {
                pending: Mutex::default(),
                changed: Notify::new(),
                journal: Mutex::new(journal),
            }),
        }
    }

    /// What writes the state down; its [`Keeper::run`] has to be spawned.
    pub fn keeper(&self) -> Arc<Keeper> {
        self.keeper.clone()
    }
}

impl<U: Updates> Updates for LastState<U> {
    async fn next(&mut self) -> Option<Update> {
        if self.stored.is_some() {
            // This future is dropped and made anew while it waits: the deadline is not.
            let deadline = *(self.deadline).get_or_insert_with(|| Instant::now() + PATIENCE);
            match tokio::time::timeout_at(deadline, self.controller.next()).await {
                Ok(None) => return None,
                Ok(Some(update)) => {
                    let mut stored = self.stored.take().filter(|_| !update.complete);
                    let update = match &mut stored {
                        None => update,
                        // The node has nothing yet: it gets all at once, not what is old first.
                        Some(stored) => {
                            stored.apply(update);
                            stored.to_update()
                        }
                    };
                    return self.keeper.noted(update);
                }
                Err(_) => {
                    warn!(
                        "the controller does not answer: serving from what it said last, until it does"
                    );
                    return self.stored.take().map(|stored| stored.to_update());
                }
            }
        }
        let update = self.controller.next().await?;
        self.keeper.noted(update)
    }
}

impl Keeper {
    /// Writes changes down as they come.
    pub async fn run(self: Arc<Self>) -> &'static str {
        loop {
            self.changed.notified().await;
            let keeper = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || keeper.flush()).await {
                error!(%error, "the last state could not be written");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Writes down what was not written yet.
    pub fn flush(&self) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let Pending { complete, changes } = std::mem::take(&mut *self.pending());
        if !complete && changes.is_empty() {
            return;
        }
        let mut update = Update {
            complete,
            ..Update::default()
        };
        for (key, resource) in changes {
            match resource {
                Some(resource) => update.upserts.push(resource),
                None => update.removals.push(key),
            }
        }
        if let Err(error) = journal.write(update) {
            warn!(
                error = crate::chain(&error),
                "the last state is not kept; a restart without the controller would not serve"
            );
        }
    }

    fn noted(&self, update: Update) -> Option<Update> {
        let mut pending = self.pending();
        if update.complete {
            pending.complete = true;
            pending.changes.clear();
        }
        let upserts = (update.upserts.iter()).map(|one| (one.key(), Some(one.clone())));
        let removals = update.removals.iter().map(|key| (key.clone(), None));
        pending.changes.extend(removals.chain(upserts));
        drop(pending);
        self.changed.notify_one();
        Some(update)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
