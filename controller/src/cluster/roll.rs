//! Which nodes may steer an address that is ours no more, and until when.
//!
//! | the agent of a node | may steer until |
//! |---|---|
//! | is connected here | it says that it has let go |
//! | has a Pod, and is not connected here | its lease has run out, counted from the release, from when it was last connected here, or from when this replica began to ask, whatever is latest |
//! | lost its Pod without an end of its containers | its lease has run out, counted from then: its process may still be there |
//! | has ended, as its kubelet says | hooks have noticed |
//! | was on a node that is gone | it is gone too |
//!
//! What was before this process is unknown to it: each node that exists then may have an agent that
//! lost its Pod a moment ago.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use clusterlink_model::ObjectName;
use jiff::{SignedDuration, Timestamp};

use super::fleet::Fleet;
use crate::agents::AgentTable;

/// How long a node steers without hearing from a controller.
const LEASE: SignedDuration = SignedDuration::from_hours(1);
/// What the clocks of this process and of the API server may differ by, and the time from a change
/// until the last replica has told its agents of it.
pub(super) const MARGIN: SignedDuration = SignedDuration::from_mins(5);
/// How long hooks may take to notice that their agent has ended.
const SILENCE: SignedDuration = SignedDuration::from_secs(10);

/// The nodes that may steer.
#[derive(Debug, Default)]
pub(super) struct Roll {
    nodes: BTreeMap<Arc<str>, Place>,
    begun: bool,
    /// Nodes whose agents were connected until just now.
    lost: BTreeSet<Arc<str>>,
}

/// What is known of one node.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// The Pod of its agent.
    pub(super) agent: Option<ObjectName>,
    /// Whether that one is ready, and so has the node's kernel tables to itself.
    ready: bool,
    /// When an agent of the node was last connected here.
    heard: Option<Timestamp>,
    /// An agent without a Pod that may still run.
    pub(super) earlier: Option<Earlier>,
}

/// An agent without a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Earlier {
    /// When it lost it.
    left: Timestamp,
    /// Until when it may steer.
    pub(super) until: Timestamp,
}

impl Roll {
    /// Takes in the agents that have a Pod, and the nodes that exist.
    pub(super) fn set_fleet<'a>(
        &mut self,
        fleet: &Fleet,
        nodes: impl IntoIterator<Item = &'a Arc<str>>,
        now: Timestamp,
    ) {
        let mut before = std::mem::take(&mut self.nodes);
        for node in nodes {
            let mut place = match before.remove(node) {
                Some(place) => place,
                None if self.begun => Place::default(),
                None => Place {
                    earlier: Some(Earlier::vanished(now)),
                    ..Place::default()
                },
            };
            let agent = fleet.get(node);
            place.replace(agent.map(|agent| (&agent.pod, agent.stopped)), now);
            place.ready = agent.is_some_and(|agent| agent.ready && !agent.stopped);
            self.nodes.insert(Arc::clone(node), place);
        }
        self.begun = true;
    }

    /// Takes in which agents are connected: one that is, and is ready, has no predecessor that runs.
    pub(super) fn meet(&mut self, table: &AgentTable) {
        for (node, place) in &mut self.nodes {
            let said = table.get(node).map(|said| &said.pod);
            if place.ready && said.is_some() && said == place.agent.as_ref() {
                place.earlier = None;
            }
        }
    }

    /// The agents of these nodes are not connected any more.
    pub(super) fn lose(&mut self, nodes: impl IntoIterator<Item = Arc<str>>) {
        self.lost.extend(nodes);
    }

    /// To be called before a round: what was lost since the last one was there until now.
    pub(super) fn begin(&mut self, now: Timestamp) {
        for node in std::mem::take(&mut self.lost) {
            if let Some(place) = self.nodes.get_mut(&node) {
                place.heard = Some(now);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Place)> {
        self.nodes.iter()
    }
}

impl Place {
    fn replace(&mut self, agent: Option<(&ObjectName, bool)>, now: Timestamp) {
        let (pod, ended) = match agent {
            Some((pod, false)) => (Some(pod), false),
            // Only the Pod that was there says something of its own end.
            Some((pod, true)) => (None, self.agent.as_ref() == Some(pod)),
            None => (None, false),
        };
        if self.agent.is_some() && self.agent.as_ref() != pod {
            let left = if ended {
                Earlier {
                    left: now,
                    until: now.saturating_add(SILENCE).unwrap_or(Timestamp::MAX),
                }
            } else {
                Earlier::vanished(now)
            };
            let before = self.earlier.filter(|before| before.until > left.until);
            self.earlier = Some(before.unwrap_or(left));
        }
        self.agent = pod.cloned();
    }

    /// Until when its agent may steer what was released at `since`, if it is not heard of again.
    /// This replica asks since `asking`.
    pub(super) fn lease_ends(&self, since: Timestamp, asking: Timestamp) -> Timestamp {
        let from = since.max(asking).max(self.heard.unwrap_or(since));
        lease_from(from)
    }
}

impl Earlier {
    fn vanished(now: Timestamp) -> Self {
        Self {
            left: now,
            until: lease_from(now),
        }
    }

    /// Whether it was told of a Service that was made at that time.
    pub(super) fn knew(&self, created: Timestamp) -> bool {
        created < self.left.saturating_add(MARGIN).unwrap_or(Timestamp::MAX)
    }
}

fn lease_from(time: Timestamp) -> Timestamp {
    time.saturating_add(LEASE + MARGIN)
        .unwrap_or(Timestamp::MAX)
}
