//! Connects that the kernel refused, as flow records: the hook knows only that nothing is allowed,
//! here it is found out again which policy said so.

use std::sync::Arc;

use clusterlink_gateway::flow::{Attempt, Direction, EndReason, FlowRecord, now_ms};
use clusterlink_model::{Client, Import, policy::Decision};

use crate::{
    datapath::{CLASS_HOST, Refusal},
    state::{Moment, Recent},
};

/// How a source is shown that was not asked again.
const DENIED_THERE: &str = "remote: denied a moment ago";

/// The record of one refused connect.
pub(crate) fn record(recent: &Recent, refusal: &Refusal) -> FlowRecord {
    let mut moments = (recent.at(refusal.kernel_time_ns)).map(|moment| explain(moment, refusal));
    let mut held_then = moments.next().unwrap_or_default();
    if held_then.is_refusal {
        return held_then.record(refusal);
    }
    if recent.was_withheld(refusal.class, refusal.import, refusal.kernel_time_ns) {
        for attempt in &mut held_then.attempts {
            DENIED_THERE.clone_into(&mut attempt.outcome);
        }
        return held_then.record(refusal);
    }
    let other = moments.find(|explained| explained.is_refusal);
    other.unwrap_or(held_then).record(refusal)
}

/// Why a connect was refused, according to one moment.
#[derive(Default)]
struct Explained {
    client: String,
    import: Option<Arc<Import>>,
    decision: Option<Decision>,
    attempts: Vec<Attempt>,
    /// Whether it would have been refused at all.
    is_refusal: bool,
}

fn explain(moment: &Moment, refusal: &Refusal) -> Explained {
    let view = &*moment.view;
    let client = if refusal.class == CLASS_HOST {
        Client::Host
    } else {
        moment.client(refusal.cgroup)
    };
    let mut explained = Explained {
        client: name(&client),
        import: view.import(refusal.import).cloned(),
        ..Explained::default()
    };
    let Some(import) = &explained.import else {
        return explained;
    };
    explained.is_refusal = true;
    for source in &import.sources {
        let outcome = if view.snapshot.peers.contains_key(&source.peer) {
            let own = (&view.local.name, &view.local.labels);
            let labels = view.labels_of(&source.peer);
            let said = (view.policies).decide_egress(own, &client, import, source, labels);
            explained.is_refusal &= !said.allowed;
            let outcome = match (&said.policy, said.allowed) {
                (_, true) => "allowed by now".to_owned(),
                (Some(policy), false) => format!("denied by {policy}"),
                (None, false) => "denied, no policy allows it".to_owned(),
            };
            explained.decision.get_or_insert(said);
            outcome
        } else {
            format!("no Peer object {}", source.peer)
        };
        explained.attempts.push(Attempt {
            peer: source.peer.clone(),
            export: source.export.clone(),
            outcome,
        });
    }
    explained
}

impl Explained {
    fn record(self, refusal: &Refusal) -> FlowRecord {
        let import = self.import.as_deref();
        let detail = if import.is_none_or(|import| import.sources.is_empty()) {
            "refused at connect: the import has no source".to_owned()
        } else {
            format!("refused at connect of process {}", refusal.pid)
        };
        let reason = if self.decision.is_some() {
            EndReason::Denied
        } else {
            EndReason::NoSource
        };
        FlowRecord {
            id: 0,
            direction: Direction::Egress,
            started_ms: now_ms(),
            client: self.client,
            client_address: None,
            import: import.map(|import| import.name.clone()),
            peer: None,
            export: None,
            backend: None,
            decision: self.decision,
            attempts: self.attempts,
            bytes_sent: 0,
            bytes_received: 0,
            ended_ms: Some(now_ms()),
            reason: Some(reason),
            detail: Some(detail),
        }
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
