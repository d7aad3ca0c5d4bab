//! What a node agent says of objects: it has no controller in its process to ask, so it shows what it
//! was told. Conditions and mistakes are in the objects' own status.

use std::sync::Arc;

use clusterlink_gateway::view::View;
use clusterlink_model::{Backend, Export, Import, Peer, Policy, Workload};
use serde_json::Value;
use tokio::sync::watch;

use super::{
    Control, ControlReport, ExportObject, ImportObject, PeerObject, PolicyObject, SourceObject,
    SourceState, WorkloadObject,
};

/// Answers from the snapshot in force.
#[derive(Debug)]
pub struct SnapshotControl(watch::Receiver<Arc<View>>);

impl SnapshotControl {
    /// `view` is the one in force.
    pub fn new(view: watch::Receiver<Arc<View>>) -> Self {
        Self(view)
    }
}

impl Control for SnapshotControl {
    fn report(&self) -> ControlReport {
        let view = self.0.borrow().clone();
        let snapshot = &view.snapshot;
        ControlReport {
            complete: view.ready,
            problems: Vec::new(),
            imports: snapshot.imports.values().map(|one| import(one)).collect(),
            exports: snapshot.exports.values().map(|one| export(one)).collect(),
            peers: snapshot.peers.values().map(|one| peer(one)).collect(),
            policies: snapshot.policies.values().map(|one| policy(one)).collect(),
            workloads: (snapshot.workloads.values())
                .map(|one| workload(one))
                .collect(),
        }
    }
}

fn import(import: &Import) -> ImportObject {
    let sources = import.sources.iter().map(|source| SourceObject {
        peer: source.peer.to_string(),
        export_name: source.export.name.to_string(),
        export_namespace: source.export.namespace.to_string(),
        invalid: None,
        state: SourceState::default(),
    });
    ImportObject {
        name: import.name.clone(),
        port: import.port.get(),
        addresses: import.addresses.clone(),
        scheme: json(&import.scheme),
        target_port: import.target_port.map(std::num::NonZeroU16::get),
        sources: sources.collect(),
        conditions: Vec::new(),
        stale: false,
    }
}

fn export(export: &Export) -> ExportObject {
    let (host, port) = match &export.backend {
        Backend::Name(name) => (name.host.to_string(), name.port.get()),
        Backend::Import(import) => (import.name.to_string(), 0),
        Backend::Endpoints(endpoints) => (
            export.name.name.to_string(),
            endpoints.first().map_or(0, |first| first.address.port()),
        ),
        Backend::Unavailable(_) => (export.name.name.to_string(), 0),
    };
    ExportObject {
        name: export.name.clone(),
        host,
        port,
        backend: json(&export.backend),
        backends: 0,
        conditions: Vec::new(),
        stale: false,
    }
}

fn peer(peer: &Peer) -> PeerObject {
    PeerObject {
        // The namespace of Peer objects is not told to nodes: it is the system's.
        name: clusterlink_model::ObjectName::new("", peer.name.as_str()),
        peer: Some(peer.name.clone()),
        labels: peer.labels.clone(),
        conditions: Vec::new(),
        stale: false,
    }
}

fn policy(policy: &Policy) -> PolicyObject {
    PolicyObject {
        name: policy.name.clone(),
        in_force: Some(policy.action),
        warnings: Vec::new(),
        conditions: Vec::new(),
        stale: false,
    }
}

fn workload(workload: &Workload) -> WorkloadObject {
    WorkloadObject {
        name: workload.name.clone(),
        service_account: workload.attributes.service_account.to_string(),
        cgroup: workload.cgroup.as_deref().map(str::to_owned),
        addresses: workload.addresses.clone(),
        conditions: Vec::new(),
        stale: false,
    }
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
