//! The status of every object, kept up to date one object at a time.

use std::{collections::BTreeMap, sync::Arc};

use clusterlink_model::{ObjectName, PolicyName};

use super::{
    ControllerStatus, ExportStatus, ImportStatus, PeerObjectStatus, PolicyStatus, WorkloadStatus,
    news::{Collector, Entry, Judged, Key},
};
use crate::source::Problem;

/// Everything that [`ControllerStatus`] is built from.
#[derive(Debug, Default)]
pub(crate) struct Board {
    generation: u64,
    complete: bool,
    problems: Vec<Problem>,
    pub(crate) imports: Table<ObjectName, ImportStatus>,
    pub(crate) exports: Table<ObjectName, ExportStatus>,
    pub(crate) peers: Table<ObjectName, PeerObjectStatus>,
    pub(crate) policies: Table<PolicyName, PolicyStatus>,
    pub(crate) workloads: Table<ObjectName, WorkloadStatus>,
    built: Option<Arc<ControllerStatus>>,
    pub(crate) news: Collector,
}

/// A policy of either kind.
#[derive(Debug)]
pub(crate) enum PolicyObject {
    Namespaced(Arc<clusterlink_crds::AccessPolicy>),
    Privileged(Arc<clusterlink_crds::PrivilegedAccessPolicy>),
}

/// The entries of one kind.
#[derive(Debug)]
pub(crate) struct Table<K, S> {
    entries: BTreeMap<K, Arc<S>>,
    changed: bool,
}

impl<K, S> Default for Table<K, S> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            changed: false,
        }
    }
}

impl<K: Ord, S: PartialEq> Table<K, S> {
    /// The entry of that name.
    pub(crate) fn get(&self, name: &K) -> Option<&Arc<S>> {
        self.entries.get(name)
    }

    /// Sets or removes an entry, and gives what there is now.
    pub(crate) fn set(&mut self, name: K, status: Option<S>) -> Option<Arc<S>> {
        let Some(status) = status else {
            self.changed |= self.entries.remove(&name).is_some();
            return None;
        };
        if let Some(before) = self.entries.get(&name)
            && **before == status
        {
            return Some(Arc::clone(before));
        }
        self.changed = true;
        let status = Arc::new(status);
        self.entries.insert(name, Arc::clone(&status));
        Some(status)
    }
}

impl Board {
    /// Sets or removes an Export's status, with the version of the object that it speaks of.
    pub(crate) fn export(
        &mut self,
        name: ObjectName,
        judged: Option<(ExportStatus, &Arc<clusterlink_crds::Export>)>,
    ) {
        let (status, object) = judged.unzip();
        let entry = self.exports.set(name.clone(), status).zip(object);
        let entry = entry.map(|(status, object)| Entry::Export(Judged::of(status, object)));
        self.news.note(Key::Export(name), entry);
    }

    /// Sets or removes an Import's status, with the version of the object that it speaks of.
    pub(crate) fn import(
        &mut self,
        name: ObjectName,
        judged: Option<(ImportStatus, &Arc<clusterlink_crds::Import>)>,
    ) {
        let (status, object) = judged.unzip();
        let entry = self.imports.set(name.clone(), status).zip(object);
        let entry = entry.map(|(status, object)| Entry::Import(Judged::of(status, object)));
        self.news.note(Key::Import(name), entry);
    }

    /// Sets or removes a Peer's status, with the version of the object that it speaks of.
    pub(crate) fn peer(
        &mut self,
        name: ObjectName,
        judged: Option<(PeerObjectStatus, &Arc<clusterlink_crds::Peer>)>,
    ) {
        let (status, object) = judged.unzip();
        let entry = self.peers.set(name.clone(), status).zip(object);
        let entry = entry.map(|(status, object)| Entry::Peer(Judged::of(status, object)));
        self.news.note(Key::Peer(name), entry);
    }

    /// Sets or removes a policy's status, with the version of the object that it speaks of, where
    /// there is one.
    pub(crate) fn policy(
        &mut self,
        name: PolicyName,
        judged: Option<(PolicyStatus, Option<PolicyObject>)>,
    ) {
        let key = match &name {
            PolicyName::Namespaced(object) => Key::AccessPolicy(object.clone()),
            PolicyName::Privileged(object) => {
                Key::PrivilegedAccessPolicy(ObjectName::new("", object.clone()))
            }
        };
        let (status, object) = judged.unzip();
        let entry = self.policies.set(name, status).zip(object.flatten());
        let entry = entry.map(|(status, object)| match object {
            PolicyObject::Namespaced(object) => Entry::AccessPolicy(Judged { status, object }),
            PolicyObject::Privileged(object) => {
                Entry::PrivilegedAccessPolicy(Judged { status, object })
            }
        });
        self.news.note(key, entry);
    }

    /// Sets what could not be read or stored.
    pub(crate) fn set_problems(&mut self, problems: Vec<Problem>) {
        if self.problems != problems {
            self.problems = problems;
            self.advance();
        }
    }

    /// Notes that everything has been read once.
    pub(crate) fn set_complete(&mut self) {
        if !self.complete {
            self.complete = true;
            self.advance();
        }
    }

    /// The status as of now; shared as long as nothing changes.
    pub(crate) fn snapshot(&mut self) -> Arc<ControllerStatus> {
        let changed = [
            std::mem::take(&mut self.imports.changed),
            std::mem::take(&mut self.exports.changed),
            std::mem::take(&mut self.peers.changed),
            std::mem::take(&mut self.policies.changed),
            std::mem::take(&mut self.workloads.changed),
        ];
        if changed.contains(&true) {
            self.advance();
        }
        if let Some(built) = &self.built {
            return Arc::clone(built);
        }
        let built = Arc::new(self.build());
        self.built = Some(Arc::clone(&built));
        built
    }

    fn advance(&mut self) {
        self.generation += 1;
        self.built = None;
    }

    fn build(&self) -> ControllerStatus {
        let mut status = ControllerStatus {
            generation: self.generation,
            complete: self.complete,
            problems: self.problems.clone(),
            imports: self.imports.entries.values().cloned().collect(),
            exports: self.exports.entries.values().cloned().collect(),
            peers: self.peers.entries.values().cloned().collect(),
            policies: self.policies.entries.values().cloned().collect(),
            workloads: self.workloads.entries.values().cloned().collect(),
        };
        for problem in self.problems.iter().filter(|problem| problem.stale) {
            if let (Some(kind), Some(object)) = (&problem.kind, &problem.object) {
                mark_stale(&mut status, kind, object);
            }
        }
        status
    }
}

/// Marks the entry that a problem of its source names; the tables are ordered by name.
fn mark_stale(status: &mut ControllerStatus, kind: &str, object: &str) {
    let (namespace, name) = object.split_once('/').unwrap_or(("", object));
    let wanted = ObjectName::new(namespace, name);
    match kind {
        "Import" => {
            if let Ok(i) = status
                .imports
                .binary_search_by(|entry| entry.name.cmp(&wanted))
            {
                Arc::make_mut(&mut status.imports[i]).stale = true;
            }
        }
        "Export" => {
            if let Ok(i) = status
                .exports
                .binary_search_by(|entry| entry.name.cmp(&wanted))
            {
                Arc::make_mut(&mut status.exports[i]).stale = true;
            }
        }
        "Peer" => {
            if let Ok(i) = status
                .peers
                .binary_search_by(|entry| entry.name.cmp(&wanted))
            {
                Arc::make_mut(&mut status.peers[i]).stale = true;
            }
        }
        "Pod" => {
            if let Ok(i) = status
                .workloads
                .binary_search_by(|entry| entry.name.cmp(&wanted))
            {
                Arc::make_mut(&mut status.workloads[i]).stale = true;
            }
        }
        "AccessPolicy" | "PrivilegedAccessPolicy" => {
            let wanted = if kind == "AccessPolicy" {
                PolicyName::Namespaced(wanted)
            } else {
                PolicyName::Privileged(wanted.name)
            };
            if let Ok(i) = status
                .policies
                .binary_search_by(|entry| entry.name.cmp(&wanted))
            {
                Arc::make_mut(&mut status.policies[i]).stale = true;
            }
        }
        // Services, EndpointSlices and Namespaces have no status of their own here.
        _ => {}
    }
}
