//! One Import at a time: from what the cluster's objects say to what they should say, to what agents
//! are told, and to the conditions of the Import.

mod give_up;
mod join;
mod plan;
mod reject;
mod serve;

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
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use self::plan::Plan;
use super::{
    ClusterConfig,
    desired::{Desired, WriteKey},
    fleet::Fleet,
    placement::Roster,
    ports::{self, PortWish, Ports, TargetPort},
    rejections::{Rejecting, Rejections},
    release::Releases,
    roll::{MARGIN, Roll},
};
use crate::{
    agents::{AgentTable, Agents, Question},
    status::Finding,
    translate::import,
};

/// What is known of all Imports of the cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    system_namespace: String,
    allowed_backends: Vec<IpNet>,
    desired: Desired,
    agents: Agents,
    table: Arc<AgentTable>,
    fleet: Fleet,
    roster: Roster,
    rejections: Rejections,
    /// The ports that something listens on, on any node.
    listeners: BTreeSet<u16>,
    ports: Ports,
    releases: Releases,
    roll: Roll,
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

/// An Import that exists and can be reconciled.
struct Subject<'a> {
    name: &'a ObjectName,
    uid: &'a str,
    import: &'a Import,
    observed: &'a Observed,
    port: TargetPort,
    /// The nodes whose agents are no endpoints of it.
    rejecting: Rejecting,
    now: Timestamp,
}

impl Cluster {
    pub(crate) fn new(config: &ClusterConfig, agents: Agents) -> Self {
        Self {
            system_namespace: config.system_namespace.clone(),
            allowed_backends: config.allowed_backends.clone(),
            desired: Desired::default(),
            agents,
            table: Arc::default(),
            fleet: Fleet::new(),
            roster: Roster::default(),
            rejections: Rejections::default(),
            listeners: BTreeSet::new(),
            ports: Ports::new(config.port_rules()),
            releases: Releases::default(),
            roll: Roll::default(),
            merging: BTreeSet::new(),
            addresses: BTreeMap::new(),
            wanted: BTreeMap::new(),
        }
    }

    pub(crate) fn system_namespace(&self) -> &str {
        &self.system_namespace
    }

    pub(crate) fn allowed_backends(&self) -> &[IpNet] {
        &self.allowed_backends
    }

    pub(crate) fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Replaces the agents that there are, and the nodes, and says whether that changed anything.
    pub(crate) fn set_fleet<'a>(
        &mut self,
        fleet: Fleet,
        nodes: impl IntoIterator<Item = &'a Arc<str>>,
        now: Timestamp,
    ) -> bool {
        let nodes: BTreeSet<_> = nodes.into_iter().collect();
        self.rejections.retain_nodes(|node| nodes.contains(node));
        self.roll.set_fleet(&fleet, nodes, now);
        self.roll.meet(&self.table);
        if self.fleet == fleet {
            return false;
        }
        self.roster = Roster::new(&fleet);
        self.fleet = fleet;
        true
    }

    /// Takes in what agents say, and names the Imports that it concerns.
    pub(crate) fn set_agents(&mut self, table: Arc<AgentTable>) -> BTreeSet<ObjectName> {
        let before = std::mem::replace(&mut self.table, table);
        let lost = before.keys().filter(|node| !self.table.contains_key(*node));
        self.roll.lose(lost.cloned());
        self.roll.meet(&self.table);
        let mut affected = self.rejections.update(&before, &self.table);
        affected.extend(self.releases.services().cloned());
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
        let own = (self.table.values()).flat_map(|agent| &agent.report.own_ports);
        let own = own.map(|(port, purpose)| (*port, purpose.clone()));
        self.ports.agents_listen(own.collect());
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

    /// To be called before a round of [`Self::reconcile`]: names the Imports that the time makes a
    /// difference for.
    pub(crate) fn begin(&mut self, now: Timestamp) -> BTreeSet<ObjectName> {
        self.roll.begin(now);
        self.rejections.begin(now)
    }

    /// To be called after a round of [`Self::reconcile`]: asks the agents, and says when to look
    /// again at the latest.
    pub(crate) fn finish(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.releases.expire(now);
        // What a leader before this one has asked, and was told is let go of, nobody else remembers: it
        // stays asked for as long as a replica may be late.
        let alone = (self.agents.leading_since()).map(|since| since.saturating_add(MARGIN));
        let alone = alone.map(|time| time.unwrap_or(Timestamp::MAX));
        self.agents.ask(Question {
            addresses: self.releases.addresses(),
            adds: alone.is_none_or(|time| now < time),
        });
        self.agents.set_keeping(self.releases.keeping());
        let looks = [
            self.releases.next_look(),
            self.rejections.next_look(),
            alone.filter(|time| now < *time),
        ];
        looks.into_iter().flatten().min()
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
                findings: vec![ports::withheld(name, &finding), finding],
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
            rejecting: self.rejecting(name, &observed.slices),
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
        let mut port = ports::finding(name, requested, decided);
        self.tell_rejections(&subject, &mut port);
        Outcome {
            served,
            target_port: decided.ok(),
            findings: vec![finding, port],
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
