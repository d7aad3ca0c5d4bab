//! Watcher events → objects → resources and status, re-translating only what an event affects.
//!
//! ```text
//! Input ─▶ Store (one per kind) ─▶ links say who else is affected ─▶ Dirty
//!                                                                     │ settle
//!            Publisher ◀─ changes ◀─ translate/* ◀─ leases, last valid denies
//! ```
//! Nothing is translated before every stream was read completely once: only then is it known
//! which leases are still wanted, and that no policy is missing.

use std::{collections::BTreeSet, sync::Arc};

use clusterlink_crds::{AccessPolicy, Export, Import, Peer, PrivilegedAccessPolicy};
use clusterlink_model::{ObjectName, PolicyName};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::runtime::watcher::Event;

use crate::{
    agents::AgentTable,
    cluster::{Cluster, WriteKey, ownership},
    leases::Leases,
    publish::Change,
    source::Problem,
    status::SharedStatus,
    translate::{backend, export},
    valid_denies::{Reading, ValidDenies},
};

mod cluster;
mod exports;
mod imports;
mod links;
mod neighbours;
mod nodes;
mod peers;
mod policies;
mod store;
mod workloads;

use links::Links;
use store::Store;

/// One thing that the source says.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "an event is moved once, from its stream to its store"
)]
pub(crate) enum Input {
    Export(Event<Export>),
    Import(Event<Import>),
    Peer(Event<Peer>),
    AccessPolicy(Event<AccessPolicy>),
    PrivilegedAccessPolicy(Event<PrivilegedAccessPolicy>),
    Service(Event<Service>),
    EndpointSlice(Event<EndpointSlice>),
    /// Boxed, since it is far larger than the others.
    Pod(Box<Event<Pod>>),
    Namespace(Event<Namespace>),
    /// Boxed like a Pod.
    Node(Box<Event<Node>>),
    /// What the agents say.
    Agents(Arc<AgentTable>),
    /// Objects that could not be written, or can be again.
    Written(BTreeSet<WriteKey>),
    Problems(Arc<Vec<Problem>>),
    /// Valid denies that an earlier process has stored.
    Denies(Arc<Reading>),
}

/// All objects, and what they became.
#[derive(Debug)]
pub(crate) struct Index {
    exports: Store<Export>,
    imports: Store<Import>,
    peers: Store<Peer>,
    access_policies: Store<AccessPolicy>,
    privileged_access_policies: Store<PrivilegedAccessPolicy>,
    services: Store<Service>,
    endpoint_slices: Store<EndpointSlice>,
    pods: Store<Pod>,
    namespaces: Store<Namespace>,
    nodes: Store<Node>,
    problems: Arc<Vec<Problem>>,

    /// Which Exports name a Service or Import.
    exports_by_host: Links<ObjectName>,
    /// Which slices belong to a Service, those left out that were made for an Import.
    slices_by_service: Links<ObjectName>,
    /// Who has which address, in a cluster.
    neighbours: neighbours::Neighbours,
    /// Which slices were made for an Import.
    slices_by_import: Links<ObjectName>,
    /// Which Peer objects, of any namespace, describe a peer (by name in lower case).
    peers_by_name: Links<Arc<str>>,

    dirty: Dirty,
    /// Leases kept for Imports whose manifests may only be unreadable.
    held_imports: BTreeSet<ObjectName>,
    /// Denies of before this process whose manifests may only be unreadable.
    held_policies: BTreeSet<PolicyName>,

    provider: Provider,
    denies: ValidDenies,
    status: Arc<SharedStatus>,
}

/// Who gives Imports their addresses and target ports.
#[derive(Debug)]
pub(crate) enum Provider {
    /// A standalone peer, from ranges of its own.
    Leases(Box<Leases>),
    /// A cluster, by Services.
    Cluster(Box<Cluster>),
}

/// What has to be translated again.
#[derive(Debug, Default)]
struct Dirty {
    exports: BTreeSet<ObjectName>,
    imports: BTreeSet<ObjectName>,
    peers: BTreeSet<Arc<str>>,
    peer_objects_gone: BTreeSet<ObjectName>,
    policies: BTreeSet<PolicyName>,
    workloads: BTreeSet<ObjectName>,
    nodes: BTreeSet<ObjectName>,
    /// The agents of the cluster.
    fleet: bool,
    /// Addresses of nodes or the API server.
    neighbours: bool,
}

/// What a call of [`Index::settle`] leads to.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// To be published in one step.
    pub(crate) changes: Vec<Change>,
    /// Something could not be stored: settle again soon.
    pub(crate) retry: bool,
    /// When to look again at the latest, though nothing is heard.
    pub(crate) wake: Option<Timestamp>,
}

impl Index {
    /// An index that knows what was stored before: it is wanted no more unless the source says so.
    pub(crate) fn new(provider: Provider, denies: ValidDenies, status: Arc<SharedStatus>) -> Self {
        let dirty = Dirty {
            imports: match &provider {
                Provider::Leases(leases) => leases.holders(),
                Provider::Cluster(_) => BTreeSet::new(),
            },
            policies: denies.names().cloned().collect(),
            ..Dirty::default()
        };
        Self {
            exports: Store::default(),
            imports: Store::default(),
            peers: Store::default(),
            access_policies: Store::default(),
            privileged_access_policies: Store::default(),
            services: Store::default(),
            endpoint_slices: Store::default(),
            pods: Store::default(),
            namespaces: Store::default(),
            nodes: Store::default(),
            problems: Arc::default(),
            exports_by_host: Links::default(),
            slices_by_service: Links::default(),
            neighbours: neighbours::Neighbours::default(),
            slices_by_import: Links::default(),
            peers_by_name: Links::default(),
            dirty,
            held_imports: BTreeSet::new(),
            held_policies: BTreeSet::new(),
            provider,
            denies,
            status,
        }
    }

    /// Whether every stream, and what was stored, has been read completely once.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing().is_empty()
    }

    /// The kinds whose first list is not complete yet, and what else was not read yet.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        [
            ("Export", self.exports.is_complete()),
            ("Import", self.imports.is_complete()),
            ("Peer", self.peers.is_complete()),
            ("AccessPolicy", self.access_policies.is_complete()),
            (
                "PrivilegedAccessPolicy",
                self.privileged_access_policies.is_complete(),
            ),
            ("Service", self.services.is_complete()),
            ("EndpointSlice", self.endpoint_slices.is_complete()),
            ("Pod", self.pods.is_complete()),
            ("Node", self.nodes.is_complete()),
            ("Namespace", self.namespaces.is_complete()),
            ("the last valid denies", self.denies.is_read()),
        ]
        .into_iter()
        .filter_map(|(kind, complete)| (!complete).then_some(kind))
        .collect()
    }

    /// How many kinds [`Self::old`] looks at.
    pub(crate) const DECIDING: usize = 5;

    /// The kinds that Services and slices are decided upon, of which what is held may be old.
    pub(crate) fn old(&self) -> Vec<&'static str> {
        let deciding: [(&'static str, bool); Self::DECIDING] = [
            ("Import", self.imports.is_old()),
            ("Service", self.services.is_old()),
            ("EndpointSlice", self.endpoint_slices.is_old()),
            ("Pod", self.pods.is_old()),
            ("Node", self.nodes.is_old()),
        ];
        let old = deciding.into_iter().filter(|(_, old)| *old);
        old.map(|(kind, _)| kind).collect()
    }

    /// Takes in one event and notes what it affects.
    pub(crate) fn apply(&mut self, input: Input) {
        match input {
            Input::Export(event) => {
                for changed in self.exports.apply(event) {
                    let host = |export: &Arc<Export>| export::host(&changed.name, export);
                    self.exports_by_host.relink(
                        &changed.name,
                        changed.old.as_ref().map(host),
                        changed.new.as_ref().map(host),
                    );
                    self.dirty.exports.insert(changed.name);
                }
            }
            Input::Import(event) => {
                let changed = self.imports.apply(event);
                self.dirty
                    .imports
                    .extend(changed.into_iter().map(|changed| changed.name));
            }
            Input::Peer(event) => {
                for changed in self.peers.apply(event) {
                    let peer: Arc<str> = changed.name.name.to_ascii_lowercase().into();
                    let link = |_: &Arc<Peer>| Arc::clone(&peer);
                    self.peers_by_name.relink(
                        &changed.name,
                        changed.old.as_ref().map(link),
                        changed.new.as_ref().map(link),
                    );
                    if changed.new.is_none() {
                        self.dirty.peer_objects_gone.insert(changed.name);
                    }
                    self.dirty.peers.insert(peer);
                }
            }
            Input::AccessPolicy(event) => {
                let changed = self.access_policies.apply(event);
                let names = changed
                    .into_iter()
                    .map(|changed| PolicyName::Namespaced(changed.name));
                self.dirty.policies.extend(names);
            }
            Input::PrivilegedAccessPolicy(event) => {
                let changed = self.privileged_access_policies.apply(event);
                let names = changed
                    .into_iter()
                    .map(|changed| PolicyName::Privileged(changed.name.name));
                self.dirty.policies.extend(names);
            }
            Input::Service(event) => {
                for changed in self.services.apply(event) {
                    self.dirty.neighbours |= Self::is_api_server(&changed.name);
                    self.dirty
                        .exports
                        .extend(self.exports_by_host.get(&changed.name).cloned());
                    let both = [&changed.old, &changed.new];
                    if self.imports.get(&changed.name).is_some()
                        || both
                            .into_iter()
                            .flatten()
                            .any(|one| ownership::is_marked(one))
                    {
                        self.dirty.imports.insert(changed.name);
                    }
                }
            }
            Input::EndpointSlice(event) => self.apply_slice(event),
            Input::Pod(event) => {
                for changed in self.pods.apply(*event) {
                    self.dirty.fleet |= self.concerns_fleet(&changed);
                    self.pod_moved(&changed);
                    self.dirty.workloads.insert(changed.name);
                }
            }
            Input::Node(event) => {
                for changed in self.nodes.apply(*event) {
                    self.dirty.fleet = true;
                    self.dirty.neighbours = true;
                    self.dirty.nodes.insert(changed.name);
                }
            }
            Input::Agents(table) => {
                if let Provider::Cluster(cluster) = &mut self.provider {
                    self.dirty.imports.append(&mut cluster.set_agents(table));
                }
            }
            Input::Written(keys) => self.written(&keys),
            // Namespaces have no attributes of their own that anything depends on.
            Input::Namespace(event) => drop(self.namespaces.apply(event)),
            Input::Problems(problems) => self.problems = problems,
            Input::Denies(reading) => self.read_denies(&reading),
        }
    }

    /// Looks again at what is kept only because its manifest may be unreadable. To be called some
    /// time after the problems have changed: a manifest that was corrected is no problem any more
    /// a moment before its event arrives, and what it says must not lapse in between.
    pub(crate) fn recheck_held(&mut self) {
        self.dirty.imports.append(&mut self.held_imports);
        self.dirty.policies.append(&mut self.held_policies);
        if let Provider::Cluster(cluster) = &self.provider {
            self.dirty.imports.append(&mut cluster.releasing());
        }
    }

    /// Translates what is affected, stores what has to outlive the process, and updates the
    /// status. Blocks while it writes files.
    pub(crate) fn settle(&mut self, now: Timestamp) -> Settled {
        let mut settled = Settled::default();
        self.settle_fleet(now);
        self.settle_neighbours();
        self.settle_policies(now, &mut settled);
        self.settle_imports(now, &mut settled);
        self.settle_exports(now, &mut settled);
        self.settle_peers(now, &mut settled);
        self.settle_workloads(now, &mut settled);
        self.settle_nodes(&mut settled);
        let mut board = self.status.lock();
        board.set_problems(self.problems.to_vec());
        board.set_complete();
        drop(board);
        self.status.settled();
        settled
    }

    fn apply_slice(&mut self, event: Event<EndpointSlice>) {
        for changed in self.endpoint_slices.apply(event) {
            let service = |slice: &Arc<EndpointSlice>| {
                let service = backend::service_of(slice)?;
                Some(ObjectName {
                    namespace: changed.name.namespace.clone(),
                    name: service.into(),
                })
            };
            let import = |slice: &Arc<EndpointSlice>| ownership::import_of_slice(&slice.metadata);
            let (old, new) = (changed.old.as_ref(), changed.new.as_ref());
            let imports = (old.and_then(import), new.and_then(import));
            self.dirty
                .imports
                .extend(imports.0.iter().chain(&imports.1).cloned());
            self.slices_by_import
                .relink(&changed.name, imports.0, imports.1);
            let old = changed.old.as_ref().and_then(service);
            let new = changed.new.as_ref().and_then(service);
            for service in old.iter().chain(&new) {
                self.dirty.neighbours |= Self::is_api_server(service);
                self.dirty
                    .exports
                    .extend(self.exports_by_host.get(service).cloned());
                if matches!(self.provider, Provider::Cluster(_))
                    && self.imports.get(service).is_some()
                {
                    self.dirty.imports.insert(service.clone());
                }
            }
            self.slices_by_service.relink(&changed.name, old, new);
        }
    }

    /// Whether an object that the source does not give may merely be unreadable.
    fn may_be_unreadable(&self, kind: &str, object: &str) -> bool {
        self.problems.iter().any(|problem| {
            let kind_fits = problem.kind.as_deref().is_none_or(|named| named == kind);
            kind_fits
                && problem
                    .object
                    .as_deref()
                    .is_none_or(|named| named == object)
        })
    }
}

#[cfg(test)]
mod tests;
