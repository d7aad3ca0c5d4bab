//! What is current, and what changed since when.

use std::{collections::BTreeMap, sync::Arc};

use clusterlink_model::{Resource, ResourceKey};

use super::Change;
#[cfg(feature = "push")]
use super::owners::{Owner, Owners};

/// Current resources, and the newest change of each key for each scope.
#[derive(Debug)]
pub(super) struct Log {
    /// Revision 0 means that nothing complete was published yet.
    revision: u64,
    current: BTreeMap<ResourceKey, Arc<Entry>>,
    /// What is gone from a scope: from everywhere, or a workload from one node.
    removed: BTreeMap<(Scope, ResourceKey), u64>,
    changes: BTreeMap<Scope, BTreeMap<u64, ResourceKey>>,
    /// Removals up to this revision may have been forgotten.
    floor: u64,
    removals_kept: usize,
    #[cfg(feature = "push")]
    owners: Owners,
}

/// A resource at a revision.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) revision: u64,
    pub(crate) resource: Resource,
    scope: Scope,
    #[cfg(feature = "push")]
    encoded: std::sync::OnceLock<clusterlink_proto::Encoded>,
}

/// Whom a resource is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// Every agent.
    Everyone,
    /// The agent of one node.
    Node(Arc<str>),
    /// No agent: a workload that runs nowhere yet.
    Nobody,
}

/// Who reads.
#[derive(Debug)]
pub(super) enum Reader {
    /// A standalone peer, which is all there is.
    Everything,
    /// The agent of a node.
    #[cfg(feature = "push")]
    Node(Arc<str>),
}

/// What changed for a reader.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) upserts: Vec<Arc<Entry>>,
    pub(super) removals: Vec<ResourceKey>,
}

impl Scope {
    fn of(resource: &Resource) -> Self {
        match resource {
            Resource::Workload(workload) => workload.node.clone().map_or(Self::Nobody, Self::Node),
            Resource::Import(_)
            | Resource::Export(_)
            | Resource::Peer(_)
            | Resource::Policy(_)
            | Resource::Node(_) => Self::Everyone,
        }
    }
}

impl Reader {
    fn reads(&self, scope: &Scope) -> bool {
        match (self, scope) {
            (Self::Everything, _) => true,
            #[cfg(feature = "push")]
            (Self::Node(_), Scope::Everyone) => true,
            #[cfg(feature = "push")]
            (Self::Node(node), Scope::Node(of)) => of == node,
            #[cfg(feature = "push")]
            (Self::Node(_), Scope::Nobody) => false,
        }
    }
}

#[cfg(feature = "push")]
impl Entry {
    /// As it goes over the wire: made when it is first wanted, shared from then on.
    pub(crate) fn encoded(&self) -> &clusterlink_proto::Encoded {
        self.encoded
            .get_or_init(|| clusterlink_proto::Encoded::new(&self.resource))
    }
}

impl Log {
    pub(super) fn new(removals_kept: usize) -> Self {
        Self {
            revision: 0,
            current: BTreeMap::new(),
            removed: BTreeMap::new(),
            changes: BTreeMap::new(),
            floor: 0,
            removals_kept,
            #[cfg(feature = "push")]
            owners: Owners::default(),
        }
    }

    /// Takes changes in, in one step; returns the revision after them.
    pub(super) fn publish(&mut self, changes: impl IntoIterator<Item = Change>) -> u64 {
        self.revision = self.revision.max(1);
        for (key, resource) in changes {
            self.record(key, resource);
        }
        self.forget_old_removals();
        self.revision
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// What is current under a name.
    #[cfg(feature = "push")]
    pub(super) fn get(&self, key: &ResourceKey) -> Option<&Arc<Entry>> {
        self.current.get(key)
    }

    /// Whether a reader is given what is current under a name without asking for it.
    #[cfg(feature = "push")]
    pub(super) fn is_readable(&self, key: &ResourceKey, reader: &Reader) -> bool {
        let entry = self.current.get(key);
        entry.is_some_and(|entry| reader.reads(&entry.scope))
    }

    /// Whose an address is.
    #[cfg(feature = "push")]
    pub(super) fn owner(&self, address: std::net::IpAddr) -> Option<Owner> {
        self.owners.find(address, &self.current)
    }

    /// Everything that a reader is given.
    pub(super) fn readable(&self, reader: &Reader) -> Vec<Arc<Entry>> {
        self.current
            .values()
            .filter(|entry| reader.reads(&entry.scope))
            .cloned()
            .collect()
    }

    /// What changed for a reader after a revision; `None` if that is not known any more.
    pub(super) fn since(&self, seen: u64, reader: &Reader) -> Option<Changes> {
        if seen < self.floor {
            return None;
        }
        let mut found = Changes::default();
        for (revision, key) in self.changes_for(reader, seen) {
            match self.current.get(key) {
                // A removal from one scope says nothing of what the reader has from another.
                Some(entry) if reader.reads(&entry.scope) => {
                    if entry.revision == revision {
                        found.upserts.push(Arc::clone(entry));
                    }
                }
                _ => found.removals.push(key.clone()),
            }
        }
        Some(found)
    }

    fn changes_for(&self, reader: &Reader, seen: u64) -> impl Iterator<Item = (u64, &ResourceKey)> {
        let scopes: Vec<&BTreeMap<u64, ResourceKey>> = match reader {
            Reader::Everything => self.changes.values().collect(),
            #[cfg(feature = "push")]
            Reader::Node(node) => [Scope::Everyone, Scope::Node(Arc::clone(node))]
                .iter()
                .filter_map(|scope| self.changes.get(scope))
                .collect(),
        };
        scopes
            .into_iter()
            .flat_map(move |changes| changes.range(seen + 1..))
            .map(|(revision, key)| (*revision, key))
    }

    fn record(&mut self, key: ResourceKey, resource: Option<Resource>) {
        let old = self.current.get(&key).cloned();
        match (&old, &resource) {
            (Some(old), Some(new)) if old.resource == *new => return,
            (None, None) => return,
            _ => {}
        }
        let scope = resource.as_ref().map(Scope::of);
        if let Some(old) = &old {
            self.forget_change(&old.scope, old.revision);
            #[cfg(feature = "push")]
            self.owners.remove(&key, &old.resource);
            if scope.as_ref() != Some(&old.scope) {
                let revision = self.note_change(&old.scope, &key);
                (self.removed).insert((old.scope.clone(), key.clone()), revision);
            }
        }
        let Some((resource, scope)) = resource.zip(scope) else {
            self.current.remove(&key);
            return;
        };
        let place = (scope, key);
        if let Some(revision) = self.removed.remove(&place) {
            self.forget_change(&place.0, revision);
        }
        let (scope, key) = place;
        let revision = self.note_change(&scope, &key);
        #[cfg(feature = "push")]
        self.owners.insert(&key, &resource);
        let entry = Entry {
            revision,
            resource,
            scope,
            #[cfg(feature = "push")]
            encoded: std::sync::OnceLock::new(),
        };
        self.current.insert(key, Arc::new(entry));
    }

    fn note_change(&mut self, scope: &Scope, key: &ResourceKey) -> u64 {
        self.revision += 1;
        self.changes
            .entry(scope.clone())
            .or_default()
            .insert(self.revision, key.clone());
        self.revision
    }

    fn forget_change(&mut self, scope: &Scope, revision: u64) {
        if let Some(changes) = self.changes.get_mut(scope) {
            changes.remove(&revision);
            if changes.is_empty() {
                self.changes.remove(scope);
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
        let forgotten: Vec<_> = self
            .removed
            .extract_if(.., |_, revision| *revision <= newest_forgotten)
            .collect();
        for ((scope, _), revision) in forgotten {
            self.forget_change(&scope, revision);
        }
        self.floor = newest_forgotten;
    }
}
