//! One Import at a time: from what the cluster's objects say to what they should say, to what agents
//! are told, and to the conditions of the Import.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
    sync::Arc,
};

use clusterlink_crds::{
    Import,
    conditions::{IMPORT_SERVICE_VALID, reasons},
};
use clusterlink_model::ObjectName;
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use super::{
    ClusterConfig,
    desired::{Desired, Kind, Write, WriteKey},
    fleet::Fleet,
    merge,
    ownership::{self, Standing},
    placement,
    ports::{self, PortWish, Ports, TargetPort},
    release::Releases,
    service, slices,
};
use crate::{
    agents::{AgentTable, Agents},
    status::Finding,
    translate::import,
};

/// What is known of all Imports of the cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    system_namespace: String,
    desired: Desired,
    agents: Agents,
    table: Arc<AgentTable>,
    fleet: Fleet,
    /// The ports that something listens on, on any node.
    listeners: BTreeSet<u16>,
    ports: Ports,
    releases: Releases,
    /// Imports that join a Service: their endpoints depend on what agents reach.
    merging: BTreeSet<ObjectName>,
    /// The addresses that Imports' Services had last, for the next one if it has to be made again.
    addresses: BTreeMap<ObjectName, Vec<String>>,
    /// The objects of each Import that a write is wanted for.
    wanted: BTreeMap<ObjectName, BTreeSet<WriteKey>>,
}

/// What the API server has of one Import.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) import: Option<Arc<Import>>,
    /// The Service of its name.
    pub(crate) service: Option<Arc<Service>>,
    /// The slices that were made for it.
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
    /// The slices of the Service that were not.
    pub(crate) foreign_slices: Vec<Arc<EndpointSlice>>,
}

/// What becomes of an Import that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What agents are told; `None` if it is not handed out.
    pub(crate) served: Option<Served>,
    /// What `status.targetPort` is to be.
    pub(crate) target_port: Option<NonZeroU16>,
    pub(crate) findings: Vec<Finding>,
}

/// Where an Import is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) target_port: Option<NonZeroU16>,
}

/// The writes that one Import needs now.
type Plan = BTreeMap<WriteKey, Write>;

/// An Import that exists and can be reconciled.
struct Subject<'a> {
    name: &'a ObjectName,
    uid: &'a str,
    import: &'a Import,
    observed: &'a Observed,
    port: TargetPort,
    now: Timestamp,
}

impl Cluster {
    pub(crate) fn new(config: &ClusterConfig, agents: Agents) -> Self {
        Self {
            system_namespace: config.system_namespace.clone(),
            desired: Desired::default(),
            agents,
            table: Arc::default(),
            fleet: Fleet::new(),
            listeners: BTreeSet::new(),
            ports: Ports::new(config.port_rules()),
            releases: Releases::default(),
            merging: BTreeSet::new(),
            addresses: BTreeMap::new(),
            wanted: BTreeMap::new(),
        }
    }

    pub(crate) fn system_namespace(&self) -> &str {
        &self.system_namespace
    }

    pub(crate) fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Replaces the agents that there are, and says whether that changed anything.
    pub(crate) fn set_fleet(&mut self, fleet: Fleet) -> bool {
        let changed = self.fleet != fleet;
        self.fleet = fleet;
        changed
    }

    /// Takes in what agents say, and names the Imports that it concerns.
    pub(crate) fn set_agents(&mut self, table: Arc<AgentTable>) -> BTreeSet<ObjectName> {
        let before = std::mem::replace(&mut self.table, table);
        let mut affected: BTreeSet<_> = self.releases.services().cloned().collect();
        if reached(&before) != reached(&self.table) {
            affected.extend(self.merging.iter().cloned());
        }
        let reports = self.table.values().map(|agent| &agent.report);
        let listeners = reports
            .flat_map(|report| &report.listening)
            .copied()
            .collect();
        if self.listeners != listeners {
            self.listeners = listeners;
            self.ports.listeners_changed();
        }
        affected.append(&mut self.ports.take_woken());
        affected
    }

    /// The Imports that are worth another look since the last call.
    pub(crate) fn take_woken(&mut self) -> BTreeSet<ObjectName> {
        self.ports.take_woken()
    }

    /// The Imports whose Services wait for agents.
    pub(crate) fn releasing(&self) -> BTreeSet<ObjectName> {
        self.releases.services().cloned().collect()
    }

    /// To be called after a round of [`Self::reconcile`]: asks the agents, and says when to look
    /// again at the latest.
    pub(crate) fn finish(&self) -> Option<Timestamp> {
        self.agents.ask(self.releases.addresses());
        self.releases.next_end()
    }

    /// Decides for one Import; `None` if there is none.
    pub(crate) fn reconcile(
        &mut self,
        name: &ObjectName,
        observed: &Observed,
        now: Timestamp,
    ) -> Option<Outcome> {
        let mut plan = Plan::new();
        // An Import that waits for its dependents to go must not get new ones.
        let import = observed.import.as_ref();
        let import = import.filter(|import| import.metadata.deletion_timestamp.is_none());
        let mut outcome = match import {
            Some(import) => Some(self.keep(name, import, observed, now, &mut plan)),
            None => {
                self.remove(name, observed, now, &mut plan);
                None
            }
        };
        if let Some(outcome) = &mut outcome {
            self.tell_failures(name, &plan, &mut outcome.findings);
        }
        self.commit(name, plan);
        outcome
    }

    fn keep(
        &mut self,
        name: &ObjectName,
        import: &Import,
        observed: &Observed,
        now: Timestamp,
        plan: &mut Plan,
    ) -> Outcome {
        if let Some(finding) = import::invalid(name, import) {
            self.remove(name, observed, now, plan);
            return Outcome {
                findings: vec![finding],
                ..Outcome::default()
            };
        }
        let requested = import.spec.target_port.and_then(NonZeroU16::new);
        let status = import.status.as_ref();
        let wish = PortWish {
            created: import::age(import),
            requested,
            stored: status.and_then(|status| NonZeroU16::new(status.target_port?)),
        };
        let port = self.ports.decide(name, wish, &self.listeners);
        let subject = Subject {
            name,
            uid: import.metadata.uid.as_deref().unwrap_or_default(),
            import,
            observed,
            port,
            now,
        };
        let (served, finding) = if import.merges() {
            self.join(&subject, plan)
        } else {
            self.serve(&subject, plan)
        };
        let decided = match &subject.port {
            TargetPort::Stored(port) | TargetPort::Proposed(port) => Ok(*port),
            TargetPort::Refused(refused) => Err(refused),
        };
        Outcome {
            served,
            target_port: decided.ok(),
            findings: vec![finding, ports::finding(name, requested, decided)],
        }
    }

    /// An Import with a Service of its own.
    fn serve(&mut self, subject: &Subject<'_>, plan: &mut Plan) -> (Option<Served>, Finding) {
        let Subject { name, observed, .. } = *subject;
        self.merging.remove(name);
        let invalid = |reason, what: &str| {
            let message = format!("Import {name}: {what}");
            (
                None,
                Finding::invalid(IMPORT_SERVICE_VALID, reason, message),
            )
        };
        let Some(service) = &observed.service else {
            let before = self.addresses.get(name).map_or(&[][..], Vec::as_slice);
            plan.insert(service_key(name), subject.create(before));
            self.releases.forget(name);
            return invalid(reasons::SERVICE_PENDING, "its Service is being made");
        };
        let foreign = observed.foreign_slices.first();
        let foreign = foreign.and_then(|slice| slice.metadata.name.as_deref());
        let standing = ownership::standing(name, service, foreign);
        if standing != Standing::Ours {
            delete_slices(&observed.slices, plan);
        }
        if !matches!(standing, Standing::Leaving | Standing::HandedAway) {
            self.releases.forget(name);
        }
        match standing {
            Standing::Ours => self.serve_ours(subject, service, foreign, plan),
            Standing::Leaving => {
                self.let_leave(subject.name, service, subject.now, plan);
                invalid(
                    reasons::SERVICE_TERMINATING,
                    &format!(
                        "Service {name} is being deleted; it is made again once every agent has let go of its address"
                    ),
                )
            }
            Standing::HandedAway => {
                self.hand_away(name, service, subject.now, plan);
                invalid(reasons::SERVICE_NOT_OWNED, &not_owned(name))
            }
            Standing::Adoptable => {
                if let Some(patch) = subject.wanted().correct(service) {
                    plan.insert(service_key(name), Write::Patch { patch });
                }
                invalid(
                    reasons::SERVICE_PENDING,
                    &format!("Service {name} is being adopted"),
                )
            }
            Standing::NotAdoptable { reason, message } => invalid(reason, &message),
            Standing::Foreign => invalid(reasons::SERVICE_NOT_OWNED, &not_owned(name)),
        }
    }

    fn serve_ours(
        &mut self,
        subject: &Subject<'_>,
        service: &Service,
        foreign: Option<&str>,
        plan: &mut Plan,
    ) -> (Option<Served>, Finding) {
        let name = subject.name;
        self.addresses
            .insert(name.clone(), service::address_texts(service));
        if let Some(patch) = subject.wanted().correct(service) {
            plan.insert(service_key(name), Write::Patch { patch });
        }
        let placed = placement::place(name, &self.fleet, placement::MOST);
        let wanted = subject.stored_port().map(|target_port| {
            let wanted = slices::Wanted {
                import: name,
                uid: subject.uid,
                families: slices::families(service),
                port_name: "",
                target_port,
                endpoints: placed.into_iter().map(|agent| (agent, true)).collect(),
            };
            wanted.slices()
        });
        subject.plan_slices(wanted, plan);
        let addresses = service::addresses(service);
        // Before the Service bears both, its address could become another's while it is steered.
        let is_bound = ownership::has_finalizer(service)
            && service
                .metadata
                .owner_references
                .iter()
                .flatten()
                .any(|owner| owner.uid == subject.uid);
        if !is_bound || addresses.is_empty() {
            let message = format!("Import {name}: Service {name} is being corrected");
            return (
                None,
                Finding::invalid(IMPORT_SERVICE_VALID, reasons::SERVICE_PENDING, message),
            );
        }
        let served = Served {
            addresses,
            target_port: subject.stored_port(),
        };
        let finding = match foreign {
            None => Finding::valid(IMPORT_SERVICE_VALID, ""),
            Some(slice) => Finding::invalid(
                IMPORT_SERVICE_VALID,
                reasons::SERVICE_HAS_FOREIGN_SLICES,
                format!(
                    "Import {name}: EndpointSlice {slice} of somebody else joins its Service, so connections that are not steered may end there: delete the slice"
                ),
            ),
        };
        (Some(served), finding)
    }

    /// An Import that joins a Service.
    fn join(&mut self, subject: &Subject<'_>, plan: &mut Plan) -> (Option<Served>, Finding) {
        let Subject {
            name,
            observed,
            import,
            ..
        } = *subject;
        self.merging.insert(name.clone());
        let service = observed.service.as_deref();
        let own = service.filter(|service| ownership::is_claimed(name, service));
        self.give_up_service(name, own, subject.now, plan);
        let service = service.filter(|_| own.is_none());
        let joined = match merge::join(name, import, service, &observed.foreign_slices) {
            Ok(joined) => joined,
            Err((reason, message)) => {
                delete_slices(&observed.slices, plan);
                let message = format!("Import {name}: {message}");
                return (
                    None,
                    Finding::invalid(IMPORT_SERVICE_VALID, reason, message),
                );
            }
        };
        let sources = import::valid_sources(import);
        let placed = placement::place(name, &self.fleet, joined.count);
        let endpoints = placed.into_iter().map(|agent| {
            let said = self.table.get(&agent.node);
            let usable = match said.filter(|said| said.pod == agent.pod) {
                Some(said) => merge::is_usable(&sources, &said.report),
                // A new lease holder has not heard of it yet: what held before goes on.
                None => was_ready(&observed.slices, &agent.node),
            };
            (agent, usable)
        });
        let endpoints = endpoints.collect();
        let wanted = subject.stored_port().map(|target_port| {
            let wanted = slices::Wanted {
                import: name,
                uid: subject.uid,
                families: joined.families,
                port_name: &joined.port_name,
                target_port,
                endpoints,
            };
            wanted.slices()
        });
        subject.plan_slices(wanted, plan);
        let served = Served {
            addresses: Vec::new(),
            target_port: subject.stored_port(),
        };
        (
            Some(served),
            Finding::valid(IMPORT_SERVICE_VALID, joined.remark),
        )
    }

    /// An Import that is gone, or cannot have anything.
    fn remove(&mut self, name: &ObjectName, observed: &Observed, now: Timestamp, plan: &mut Plan) {
        self.merging.remove(name);
        self.ports.release(name);
        self.addresses.remove(name);
        self.give_up_service(name, observed.service.as_deref(), now, plan);
        delete_slices(&observed.slices, plan);
    }

    /// A Service that is to be ours no more, if it ever was.
    fn give_up_service(
        &mut self,
        name: &ObjectName,
        service: Option<&Service>,
        now: Timestamp,
        plan: &mut Plan,
    ) {
        let Some(service) = service else {
            self.releases.forget(name);
            return;
        };
        match ownership::standing(name, service, None) {
            Standing::Ours => {
                let uid = service.metadata.uid.clone().unwrap_or_default();
                plan.insert(service_key(name), Write::Delete { uid });
                self.releases.hold(name, service::addresses(service), now);
            }
            Standing::Leaving => self.let_leave(name, service, now, plan),
            Standing::HandedAway => self.hand_away(name, service, now, plan),
            Standing::Adoptable | Standing::NotAdoptable { .. } | Standing::Foreign => {
                self.releases.forget(name);
            }
        }
    }

    /// A Service that is being deleted.
    fn let_leave(&mut self, name: &ObjectName, service: &Service, now: Timestamp, plan: &mut Plan) {
        if !ownership::has_finalizer(service) {
            self.releases.forget(name);
            return;
        }
        let deleted = service.metadata.deletion_timestamp.as_ref();
        let since = deleted.map_or(now, |time| time.0);
        self.releases.hold(name, service::addresses(service), since);
        if self.releases.is_free(name, now, &self.fleet, &self.table)
            && let Some(patch) = service::finalize(service)
        {
            plan.insert(service_key(name), Write::Patch { patch });
        }
    }

    /// A Service that somebody took over.
    fn hand_away(&mut self, name: &ObjectName, service: &Service, now: Timestamp, plan: &mut Plan) {
        self.releases.hold(name, service::addresses(service), now);
        let free = self.releases.is_free(name, now, &self.fleet, &self.table);
        if let Some(patch) = service::let_go(service, free) {
            plan.insert(service_key(name), Write::Patch { patch });
        }
    }

    /// What could not be written is what is wrong with the Import's Service.
    fn tell_failures(&self, name: &ObjectName, plan: &Plan, findings: &mut [Finding]) {
        let mut failures = plan
            .keys()
            .filter_map(|key| Some((key, self.desired.failure(key)?)));
        let Some((key, failure)) = failures.next() else {
            return;
        };
        for finding in findings {
            if finding.kind == IMPORT_SERVICE_VALID {
                let message = format!(
                    "Import {name}: {key} cannot be written, and is tried again: {failure}"
                );
                *finding =
                    Finding::invalid(IMPORT_SERVICE_VALID, reasons::SERVICE_NOT_WRITTEN, message);
            }
        }
    }

    fn commit(&mut self, name: &ObjectName, plan: Plan) {
        let keys: BTreeSet<_> = plan.keys().cloned().collect();
        for key in self.wanted.remove(name).unwrap_or_default() {
            if !keys.contains(&key) {
                self.desired.set(key, None);
            }
        }
        for (key, write) in plan {
            self.desired.set(key, Some(write));
        }
        if !keys.is_empty() {
            self.wanted.insert(name.clone(), keys);
        }
    }
}

impl Subject<'_> {
    fn wanted(&self) -> service::Wanted<'_> {
        let target_port = match &self.port {
            TargetPort::Stored(port) | TargetPort::Proposed(port) => Some(*port),
            TargetPort::Refused(_) => None,
        };
        service::Wanted {
            import: self.name,
            uid: self.uid,
            port: self.import.spec.port,
            target_port,
        }
    }

    fn create(&self, addresses: &[String]) -> Write {
        let wanted = self.wanted();
        Write::Create {
            object: wanted.create(addresses),
            otherwise: (!addresses.is_empty()).then(|| wanted.create(&[])),
        }
    }

    fn stored_port(&self) -> Option<NonZeroU16> {
        match self.port {
            TargetPort::Stored(port) => Some(port),
            TargetPort::Proposed(_) | TargetPort::Refused(_) => None,
        }
    }

    /// Without a port that may be used there are no slices to want: those that exist stay until the
    /// new port is stored, and go if there is none.
    fn plan_slices(&self, wanted: Option<Vec<EndpointSlice>>, plan: &mut Plan) {
        let Some(wanted) = wanted else {
            if matches!(self.port, TargetPort::Refused(_)) {
                delete_slices(&self.observed.slices, plan);
            }
            return;
        };
        for slice in &wanted {
            let named = |other: &&Arc<EndpointSlice>| other.metadata.name == slice.metadata.name;
            let write = match self.observed.slices.iter().find(named) {
                None => Some(Write::Create {
                    object: serde_json::json!(slice),
                    otherwise: None,
                }),
                // It cannot be changed.
                Some(other) if other.address_type != slice.address_type => Some(delete(other)),
                Some(other) => slices::correct(other, slice).map(|patch| Write::Patch { patch }),
            };
            if let Some(write) = write {
                plan.insert(slice_key(slice), write);
            }
        }
        let superfluous = self.observed.slices.iter().filter(|slice| {
            !wanted
                .iter()
                .any(|other| other.metadata.name == slice.metadata.name)
        });
        for slice in superfluous {
            plan.insert(slice_key(slice), delete(slice));
        }
    }
}

fn delete_slices(slices: &[Arc<EndpointSlice>], plan: &mut Plan) {
    for slice in slices {
        plan.insert(slice_key(slice), delete(slice));
    }
}

fn delete(slice: &EndpointSlice) -> Write {
    Write::Delete {
        uid: slice.metadata.uid.clone().unwrap_or_default(),
    }
}

fn service_key(import: &ObjectName) -> WriteKey {
    WriteKey {
        kind: Kind::Service,
        name: import.clone(),
    }
}

fn slice_key(slice: &EndpointSlice) -> WriteKey {
    let metadata = &slice.metadata;
    WriteKey {
        kind: Kind::EndpointSlice,
        name: ObjectName::new(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        ),
    }
}

fn was_ready(slices: &[Arc<EndpointSlice>], node: &str) -> bool {
    let mut endpoints = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.any(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        endpoint.node_name.as_deref() == Some(node)
            && conditions.and_then(|all| all.ready).unwrap_or(true)
    })
}

/// Which peers are reached from which nodes.
fn reached(table: &AgentTable) -> BTreeMap<&Arc<str>, BTreeSet<&str>> {
    table
        .iter()
        .map(|(node, agent)| {
            let reachable = agent.report.peers.iter().filter(|peer| peer.reachable);
            (node, reachable.map(|peer| peer.name.as_str()).collect())
        })
        .collect()
}

fn not_owned(name: &ObjectName) -> String {
    format!(
        "a Service {name} exists that was not made for this Import, and is left alone: rename the Import, delete the Service, or give it the labels {}",
        ownership::import_labels(name)
            .map(|(key, value)| format!("{key}: {value}"))
            .join(", ")
    )
}

#[cfg(test)]
mod tests;
