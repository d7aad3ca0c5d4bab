//! Readiness as a set of named blockers: a start that takes long can say what it waits for.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// What the process still waits for.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    blockers: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// Blocks readiness until it is dropped.
#[derive(Debug)]
#[must_use = "readiness is blocked only as long as this lives"]
pub struct Blocker {
    readiness: Readiness,
    what: &'static str,
}

impl Readiness {
    /// Blocks readiness; `what` completes the sentence "waiting for …".
    pub fn block(&self, what: &'static str) -> Blocker {
        self.lock().insert(what);
        Blocker {
            readiness: self.clone(),
            what,
        }
    }

    /// What is waited for; nothing means ready.
    pub fn blockers(&self) -> Vec<&'static str> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        self.blockers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        self.readiness.lock().remove(self.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_the_last_blocker_is_gone() {
        let readiness = Readiness::default();
        let (one, two) = (readiness.block("one"), readiness.block("two"));
        drop(two);
        assert_eq!(readiness.blockers(), ["one"]);
        drop(one);
        assert!(readiness.blockers().is_empty());
    }
}
