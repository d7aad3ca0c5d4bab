//! What is known of an object → its `status`, as the API server stores it. Pure: the time and what
//! the API server has now are arguments.

pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod peer;
pub(crate) mod policy;

use std::collections::BTreeSet;

use clusterlink_model::PeerName;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;

use super::{ConditionStatus, news::Entry, reach::Reach};

/// What the schema admits of a message.
const MAX_MESSAGE: usize = 32_768;

/// What is known beside the object.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// What the agents say.
    pub(crate) reach: &'a Reach,
    /// The peers that have a Peer object.
    pub(crate) peers: &'a BTreeSet<PeerName>,
    /// Where Peer objects count.
    pub(crate) system_namespace: &'a str,
    /// The agents have had the time to report to this leader. Until then nothing becomes worse
    /// because of what was not said yet.
    pub(crate) heard_all: bool,
    /// The time.
    pub(crate) now: Timestamp,
}

/// The status of an object of any kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Rendered {
    Export(clusterlink_crds::ExportStatus),
    Import(clusterlink_crds::ImportStatus),
    Peer(clusterlink_crds::PeerStatus),
    Policy(clusterlink_crds::PolicyStatus),
}

impl Rendered {
    /// What the object says now.
    pub(crate) fn observed(entry: &Entry) -> Self {
        match entry {
            Entry::Export(one) => Self::Export(one.object.status.clone().unwrap_or_default()),
            Entry::Import(one) => Self::Import(one.object.status.clone().unwrap_or_default()),
            Entry::Peer(one) => Self::Peer(one.object.status.clone().unwrap_or_default()),
            Entry::AccessPolicy(one) => Self::Policy(one.object.status.clone().unwrap_or_default()),
            Entry::PrivilegedAccessPolicy(one) => {
                Self::Policy(one.object.status.clone().unwrap_or_default())
            }
        }
    }

    /// What it should say; `observed` is of the same kind.
    pub(crate) fn desired(entry: &Entry, observed: &Self, context: &Context<'_>) -> Self {
        match (entry, observed) {
            (Entry::Export(one), Self::Export(observed)) => {
                Self::Export(export::render(&one.status, observed))
            }
            (Entry::Import(one), Self::Import(observed)) => {
                Self::Import(import::render(&one.status, observed, context))
            }
            (Entry::Peer(one), Self::Peer(observed)) => {
                let generation = one.object.metadata.generation;
                Self::Peer(peer::render(&one.status, generation, observed, context))
            }
            (Entry::AccessPolicy(one), Self::Policy(observed)) => {
                Self::Policy(policy::render(&one.status, observed))
            }
            (Entry::PrivilegedAccessPolicy(one), Self::Policy(observed)) => {
                Self::Policy(policy::render(&one.status, observed))
            }
            // A recreated object of another kind under one key is impossible: the kind is in the key.
            (_, other) => other.clone(),
        }
    }

    /// Its conditions.
    pub(crate) fn conditions(&self) -> &[Condition] {
        match self {
            Self::Export(status) => &status.conditions,
            Self::Import(status) => &status.conditions,
            Self::Peer(status) => &status.conditions,
            Self::Policy(status) => &status.conditions,
        }
    }

    /// The leased target port, of an Import.
    pub(crate) fn target_port(&self) -> Option<u16> {
        match self {
            Self::Import(status) => status.target_port,
            Self::Export(_) | Self::Peer(_) | Self::Policy(_) => None,
        }
    }

    /// Whether two differ in more than what changes all the time: times, and words that name one
    /// node of many.
    pub(crate) fn differs_firmly(&self, other: &Self) -> bool {
        self.clone().firm() != other.clone().firm()
    }

    fn firm(mut self) -> Self {
        match &mut self {
            Self::Peer(status) => {
                status.last_seen = None;
                status.rtt = None;
                for condition in &mut status.conditions {
                    condition.message.clear();
                }
            }
            Self::Import(status) => {
                for source in &mut status.sources {
                    source.message.clear();
                }
            }
            Self::Export(_) | Self::Policy(_) => {}
        }
        self
    }
}

/// Conditions as they are stored. The time of the last transition is that of the stored condition
/// as long as its status stays, whoever wrote it.
fn conditions(found: &[super::Condition], observed: &[Condition]) -> Vec<Condition> {
    let one = |found: &super::Condition| {
        let status = match found.status {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
        };
        condition(
            observed,
            found.last_transition_time,
            found.observed_generation,
            Words {
                kind: found.kind,
                status,
                reason: found.reason,
                message: found.message.clone(),
            },
        )
    };
    found.iter().map(one).collect()
}

/// A condition before it is dated.
struct Words<'a> {
    kind: &'a str,
    status: &'a str,
    reason: &'a str,
    message: String,
}

fn condition(
    observed: &[Condition],
    since: Timestamp,
    observed_generation: Option<i64>,
    words: Words<'_>,
) -> Condition {
    let before = observed
        .iter()
        .find(|before| before.type_ == words.kind && before.status == words.status);
    Condition {
        type_: words.kind.to_owned(),
        status: words.status.to_owned(),
        reason: words.reason.to_owned(),
        message: shortened(words.message, MAX_MESSAGE),
        last_transition_time: before
            .map_or_else(|| time(since), |before| before.last_transition_time.clone()),
        observed_generation,
    }
}

/// A time as it is stored, in whole seconds: else what is read back would differ.
fn time(timestamp: Timestamp) -> Time {
    Time(Timestamp::from_second(timestamp.as_second()).unwrap_or(timestamp))
}

/// At most that many bytes of a text.
pub(crate) fn shortened(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
