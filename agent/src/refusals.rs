//! Connects that the kernel refused, as flow records: the hook knows only that nothing is allowed,
//! here it is found out again which policy said so.

use clusterlink_gateway::{
    flow::{Attempt, Direction, EndReason, FlowRecord, now_ms},
    view::View,
};
use clusterlink_model::Client;

use crate::datapath::Refusal;

/// The record of one refused connect of `client`.
pub(crate) fn record(view: &View, client: &Client, refusal: &Refusal) -> FlowRecord {
    let import = view.import(refusal.import);
    let mut decision = None;
    let mut attempts = Vec::new();
    for source in import.iter().flat_map(|import| &import.sources) {
        let outcome = if view.snapshot.peers.contains_key(&source.peer) {
            let own = (&view.local.name, &view.local.labels);
            let labels = view.labels_of(&source.peer);
            let import = import.expect("the source is one of its");
            let said = view
                .policies
                .decide_egress(own, client, import, source, labels);
            let outcome = match (&said.policy, said.allowed) {
                // The verdict changed since the kernel refused.
                (_, true) => "allowed by now".to_owned(),
                (Some(policy), false) => format!("denied by {policy}"),
                (None, false) => "denied, no policy allows it".to_owned(),
            };
            decision.get_or_insert(said);
            outcome
        } else {
            format!("no Peer object {}", source.peer)
        };
        attempts.push(Attempt {
            peer: source.peer.clone(),
            export: source.export.clone(),
            outcome,
        });
    }
    let detail = if import.is_none_or(|import| import.sources.is_empty()) {
        "refused at connect: the import has no source".to_owned()
    } else {
        format!("refused at connect of process {}", refusal.pid)
    };
    let reason = if decision.is_some() {
        EndReason::Denied
    } else {
        EndReason::NoSource
    };
    FlowRecord {
        id: 0,
        direction: Direction::Egress,
        started_ms: now_ms(),
        client: name(client),
        client_address: None,
        import: import.map(|import| import.name.clone()),
        peer: None,
        export: None,
        backend: None,
        decision,
        attempts,
        bytes_sent: 0,
        bytes_received: 0,
        ended_ms: Some(now_ms()),
        reason: Some(reason),
        detail: Some(detail),
    }
}

fn name(client: &Client) -> String {
    match client {
        Client::Pod { name, .. } => format!("pod {name}"),
        Client::Host => "host".to_owned(),
        Client::Outside => "outside".to_owned(),
        Client::Unknown => "unknown".to_owned(),
    }
}
