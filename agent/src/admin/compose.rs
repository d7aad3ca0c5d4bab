//! Puts together what the controller says of objects and what the gateway sees of peers.

use std::collections::{BTreeMap, BTreeSet};

use clusterlink_gateway::{
    status::{GatewayStatus, PeerStatus},
    view::View,
};
use clusterlink_model::{
    Backend, Import, Labels, PeerName, WorkloadAttributes,
    policy::{DestinationAttributes, SourceAttributes, SourceBits},
};

use super::status::{Certificate, Local, Peer, Status, Steering};
use crate::control::{Condition, ControlReport, ImportObject, PeerObject, Problem, SourceState};

/// The part of the status that comes from objects and peers; the rest is for the caller.
pub(super) fn compose(view: &View, report: ControlReport, seen: &[PeerStatus]) -> Status {
    let clients = clients(view);
    let reachable: BTreeSet<&PeerName> = seen
        .iter()
        .filter(|peer| peer.is_reached_by(view.gateways_of(&peer.name)))
        .map(|peer| &peer.name)
        .collect();
    let ControlReport {
        problems,
        mut imports,
        mut exports,
        peers,
        policies,
        workloads,
        ..
    } = report;
    for import in &mut imports {
        judge_sources(import, view, &reachable, &clients);
    }
    for export in &mut exports {
        export.backends = match view.snapshot.exports.get(&export.name).map(|e| &e.backend) {
            Some(Backend::Endpoints(endpoints)) => endpoints.len(),
            Some(Backend::Name(_) | Backend::Import(_)) => 1,
            Some(Backend::Unavailable(_)) | None => 0,
        };
    }
    Status {
        ready: false,
        waiting_for: Vec::new(),
        software: String::new(),
        generation: view.generation,
        peer: Local {
            name: view.local.name.clone(),
            labels: view.local.labels.clone(),
            certificate: Certificate {
                expires: 0,
                generation: 0,
            },
        },
        steering: Steering::default(),
        peers: join_peers(view, &peers, seen),
        imports,
        exports,
        policies,
        workloads,
        problems,
        open_flows: 0,
        counters: BTreeMap::new(),
    }
}

/// A problem of the node itself.
pub(super) fn own_problem(message: String) -> Problem {
    Problem {
        message,
        ..Problem::default()
    }
}

/// Every kind of client that this node may have: the host, and its workloads.
fn clients(view: &View) -> Vec<SourceBits> {
    let workloads: BTreeSet<&WorkloadAttributes> = view
        .snapshot
        .workloads
        .values()
        .map(|workload| &*workload.attributes)
        .collect();
    (workloads.into_iter().map(Some).chain([None]))
        .map(|workload| {
            view.policies.source_bits(&SourceAttributes {
                peer: &view.local.name,
                peer_labels: &view.local.labels,
                workload,
            })
        })
        .collect()
}

fn judge_sources(
    object: &mut ImportObject,
    view: &View,
    reachable: &BTreeSet<&PeerName>,
    clients: &[SourceBits],
) {
    let Some(import) = view.snapshot.imports.get(&object.name) else {
        return;
    };
    for source in &mut object.sources {
        let known = import.sources.iter().find(|known| {
            known.peer.as_str().eq_ignore_ascii_case(&source.peer)
                && *known.export.name == *source.export_name
                && *known.export.namespace == *source.export_namespace
        });
        let Some(known) = known.filter(|_| source.invalid.is_none()) else {
            continue;
        };
        source.state = if !view.snapshot.peers.contains_key(&known.peer) {
            SourceState::NoPeer
        } else if !is_allowed(view, import, known, clients) {
            SourceState::Denied
        } else if reachable.contains(&known.peer) {
            SourceState::Reachable
        } else {
            SourceState::Unreachable
        };
    }
}

fn is_allowed(
    view: &View,
    import: &Import,
    source: &clusterlink_model::Source,
    clients: &[SourceBits],
) -> bool {
    let labels = view.labels_of(&source.peer);
    let destination = DestinationAttributes::egress(import, source, labels);
    let destination = view
        .policies
        .destination_bits(&import.name.namespace, &destination);
    clients
        .iter()
        .any(|client| view.policies.allows_bits(client, &destination))
}

/// Peers with an object, and callers without one.
fn join_peers(view: &View, objects: &[PeerObject], seen: &[PeerStatus]) -> Vec<Peer> {
    let listed: BTreeSet<&PeerName> = objects.iter().flat_map(|one| &one.peer).collect();
    let mut peers: BTreeMap<PeerName, Peer> = BTreeMap::new();
    // The gateway remembers for its own sake whoever it once dealt with.
    let current = |peer: &&PeerStatus| peer.reachable || listed.contains(&peer.name);
    for status in seen.iter().filter(current) {
        peers.insert(
            status.name.clone(),
            Peer {
                name: status.name.clone(),
                listed: false,
                reachable: status.is_reached_by(view.gateways_of(&status.name)),
                last_seen_ms: status.last_seen_ms,
                rtt_us: status.rtt_us,
                version: status.version.clone(),
                labels: status.labels.clone(),
                gateways: current_gateways(view, status),
                inbound_sessions: status.inbound_sessions,
                conditions: Vec::new(),
            },
        );
    }
    for object in objects {
        let Some(name) = &object.peer else { continue };
        let entry = peers.entry(name.clone()).or_insert_with(|| Peer {
            name: name.clone(),
            listed: true,
            reachable: false,
            last_seen_ms: None,
            rtt_us: None,
            version: None,
            labels: Labels::new(),
            gateways: Vec::new(),
            inbound_sessions: 0,
            conditions: Vec::new(),
        });
        entry.listed = true;
        entry.conditions.extend(object.conditions.iter().cloned());
    }
    for peer in peers.values_mut() {
        if let Some(labels) = view.peer_labels.get(&peer.name) {
            peer.labels = Labels::clone(labels);
        }
        let condition = reachability(view, peer);
        peer.conditions.push(condition);
    }
    peers.into_values().collect()
}

/// The gateways that the Peer object names, and those that are in use yet.
fn current_gateways(view: &View, peer: &PeerStatus) -> Vec<GatewayStatus> {
    let named = view.gateways_of(&peer.name);
    (peer.gateways.iter())
        .filter(|gateway| gateway.sessions > 0 || gateway.is_one_of(named))
        .cloned()
        .collect()
}

fn reachability(view: &View, peer: &Peer) -> Condition {
    let inbound_only = (view.snapshot.peers.get(&peer.name))
        .map_or(peer.gateways.is_empty(), |object| {
            object.gateways.is_empty()
        });
    let (reason, message) = match (inbound_only, peer.reachable) {
        (true, true) => (
            "InboundOnly",
            format!("{} has a session with us", peer.name),
        ),
        (true, false) => (
            "InboundOnly",
            format!(
                "Peer {} has no gateways, and no session with us; it has to call",
                peer.name
            ),
        ),
        (false, true) => ("Reachable", format!("a session with {} is up", peer.name)),
        (false, false) => ("Unreachable", unreachable(peer)),
    };
    Condition {
        kind: "PeerReachable".to_owned(),
        status: if peer.reachable { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: None,
    }
}

fn unreachable(peer: &Peer) -> String {
    let failures: Vec<String> = (peer.gateways.iter())
        .map(|gateway| match &gateway.error {
            Some(error) => format!("{}: {error}", gateway.address),
            None => format!("{}: not tried yet", gateway.address),
        })
        .collect();
    match failures.is_empty() {
        true => format!("no gateway of {} was tried yet", peer.name),
        false => format!(
            "no gateway of {} answers: {}",
            peer.name,
            failures.join("; ")
        ),
    }
}
