//! What this node believes, kept by one writer: updates of the controller become a [`View`] for
//! the gateway and tables for the kernel.
//!
//! ```text
//! Update ─▶ Snapshot ─▶ what changed ─▶ numbers, classes, verdicts
//!                                          │
//!             kernel: denials ─▶ View ─▶ kernel: identities, permissions, services
//! ```
//! Only what changed is computed and written again.

mod cgroups;
mod classes;
mod denials;
mod history;
mod identities;
mod local;
mod lookups;
mod numbers;
mod places;
mod rejected;
mod steered;
mod tables;
mod targets;
#[cfg(test)]
mod tests;
mod verdicts;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use clusterlink_gateway::view::{DialRules, View};
use clusterlink_model::{
    Import, Labels, LocalPeer, ObjectName, PeerName, PolicyName, Resource, ResourceKey, Snapshot,
    Update, Workload, policy::PolicySet,
};
use clusterlink_proto::Rejected;
use ipnet::IpNet;
use tokio::sync::watch;
use tracing::{error, warn};

use self::{
    cgroups::Cgroups,
    classes::Classes,
    denials::Denials,
    history::History,
    identities::Identities,
    numbers::ImportNumbers,
    places::Places,
    rejected::Conflict,
    steered::Steering,
    tables::{Desired, Tables, Touched},
    targets::Targets,
};
pub use self::{
    history::{Moment, Recent},
    identities::NodeOrigins,
    numbers::NumbersError,
    steered::{Steered, SteeredAddresses},
};
use crate::{
    datapath::{CLASS_UNKNOWN, Datapath, DatapathError},
    pods::PodTree,
    released::ReleasedAddresses,
};

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The peer of this node.
    pub local: LocalPeer,
    /// Whether callers without a Peer object are refused.
    pub require_listed_peers: bool,
    /// Which addresses may be dialled as backends.
    pub dial_rules: DialRules,
    /// Where cgroup v2 is mounted; the workloads' cgroups are relative to it.
    pub cgroup_root: PathBuf,
    /// The subtree whose connects are steered.
    pub steered: PathBuf,
    /// Whether a kubelet makes the cgroups of workloads, so that they are found by UID, and nothing
    /// in the cgroup of a pod counts as the host's.
    pub finds_pods: bool,
    /// Where it is said which addresses are steered.
    pub steered_addresses: Steered,
    /// Where import numbers are kept.
    pub state_dir: PathBuf,
    /// The name of this node, where it is one of a cluster.
    pub node: Option<Arc<str>>,
    /// The addresses of this node at which imports' target ports are served, if they are given; else it
    /// is those that the cluster knows the node by, or [`Self::host_addresses`] if it knows none.
    pub target_addresses: Vec<IpAddr>,
    /// The addresses of this host; none for a standalone peer, which has no Service path.
    pub host_addresses: Vec<IpAddr>,
    /// The addresses of the gateway, which this host has, too. It masquerades its own processes as one of
    /// them, since they are on `lo`.
    pub gateway_addresses: Vec<IpAddr>,
    /// Where clients of the Service path may come from that are neither pods nor nodes. Pods of which
    /// nobody knows would be let in as well, so no pod may have an address in here.
    pub outside_ranges: Vec<IpNet>,
}

/// The state could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The import numbers could not be read.
    #[error(transparent)]
    Numbers(#[from] NumbersError),
    /// What an earlier process left in the kernel could not be taken over.
    #[error("cannot take over the kernel tables")]
    Tables(#[source] DatapathError),
}

/// What is wrong with the node's own part, for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateReport {
    /// One sentence per problem.
    pub problems: Vec<String>,
    /// Resources that are not in force here as they were told.
    pub rejected: Vec<Rejected>,
    /// Workloads that are told apart by their cgroup now.
    pub identified: usize,
    /// Cgroups without an identity, since their workload is gone.
    pub tombstones: usize,
    /// Identity classes in use, the host's included.
    pub classes: usize,
}

/// The state of a node.
pub struct State {
    config: Config,
    local: Arc<LocalPeer>,
    snapshot: Arc<Snapshot>,
    policies: Arc<PolicySet>,
    numbers: ImportNumbers,
    numbers_error: Option<String>,
    import_ids: Arc<HashMap<u32, ObjectName>>,
    targets: Targets,
    target_addresses: Vec<IpAddr>,
    targets_error: Option<String>,
    outside_ranges: Arc<[IpNet]>,
    places: Arc<Places>,
    remote_labels: BTreeMap<PeerName, Arc<Labels>>,
    peer_labels: Arc<BTreeMap<PeerName, Arc<Labels>>>,
    cgroups: Cgroups,
    pods: Option<PodTree>,
    classes: Classes,
    denials: Denials,
    steering: Steering,
    desired: Desired,
    tables: Tables,
    identities: identities::Shared,
    history: Arc<History>,
    conflicts: Vec<Conflict>,
    generation: u64,
    ready: bool,
    view: watch::Sender<Arc<View>>,
}

/// What an update changed.
#[derive(Default)]
struct Changes {
    /// Imports whose verdicts have to be computed again.
    judged: BTreeSet<ObjectName>,
    /// Imports that are new, changed or gone, as they were before.
    imports: BTreeMap<ObjectName, Option<Arc<Import>>>,
    /// Peers whose object or labels changed.
    peers: BTreeSet<PeerName>,
    policies: bool,
    /// Namespaces whose policies changed.
    namespaces: BTreeSet<Arc<str>>,
    /// Whether a policy changed that governs every namespace.
    privileged: bool,
    workloads: bool,
    nodes: bool,
    touched: Touched,
}

impl State {
    /// Takes over what an earlier process left in `datapath`; nothing is allowed until the first
    /// complete update.
    pub fn new(config: Config, datapath: &Arc<dyn Datapath>) -> Result<Self, StateError> {
        let numbers = ImportNumbers::open(&config.state_dir)?;
        let known = |number| numbers.is_known(number);
        let steered = config.steered_addresses.clone();
        let tables =
            Tables::take_over(datapath.clone(), steered, known).map_err(StateError::Tables)?;
        let targets = Targets::take_over(datapath.clone(), known).map_err(StateError::Tables)?;
        let mut cgroups = Cgroups::new(config.cgroup_root.clone());
        cgroups.take_over(tables.identities().collect());
        let pods = (config.finds_pods).then(|| PodTree::open(&config.steered, Instant::now()));
        let local = Arc::new(config.local.clone());
        let nothing = Arc::new(View::not_ready(config.local.clone()));
        let history = Arc::new(History::default());
        history.push(nothing.clone(), Arc::default());
        let (view, _) = watch::channel(nothing);
        Ok(Self {
            local,
            snapshot: Arc::default(),
            policies: Arc::default(),
            numbers,
            numbers_error: None,
            import_ids: Arc::default(),
            targets,
            target_addresses: if config.target_addresses.is_empty() {
                config.host_addresses.clone()
            } else {
                config.target_addresses.clone()
            },
            targets_error: None,
            outside_ranges: config.outside_ranges.clone().into(),
            places: Arc::default(),
            remote_labels: BTreeMap::new(),
            peer_labels: Arc::default(),
            cgroups,
            pods,
            classes: Classes::new(),
            denials: Denials::new(),
            steering: Steering::default(),
            desired: Desired::default(),
            tables,
            identities: identities::Shared::default(),
            history,
            conflicts: Vec::new(),
            generation: 0,
            ready: false,
            view,
            config,
        })
    }

    /// The view as it changes.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// What the gateway asks about accepted connections.
    pub fn origins(&self, datapath: Arc<dyn Datapath>) -> NodeOrigins {
        NodeOrigins::new(
            datapath,
            self.identities.clone(),
            self.history.clone(),
            self.denials.sender(),
        )
    }

    /// Applies an update of the controller.
    pub fn apply(&mut self, update: Update) {
        let old = self.snapshot.clone();
        let first = !self.ready && update.complete;
        let keys = keys_of(&update, &old);
        let mut snapshot = Snapshot::clone(&old);
        snapshot.apply(update);
        self.snapshot = Arc::new(snapshot);
        self.ready |= first;
        let mut changes = Changes::default();
        for key in keys {
            self.note_change(&key, &old, &mut changes);
        }
        if first {
            // What an earlier process steered and this snapshot does not name goes; what it does
            // not know any more is judged by the gateway until its directory goes.
            changes.touched.services.extend(self.tables.services());
            changes.touched.identities.extend(self.tables.identities());
            changes.workloads = true;
            changes.nodes = true;
            let now = Instant::now();
            let gone = self
                .numbers
                .imports()
                .filter(|name| !self.snapshot.imports.contains_key(*name));
            for name in gone.cloned().collect::<Vec<_>>() {
                self.numbers.release(&name, now);
            }
        }
        self.commit(changes);
    }

    /// What peers say of themselves, in force where their Peer object has no labels.
    pub fn set_remote_labels(&mut self, labels: BTreeMap<PeerName, Arc<Labels>>) {
        if labels == self.remote_labels {
            return;
        }
        let peers = labels.keys().chain(self.remote_labels.keys());
        let changed = peers.filter(|peer| labels.get(*peer) != self.remote_labels.get(*peer));
        let changes = Changes {
            peers: changed.cloned().collect(),
            ..Changes::default()
        };
        self.remote_labels = labels;
        self.commit(changes);
    }

    /// To be called a few times a second: looks for cgroups that came or went, tries failed
    /// writes again, and frees import numbers.
    pub fn tick(&mut self, now: Instant) {
        self.numbers.wake(now);
        let pods = (self.pods.as_mut()).is_some_and(|pods| pods.poll(now));
        let changed = self.cgroups.scan() || pods;
        if (changed && self.ready) || self.tables.has_failed() {
            self.commit(Changes {
                workloads: changed,
                ..Changes::default()
            });
        }
        self.write_targets();
    }

    /// Becomes readable when pods' cgroups come or go: [`tick`](Self::tick) is due then.
    pub fn pod_notifications(&self) -> Option<io::Result<OwnedFd>> {
        let notifications = self.pods.as_ref()?.notifications()?;
        Some(notifications.try_clone_to_owned())
    }

    /// Whether this node may steer at all: it may not when it has not heard for long which addresses
    /// are imports'. Without it nothing is steered, and everything else stays in force.
    pub fn set_lease(&mut self, holds: bool) {
        if self.steering.set_lease(holds) {
            let mut changes = Changes::default();
            changes.touched.services.extend(self.tables.services());
            changes.touched.services.extend(self.steering.wanted());
            self.commit(changes);
        }
    }

    /// Replaces the addresses that are not to be steered, whoever names them as an import's. While that
    /// is not known, nothing is steered.
    pub fn set_released(&mut self, released: ReleasedAddresses) {
        self.steering.set_released(released);
        let mut changes = Changes::default();
        // What an earlier process left stays until the first snapshot says otherwise.
        let released = self.tables.services();
        let released = released.filter(|address| self.steering.is_released(address));
        changes.touched.services.extend(released);
        changes.touched.services.extend(self.steering.wanted());
        self.commit(changes);
    }

    /// The controller has told everything, and that is in force: from now on it is said which
    /// addresses are steered.
    pub fn settle(&mut self) {
        self.tables.settle();
    }

    /// What is wrong, and a few sizes.
    pub fn report(&self) -> StateReport {
        let conflicts = self.conflicts.iter();
        let mut problems: Vec<_> = conflicts.map(|conflict| conflict.reason.clone()).collect();
        problems.extend(self.numbers_error.clone());
        problems.extend(self.tables.error().map(str::to_owned));
        problems.extend(self.targets_error.clone());
        for (name, path) in self.cgroups.paths() {
            if !path.starts_with(&self.config.steered) {
                problems.push(format!(
                    "Pod {name}: cgroup {} is outside of {}, whose connects are steered; move it or start with another --cgroup",
                    path.display(),
                    self.config.steered.display()
                ));
            }
        }
        for (name, path) in self.cgroups.missing() {
            problems.push(format!(
                "Pod {name}: cgroup {} does not exist (yet); its processes cannot be told apart",
                path.display()
            ));
        }
        StateReport {
            problems,
            rejected: self.rejected(),
            identified: self
                .desired
                .identities
                .values()
                .filter(|&&class| class != 0)
                .count(),
            tombstones: (self.cgroups.tombstones())
                .filter(|id| !self.pods.as_ref().is_some_and(|pods| pods.contains(*id)))
                .count(),
            classes: self.classes.all().len(),
        }
    }

    fn note_change(&mut self, key: &ResourceKey, old: &Snapshot, changes: &mut Changes) {
        let new = &self.snapshot;
        match key {
            ResourceKey::Import(name) => {
                let (before, after) = (old.imports.get(name), new.imports.get(name));
                if before != after {
                    changes.imports.insert(name.clone(), before.cloned());
                }
            }
            ResourceKey::Peer(name) => {
                if old.peers.get(name) != new.peers.get(name) {
                    changes.peers.insert(name.clone());
                }
            }
            ResourceKey::Policy(name) => {
                if old.policies.get(name) != new.policies.get(name) {
                    changes.policies = true;
                    match name {
                        PolicyName::Privileged(_) => changes.privileged = true,
                        PolicyName::Namespaced(policy) => {
                            changes.namespaces.insert(policy.namespace.clone());
                        }
                    }
                }
            }
            ResourceKey::Workload(name) => {
                let after = new.workloads.get(name);
                if old.workloads.get(name) != after {
                    changes.workloads = true;
                    self.cgroups
                        .declare(name, after.map(|workload| &**workload));
                }
            }
            ResourceKey::Node(name) => changes.nodes |= old.nodes.get(name) != new.nodes.get(name),
            ResourceKey::Export(_) => {}
        }
    }

    fn commit(&mut self, mut changes: Changes) {
        if changes.policies {
            self.policies = Arc::new(PolicySet::new(self.snapshot.policies.values().cloned()));
        }
        if !changes.peers.is_empty() {
            self.peer_labels = Arc::new(self.labels_in_force());
        }
        if changes.nodes {
            self.places = Arc::new(Places::new(
                &self.snapshot.nodes,
                self.config.node.as_deref(),
                &[
                    &self.config.target_addresses[..],
                    &self.config.host_addresses[..],
                    &self.config.gateway_addresses[..],
                ]
                .concat(),
            ));
        }
        self.find_judged(&mut changes);
        self.update_imports(&mut changes);
        self.update_targets(&changes);
        self.forget_denials(&mut changes);
        let fresh = if changes.workloads {
            self.update_identities(&mut changes.touched)
        } else {
            BTreeSet::new()
        };
        let fresh: BTreeSet<u32> = if self.desired.rows.is_empty() {
            self.classes.all().keys().copied().collect()
        } else {
            fresh
        };
        verdicts::update(
            &mut self.desired.rows,
            &verdicts::Inputs {
                local: &self.local,
                snapshot: &self.snapshot,
                policies: &self.policies,
                peer_labels: &self.peer_labels,
                numbers: &self.numbers,
                classes: self.classes.all(),
            },
            &changes.judged,
            &fresh,
            &mut changes.touched,
        );
        self.steering
            .choose(&changes.touched.services, &mut self.desired.services);
        self.generation += 1;
        let view = Arc::new(View {
            generation: self.generation,
            ready: self.ready,
            local: self.local.clone(),
            snapshot: self.snapshot.clone(),
            policies: self.policies.clone(),
            import_ids: self.import_ids.clone(),
            targets: self.targets.desired(),
            outside_ranges: self.outside_ranges.clone(),
            peer_labels: self.peer_labels.clone(),
            require_listed_peers: self.config.require_listed_peers,
            dial_rules: self.config.dial_rules.clone(),
        });
        let table = (changes.workloads || changes.nodes).then(|| Arc::new(self.identity_table()));
        self.tables.commit(&self.desired, changes.touched, || {
            if let Some(table) = table {
                self.identities.store(table);
            }
            self.view.send_replace(view.clone());
            self.history.push(view, self.identities.load_full());
        });
        self.write_targets();
        self.forget_unused_classes();
    }

    /// The imports that changed peers and policies have to do with.
    fn find_judged(&self, changes: &mut Changes) {
        if changes.peers.is_empty() && !changes.policies {
            return;
        }
        for (name, import) in &self.snapshot.imports {
            let affected = changes.privileged
                || changes.namespaces.contains(&name.namespace)
                || (import.sources.iter()).any(|source| changes.peers.contains(&source.peer));
            if affected {
                changes.judged.insert(name.clone());
            }
        }
    }

    /// Numbers, addresses and bits of imports that are new, changed or gone.
    fn update_imports(&mut self, changes: &mut Changes) {
        if changes.imports.is_empty() {
            return;
        }
        // First all that goes, then all that comes: an address may pass from one import to another.
        for (name, before) in &changes.imports {
            let Some(number) = self.numbers.number(name) else {
                continue;
            };
            for address in before.iter().flat_map(|import| addresses(import)) {
                if self.steering.forget(address, number) {
                    changes.touched.services.insert(address);
                }
            }
            if !self.snapshot.imports.contains_key(name) {
                self.numbers.release(name, Instant::now());
                verdicts::clear(&mut self.desired.rows, number, &mut changes.touched);
            }
        }
        let mut new_numbers = false;
        for name in changes.imports.keys() {
            let Some(import) = self.snapshot.imports.get(name) else {
                continue;
            };
            let (number, new) = self.numbers.take(name);
            new_numbers |= new;
            for address in addresses(import) {
                self.steering.want(address, number);
                changes.touched.services.insert(address);
            }
        }
        changes.judged.extend(changes.imports.keys().cloned());
        if new_numbers {
            self.numbers_error = self.numbers.save().err().map(|error| {
                let text = crate::chain(&error);
                error!(
                    error = text,
                    "import numbers are not kept; a restart would steer anew"
                );
                text
            });
        }
        let ids = self.snapshot.imports.keys();
        let ids = ids.filter_map(|name| Some((self.numbers.number(name)?, name.clone())));
        self.import_ids = Arc::new(ids.collect());
    }

    /// Where the Service path reaches imports that are new, changed or gone, or all of them if this
    /// node has other addresses now.
    fn update_targets(&mut self, changes: &Changes) {
        let mut moved = false;
        if changes.nodes {
            let addresses = self.addresses_for_targets();
            moved = addresses != self.target_addresses;
            self.target_addresses = addresses;
        }
        let (numbers, addresses) = (&self.numbers, &self.target_addresses);
        let ports = |name, import| {
            let number = numbers.number(name);
            target_ports(addresses, import).filter_map(move |at| Some((at, number?)))
        };
        if moved {
            let all = self.snapshot.imports.iter();
            let all = all.flat_map(|(name, import)| ports(name, import));
            let gone: Vec<_> = (self.targets.desired().iter())
                .map(|(at, import)| (*at, *import))
                .collect();
            self.targets.replace(gone.into_iter(), all);
            return;
        }
        let before = |(name, import)| Some(ports(name, Option::as_deref(import)?));
        let after = |name| Some(ports(name, self.snapshot.imports.get(name)?));
        self.targets.replace(
            changes.imports.iter().filter_map(before).flatten(),
            changes.imports.keys().filter_map(after).flatten(),
        );
    }

    /// Those that were given, else those that the cluster knows this node by, else those of the host.
    fn addresses_for_targets(&self) -> Vec<IpAddr> {
        if !self.config.target_addresses.is_empty() {
            return self.config.target_addresses.clone();
        }
        let this = self.config.node.as_ref();
        let this = this.and_then(|name| self.snapshot.nodes.get(name));
        let known = this.map(|node| &node.addresses);
        let known = known.filter(|addresses| !addresses.is_empty());
        known.unwrap_or(&self.config.host_addresses).clone()
    }

    /// Tells the kernel of changed target ports. Until the first complete update it keeps those that an
    /// earlier process left, so that no other listener gets their clients.
    fn write_targets(&mut self) {
        if !self.ready || !self.targets.is_pending() {
            return;
        }
        let error = self.targets.write().map(|error| crate::chain(&error));
        if let Some(error) = error.as_ref().filter(|_| self.targets_error.is_none()) {
            warn!(
                error,
                "a target port could not be written; it is tried again"
            );
        }
        self.targets_error = error;
    }

    /// Classes and kernel identities of the workloads; returns the classes that are new.
    fn update_identities(&mut self, touched: &mut Touched) -> BTreeSet<u32> {
        self.cgroups.scan();
        if let Some(pods) = &mut self.pods {
            pods.poll(Instant::now());
        }
        self.conflicts.clear();
        let mut identities: HashMap<u64, u32> = self
            .cgroups
            .tombstones()
            .chain(self.pods.iter().flat_map(PodTree::pods))
            .chain(self.pods.iter().flat_map(PodTree::above))
            .map(|id| (id, CLASS_UNKNOWN))
            .collect();
        let mut fresh = BTreeSet::new();
        for (id, workloads) in self.claims() {
            let class = match &workloads[..] {
                [workload] => {
                    let (class, new) = self.classes.of(&workload.attributes);
                    fresh.extend(new.then_some(class));
                    class
                }
                _ => {
                    let names: Vec<_> = workloads.iter().map(|w| w.name.to_string()).collect();
                    let reason = match workloads[0].cgroup.as_deref() {
                        Some(cgroup) => format!(
                            "Pods {} name the same cgroup {cgroup}; none of them is believed, give each its own",
                            names.join(", ")
                        ),
                        None => format!(
                            "Pods {} have the same cgroup (number {id}); none of them is believed, delete one",
                            names.join(", ")
                        ),
                    };
                    let workloads = workloads.iter().map(|w| w.name.clone()).collect();
                    self.conflicts.push(Conflict { workloads, reason });
                    CLASS_UNKNOWN
                }
            };
            identities.insert(id, class);
        }
        let changed = (identities.keys().chain(self.desired.identities.keys()))
            .filter(|id| identities.get(id) != self.desired.identities.get(id));
        touched.identities.extend(changed);
        self.desired.identities = identities;
        fresh
    }

    /// The workloads of each cgroup that exists.
    fn claims(&self) -> BTreeMap<u64, Vec<Arc<Workload>>> {
        let mut claims: BTreeMap<u64, Vec<Arc<Workload>>> = BTreeMap::new();
        for (name, workload) in &self.snapshot.workloads {
            let pods = (self.pods.iter()).flat_map(|pods| pods.of(&workload.uids));
            for id in pods.chain(self.cgroups.id(name)).collect::<BTreeSet<_>>() {
                claims.entry(id).or_default().push(workload.clone());
            }
        }
        claims
    }

    fn identity_table(&self) -> Identities {
        let mut table = Identities::default();
        table.places = self.places.clone();
        table
            .cgroups
            .extend(self.cgroups.tombstones().map(|id| (id, None)));
        if let Some(pods) = &self.pods {
            table.cgroups.extend(pods.pods().map(|id| (id, None)));
            table.above_pods.extend(pods.above());
            table.pod_roots.extend(pods.roots().map(Path::to_owned));
        }
        for (id, mut workloads) in self.claims() {
            let only = if workloads.len() == 1 {
                workloads.pop()
            } else {
                None
            };
            table.cgroups.insert(id, only);
        }
        let networked = self.snapshot.workloads.values();
        for workload in networked.filter(|workload| !workload.host_network) {
            for address in &workload.addresses {
                (table.addresses.entry(address.to_canonical()))
                    .and_modify(|several| *several = None)
                    .or_insert_with(|| Some(workload.clone()));
            }
        }
        for (name, path) in self.cgroups.paths() {
            if let Some(workload) = self.snapshot.workloads.get(name) {
                table.directories.push((path.to_owned(), workload.clone()));
            }
        }
        table
    }

    /// A class without workloads loses its verdicts, and its number may be given again.
    fn forget_unused_classes(&mut self) {
        let used: BTreeSet<u32> = self.desired.identities.values().copied().collect();
        let unused = self.classes.retain(&used);
        if unused.is_empty() {
            return;
        }
        let mut touched = Touched::default();
        for class in unused {
            let row = self.desired.rows.remove(&class).unwrap_or_default();
            self.desired.withheld.retain(|(of, _)| *of != class);
            touched
                .blocks
                .extend((0..row.len() as u32).map(|block| (class, block)));
        }
        self.tables.commit(&self.desired, touched, || {});
    }

    fn labels_in_force(&self) -> BTreeMap<PeerName, Arc<Labels>> {
        let mut labels = self.remote_labels.clone();
        for (name, peer) in &self.snapshot.peers {
            if let Some(own) = &peer.labels {
                labels.insert(name.clone(), Arc::new(own.clone()));
            }
        }
        labels
    }
}

fn addresses(import: &Import) -> impl Iterator<Item = SocketAddr> {
    import
        .addresses
        .iter()
        .map(|&address| SocketAddr::new(address, import.port.get()))
}

/// Where the Service path brings clients of an import to.
fn target_ports(addresses: &[IpAddr], import: &Import) -> impl Iterator<Item = SocketAddr> {
    let addresses = addresses.iter();
    let ports = import.target_port.into_iter();
    ports.flat_map(move |port| {
        let addresses = addresses.clone();
        addresses.map(move |address| SocketAddr::new(address.to_canonical(), port.get()))
    })
}

/// Everything that an update may change.
fn keys_of(update: &Update, old: &Snapshot) -> BTreeSet<ResourceKey> {
    let mut keys: BTreeSet<ResourceKey> = update.upserts.iter().map(Resource::key).collect();
    keys.extend(update.removals.iter().cloned());
    if update.complete {
        keys.extend(old.to_update().upserts.iter().map(Resource::key));
    }
    keys
}
