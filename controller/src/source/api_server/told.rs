//! What is wrong with what the API server gives, as the problems of the source.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::runtime::watcher;
use tokio::sync::watch;

use crate::source::{Place, Problem};

/// Where problems of this source are, for people.
const PLACE: &str = "the API server";

/// The problems of all kinds.
pub(super) struct Told {
    state: Mutex<BTreeMap<Key, Problem>>,
    sender: watch::Sender<Arc<Vec<Problem>>>,
}

/// A kind, and an object of it; none stands for the watch of the kind.
type Key = (String, Option<String>);

impl Told {
    pub(super) fn new(sender: watch::Sender<Arc<Vec<Problem>>>) -> Self {
        Self {
            state: Mutex::default(),
            sender,
        }
    }

    /// An object cannot be decoded.
    pub(super) fn invalid(&self, kind: &str, object: &str, error: &str, stale: bool) {
        let stays = if stale {
            "; what was last read of it stays in force"
        } else {
            ""
        };
        let message = format!(
            "cannot be decoded ({error}): correct it, or delete it and apply it again{stays}"
        );
        let problem = problem(kind, Some(object), message, stale);
        tracing::warn!(
            kind,
            object,
            error,
            "an object cannot be decoded and is skipped"
        );
        self.change(|problems| {
            problems.insert((kind.to_owned(), Some(object.to_owned())), problem)
        });
    }

    /// An object can be decoded, or is gone.
    pub(super) fn valid(&self, kind: &str, object: &str) {
        self.change(|problems| problems.remove(&(kind.to_owned(), Some(object.to_owned()))));
    }

    /// A list of a kind is complete: what is not in it has no problems.
    pub(super) fn listed(&self, kind: &str, invalid: &BTreeSet<String>) {
        self.change(|problems| {
            let before = problems.len();
            problems.retain(|(of, object), _| {
                of != kind
                    || object
                        .as_ref()
                        .is_none_or(|object| invalid.contains(object))
            });
            (problems.len() != before).then_some(())
        });
    }

    /// A kind cannot be watched now.
    pub(super) fn watch_failed(&self, kind: &str, error: &watcher::Error) {
        let message = format!(
            "cannot be watched ({error}); it is tried again, and what was last read stays in force"
        );
        let problem = problem(kind, None, message, false);
        tracing::warn!(kind, %error, "the watch has failed and is tried again");
        self.change(|problems| {
            let before = problems.insert((kind.to_owned(), None), problem.clone());
            (before.as_ref() != Some(&problem)).then_some(())
        });
    }

    /// A kind can be watched again.
    pub(super) fn watch_works(&self, kind: &str) {
        self.change(|problems| problems.remove(&(kind.to_owned(), None)));
    }

    /// Changes the problems, and publishes them if the change says that it was one.
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<Key, Problem>) -> Option<T>) {
        let mut problems = self.lock();
        let before = problems.len();
        if change(&mut problems).is_some() || problems.len() != before {
            let mut all: Vec<_> = problems.values().cloned().collect();
            all.sort();
            self.sender.send_replace(Arc::new(all));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Problem>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn problem(kind: &str, object: Option<&str>, message: String, stale: bool) -> Problem {
    Problem {
        place: Place {
            file: PLACE.to_owned(),
            document: None,
            line: None,
        },
        kind: Some(kind.to_owned()),
        object: object.map(str::to_owned),
        field: None,
        message,
        stale,
    }
}
