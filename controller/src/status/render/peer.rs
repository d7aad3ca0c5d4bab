//! The status of a Peer: `PeerReachable`, merged over the nodes, and what the peer says of itself.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use clusterlink_crds::{
    PeerStatus,
    conditions::{PEER_REACHABLE, reasons},
};
use clusterlink_model::Labels;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Context, Words, condition, shortened, time};
use crate::status::{ConditionStatus, PeerObjectStatus, reach::PeerReach};

/// What the schema admits of what a peer says of itself.
const MAX_LABELS: usize = 64;
const MAX_LABEL: usize = 253;
const MAX_VERSION: usize = 256;

/// What is known of a peer, with the generation of the object that was judged.
pub(super) fn render(
    found: &PeerObjectStatus,
    generation: Option<i64>,
    observed: &PeerStatus,
    context: &Context<'_>,
) -> PeerStatus {
    let reach = found
        .peer
        .as_ref()
        .map(|peer| context.reach.peer(peer))
        .unwrap_or_default();
    let last_seen = last_seen(&reach, observed, context.now);
    let words = words(found, &reach, observed, last_seen.as_ref(), context);
    PeerStatus {
        conditions: vec![condition(
            &observed.conditions,
            context.now,
            generation,
            words,
        )],
        last_seen,
        rtt: reach.best.as_ref().map(|(_, rtt)| shown(*rtt)),
        version: reach
            .software
            .map(|software| shortened(software, MAX_VERSION))
            .or_else(|| observed.version.clone()),
        labels: reach
            .labels
            .map(bounded)
            .or_else(|| observed.labels.clone()),
    }
}

fn words(
    found: &PeerObjectStatus,
    reach: &PeerReach,
    observed: &PeerStatus,
    last_seen: Option<&Time>,
    context: &Context<'_>,
) -> Words<'static> {
    let words = |status, reason, message| Words {
        kind: PEER_REACHABLE,
        status,
        reason,
        message,
    };
    let name = &found.name;
    let invalid = found
        .conditions
        .iter()
        .find(|condition| condition.status == ConditionStatus::False);
    let inbound_only = found.gateways.is_empty() && invalid.is_none();
    if reach.reachable > 0 {
        let reason = if inbound_only {
            reasons::INBOUND_ONLY
        } else {
            reasons::REACHABLE
        };
        let mut message = sessions(reach);
        if let Some(invalid) = invalid {
            let _ = write!(message, "; but {}", invalid.message);
        }
        return words("True", reason, message);
    }
    if let Some(invalid) = invalid {
        return words("False", invalid.reason, invalid.message.clone());
    }
    if !context.heard_all
        && let Some(kept) = kept(observed)
    {
        return kept;
    }
    if reach.agents == 0 {
        let message = format!(
            "Peer {name}: no agent is connected to the controller, so nobody can say: see that the agents run"
        );
        return words("Unknown", reasons::NO_AGENTS, message);
    }
    let reason = match (inbound_only, last_seen.is_some()) {
        (true, _) => reasons::INBOUND_ONLY,
        (false, true) => reasons::UNREACHABLE,
        (false, false) => reasons::NEVER_SEEN,
    };
    if reach.told == 0 {
        let message = format!("Peer {name}: no agent has told of it yet");
        return words("Unknown", reason, message);
    }
    let mut message = format!("Peer {name}: ");
    let _ = match (inbound_only, last_seen) {
        (true, _) => write!(
            message,
            "it has no gateways, so it has to call us, and has no session with any of {} nodes: see that it runs and may connect to this cluster's gateways",
            reach.told
        ),
        (false, Some(last)) => write!(
            message,
            "no node has a session with it that answers, it was last heard from at {}: see that it runs and that its gateways are the right ones",
            last.0
        ),
        (false, None) => write!(
            message,
            "it never answered: see that its gateways are the right ones, that nothing in between blocks them, and that both peers are of one fabric"
        ),
    };
    if let Some((node, why)) = reach.failing.as_ref().filter(|(_, why)| !why.is_empty()) {
        let _ = write!(message, "; node {node}: {why}");
    }
    words("False", reason, message)
}

/// What was said before this leader, while the agents have not had the time to report.
fn kept(observed: &PeerStatus) -> Option<Words<'static>> {
    let before = observed
        .conditions
        .iter()
        .find(|condition| condition.type_ == PEER_REACHABLE)?;
    let reason = [
        reasons::REACHABLE,
        reasons::INBOUND_ONLY,
        reasons::UNREACHABLE,
        reasons::NEVER_SEEN,
        reasons::NO_AGENTS,
    ]
    .into_iter()
    .find(|reason| *reason == before.reason)?;
    let status = ["True", "False", "Unknown"]
        .into_iter()
        .find(|status| *status == before.status)?;
    Some(Words {
        kind: PEER_REACHABLE,
        status,
        reason,
        message: before.message.clone(),
    })
}

/// From where the peer is reached, and how far it is.
fn sessions(reach: &PeerReach) -> String {
    let mut message = format!("sessions from {} of {} nodes", reach.reachable, reach.told);
    let _ = match (&reach.best, &reach.worst) {
        (Some((best, nearest)), Some((worst, farthest))) if best != worst => write!(
            message,
            ", nearest {best} ({}), farthest {worst} ({})",
            shown(*nearest),
            shown(*farthest)
        ),
        (Some((node, rtt)), _) => write!(message, ", {node} ({})", shown(*rtt)),
        _ => Ok(()),
    };
    if let Some((node, why)) = &reach.failing {
        let why = if why.is_empty() { "not connected" } else { why };
        let _ = write!(message, "; none from {node}: {why}");
    }
    message
}

/// The latest time that anybody heard the peer; an agent that was restarted has forgotten. A clock
/// of a node that runs ahead counts as now.
fn last_seen(reach: &PeerReach, observed: &PeerStatus, now: Timestamp) -> Option<Time> {
    let reported = reach
        .last_seen_ms
        .and_then(|ms| i64::try_from(ms).ok())
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map(|seen| time(seen.min(now)));
    reported.max(observed.last_seen.clone())
}

/// With two digits that count: more than that is noise, and would be written again and again.
fn shown(rtt: Duration) -> String {
    let millis = rtt.as_secs_f64() * 1000.0;
    if millis < 1.0 {
        format!("{millis:.2}ms")
    } else if millis < 10.0 {
        format!("{millis:.1}ms")
    } else if millis < 100.0 {
        format!("{millis:.0}ms")
    } else {
        format!("{:.0}ms", (millis / 10.0).round() * 10.0)
    }
}

/// As much of what a peer says as the schema admits: it is another's word.
fn bounded(labels: Labels) -> BTreeMap<String, String> {
    let short =
        |(key, value): &(String, String)| key.len() <= MAX_LABEL && value.len() <= MAX_LABEL;
    labels.into_iter().filter(short).take(MAX_LABELS).collect()
}
