//! What is to be looked at again, and when. With thousands of entries the next one is found at once.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::status::news::Key;

/// Each object has one time at most.
#[derive(Debug, Default)]
pub(super) struct Later {
    times: BTreeMap<Key, Instant>,
    order: BTreeSet<(Instant, Key)>,
}

impl Later {
    /// An object's time is this one, whatever it was.
    pub(super) fn set(&mut self, key: &Key, at: Instant) {
        self.remove(key);
        self.times.insert(key.clone(), at);
        self.order.insert((at, key.clone()));
    }

    /// An object's time is this one, unless an earlier one is set.
    pub(super) fn set_earlier(&mut self, key: &Key, at: Instant) {
        if self.times.get(key).is_none_or(|known| at < *known) {
            self.set(key, at);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some((key, at)) = self.times.remove_entry(key) {
            self.order.remove(&(at, key));
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The earliest time of all.
    pub(super) fn first(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out an object whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Key> {
        self.first().filter(|at| *at <= now)?;
        let (_, key) = self.order.pop_first()?;
        self.times.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clusterlink_model::ObjectName;

    use super::*;

    #[test]
    fn each_object_comes_up_once_at_its_last_time() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Key::Import(ObjectName::new("ns", name)));
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut later = Later::default();
        later.set(&a, at(1));
        later.set(&a, at(3));
        later.set_earlier(&b, at(4));
        later.set_earlier(&b, at(2));
        later.set_earlier(&b, at(5));
        later.set(&c, at(1));
        later.remove(&c);
        assert_eq!((later.first(), later.pop(at(1))), (Some(at(2)), None));
        assert_eq!(later.pop(at(3)), Some(b));
        assert_eq!(later.pop(at(3)), Some(a));
        assert_eq!((later.first(), later.pop(at(9))), (None, None));
        assert!(later.times.is_empty());
    }
}
