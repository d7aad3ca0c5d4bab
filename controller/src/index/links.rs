//! Which objects refer to a key, so that a change of the key's object finds them.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use clusterlink_model::ObjectName;

/// From a key to the names of the objects that refer to it.
#[derive(Debug)]
pub(crate) struct Links<K> {
    by_key: HashMap<K, BTreeSet<ObjectName>>,
}

impl<K> Default for Links<K> {
    fn default() -> Self {
        Self {
            by_key: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash> Links<K> {
    /// The objects that refer to `key`, in order.
    pub(crate) fn get(&self, key: &K) -> impl Iterator<Item = &ObjectName> {
        self.by_key.get(key).into_iter().flatten()
    }

    /// Moves `object` from its old keys to its new ones.
    pub(crate) fn relink_all(&mut self, object: &ObjectName, old: &BTreeSet<K>, new: &BTreeSet<K>)
    where
        K: Ord + Clone,
    {
        for key in old.difference(new) {
            self.relink(object, Some(key.clone()), None);
        }
        for key in new.difference(old) {
            self.relink(object, None, Some(key.clone()));
        }
    }

    /// Moves `object` from its old key to its new one.
    pub(crate) fn relink(&mut self, object: &ObjectName, old: Option<K>, new: Option<K>) {
        if let Some(old) = old
            && let Some(objects) = self.by_key.get_mut(&old)
        {
            objects.remove(object);
            if objects.is_empty() {
                self.by_key.remove(&old);
            }
        }
        if let Some(new) = new {
            self.by_key.entry(new).or_default().insert(object.clone());
        }
    }
}
