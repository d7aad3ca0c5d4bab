//! The node snapshot and the updates that keep it current.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    name::{ObjectName, PeerName, PolicyName},
    resource::{Export, Import, Node, Peer, Policy, Workload},
};

/// Everything that a node has been told. Cloning shares the resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Imports by name.
    pub imports: BTreeMap<ObjectName, Arc<Import>>,
    /// Exports by name.
    pub exports: BTreeMap<ObjectName, Arc<Export>>,
    /// Peers by name.
    pub peers: BTreeMap<PeerName, Arc<Peer>>,
    /// Policies by name.
    pub policies: BTreeMap<PolicyName, Arc<Policy>>,
    /// Workloads by name.
    pub workloads: BTreeMap<ObjectName, Arc<Workload>>,
    /// Nodes by name.
    pub nodes: BTreeMap<Arc<str>, Arc<Node>>,
}

/// One resource of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// See [`Import`].
    Import(Arc<Import>),
    /// See [`Export`].
    Export(Arc<Export>),
    /// See [`Peer`].
    Peer(Arc<Peer>),
    /// See [`Policy`].
    Policy(Arc<Policy>),
    /// See [`Workload`].
    Workload(Arc<Workload>),
    /// See [`Node`].
    Node(Arc<Node>),
}

/// The kind and name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResourceKey {
    /// An import's name.
    Import(ObjectName),
    /// An export's name.
    Export(ObjectName),
    /// A peer's name.
    Peer(PeerName),
    /// A policy's name.
    Policy(PolicyName),
    /// A workload's name.
    Workload(ObjectName),
    /// A node's name.
    Node(Arc<str>),
}

/// What changed: applied in one step, so that no reader sees half of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// New or changed resources.
    pub upserts: Vec<Resource>,
    /// Resources that are gone.
    pub removals: Vec<ResourceKey>,
    /// This update closes a complete snapshot: what it does not name does not exist.
    pub complete: bool,
}

impl Resource {
    /// Its kind and name.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Import(r) => ResourceKey::Import(r.name.clone()),
            Self::Export(r) => ResourceKey::Export(r.name.clone()),
            Self::Peer(r) => ResourceKey::Peer(r.name.clone()),
            Self::Policy(r) => ResourceKey::Policy(r.name.clone()),
            Self::Workload(r) => ResourceKey::Workload(r.name.clone()),
            Self::Node(r) => ResourceKey::Node(r.name.clone()),
        }
    }
}

impl Snapshot {
    /// Applies an update; a complete one replaces everything.
    pub fn apply(&mut self, update: Update) {
        if update.complete {
            *self = Self::default();
        }
        for key in &update.removals {
            match key {
                ResourceKey::Import(name) => drop(self.imports.remove(name)),
                ResourceKey::Export(name) => drop(self.exports.remove(name)),
                ResourceKey::Peer(name) => drop(self.peers.remove(name)),
                ResourceKey::Policy(name) => drop(self.policies.remove(name)),
                ResourceKey::Workload(name) => drop(self.workloads.remove(name)),
                ResourceKey::Node(name) => drop(self.nodes.remove(name)),
            }
        }
        for resource in update.upserts {
            match resource {
                Resource::Import(r) => drop(self.imports.insert(r.name.clone(), r)),
                Resource::Export(r) => drop(self.exports.insert(r.name.clone(), r)),
                Resource::Peer(r) => drop(self.peers.insert(r.name.clone(), r)),
                Resource::Policy(r) => drop(self.policies.insert(r.name.clone(), r)),
                Resource::Workload(r) => drop(self.workloads.insert(r.name.clone(), r)),
                Resource::Node(r) => drop(self.nodes.insert(r.name.clone(), r)),
            }
        }
    }

    /// All resources as one complete update.
    pub fn to_update(&self) -> Update {
        let upserts = (self.imports.values().cloned().map(Resource::Import))
            .chain(self.exports.values().cloned().map(Resource::Export))
            .chain(self.peers.values().cloned().map(Resource::Peer))
            .chain(self.policies.values().cloned().map(Resource::Policy))
            .chain(self.workloads.values().cloned().map(Resource::Workload))
            .chain(self.nodes.values().cloned().map(Resource::Node))
            .collect();
        Update {
            upserts,
            removals: Vec::new(),
            complete: true,
        }
    }

    /// What has to be applied to this snapshot to make it `newer`. Costs a comparison of pointers
    /// for each resource that both share.
    pub fn diff(&self, newer: &Self) -> Update {
        let mut update = Update::default();
        let u = &mut update;
        diff(
            &self.imports,
            &newer.imports,
            u,
            Resource::Import,
            ResourceKey::Import,
        );
        diff(
            &self.exports,
            &newer.exports,
            u,
            Resource::Export,
            ResourceKey::Export,
        );
        diff(
            &self.peers,
            &newer.peers,
            u,
            Resource::Peer,
            ResourceKey::Peer,
        );
        diff(
            &self.policies,
            &newer.policies,
            u,
            Resource::Policy,
            ResourceKey::Policy,
        );
        diff(
            &self.workloads,
            &newer.workloads,
            u,
            Resource::Workload,
            ResourceKey::Workload,
        );
        diff(
            &self.nodes,
            &newer.nodes,
            u,
            Resource::Node,
            ResourceKey::Node,
        );
        update
    }
}

impl Update {
    /// Whether applying it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty() && !self.complete
    }
}

/// Adds to `update` what turns `old` into `new`, walking both in the order of their keys.
fn diff<K: Ord + Clone, R: PartialEq>(
    old: &BTreeMap<K, Arc<R>>,
    new: &BTreeMap<K, Arc<R>>,
    update: &mut Update,
    resource: fn(Arc<R>) -> Resource,
    key: fn(K) -> ResourceKey,
) {
    let mut old = old.iter().peekable();
    for (name, value) in new {
        while let Some((gone, _)) = old.next_if(|(before, _)| *before < name) {
            update.removals.push(key(gone.clone()));
        }
        let same = old
            .next_if(|(before, _)| *before == name)
            .is_some_and(|(_, before)| Arc::ptr_eq(before, value) || before == value);
        if !same {
            update.upserts.push(resource(value.clone()));
        }
    }
    update
        .removals
        .extend(old.map(|(gone, _)| key(gone.clone())));
}
