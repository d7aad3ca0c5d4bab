//! Which agents reject an Import: they are no endpoints of it, since what they could not put in force they
//! do not serve, and somebody else may have its port.
//!
//! | the agent of a node | is an endpoint |
//! |---|---|
//! | says that it rejects the Import | no |
//! | has said so, and does no more | after a pause, which is the longer the oftener that happens |
//! | is not connected here, or still waits for something | as before, which the note on the Import's slices tells a leader that has not heard it yet |

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use clusterlink_model::{ObjectName, ResourceKey};
use clusterlink_proto::NodeReport;
use jiff::{SignedDuration, Timestamp};

use crate::agents::AgentTable;

/// How long an agent that rejects an Import no more stays left out for the first time: longer than one
/// takes from being ready to having tried all its ports.
pub(super) const PAUSE: SignedDuration = SignedDuration::from_secs(3);
/// The longest pause. An agent that rejects and takes an Import all the time costs two writes in so long.
pub(super) const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// How long it is remembered that an Import was rejected.
const MEMORY: SignedDuration = SignedDuration::from_mins(10);

/// The nodes whose agents reject an Import, and why; not known of what is only noted on its slices.
pub(super) type Rejecting = BTreeMap<Arc<str>, Option<Arc<str>>>;

type Key = (ObjectName, Arc<str>);

/// What all agents reject.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    imports: BTreeMap<ObjectName, BTreeMap<Arc<str>, Rejection>>,
    by_node: BTreeMap<Arc<str>, BTreeSet<ObjectName>>,
    /// Those that change with time alone.
    passing: BTreeSet<Key>,
}

#[derive(Debug)]
struct Rejection {
    reason: Option<Arc<str>>,
    state: State,
    /// How often it began within [`MEMORY`] of the time before.
    times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The agent says so.
    Said,
    /// It does not any more, since the last round.
    Unsaid,
    /// It may be an endpoint again at that time.
    Pausing { until: Timestamp },
    /// It is one, and its rejection is remembered.
    Over { until: Timestamp },
}

impl Rejections {
    /// Takes in what agents say, and names the Imports that it makes a difference for at once.
    pub(super) fn update(
        &mut self,
        before: &AgentTable,
        after: &AgentTable,
    ) -> BTreeSet<ObjectName> {
        let mut affected = BTreeSet::new();
        for (node, agent) in after {
            let old = before.get(node);
            if old.is_some_and(|old| Arc::ptr_eq(&old.report, &agent.report)) {
                continue;
            }
            let said = rejected(&agent.report);
            for (import, reason) in &said {
                if self.say(import, node, reason) {
                    affected.insert((*import).clone());
                }
            }
            if is_heard(after, node) {
                self.unsay(node, &said);
            }
        }
        affected
    }

    /// To be called before a round: names the Imports that have got an agent back.
    pub(super) fn begin(&mut self, now: Timestamp) -> BTreeSet<ObjectName> {
        let mut back = BTreeSet::new();
        let mut forgotten = Vec::new();
        let Self {
            imports, passing, ..
        } = self;
        let after = |pause| now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        passing.retain(|key| {
            let (import, node) = key;
            let rejection = imports.get_mut(import).and_then(|all| all.get_mut(node));
            let Some(rejection) = rejection else {
                return false;
            };
            match rejection.state {
                State::Said => return false,
                State::Unsaid => {
                    let until = after(pause(rejection.times));
                    rejection.state = State::Pausing { until };
                }
                State::Pausing { until } if until <= now => {
                    let until = after(MEMORY);
                    rejection.state = State::Over { until };
                    back.insert(import.clone());
                }
                State::Over { until } if until <= now => forgotten.push(key.clone()),
                State::Pausing { .. } | State::Over { .. } => {}
            }
            true
        });
        for (import, node) in forgotten {
            self.forget(&import, &node);
        }
        back
    }

    /// When to begin a round at the latest.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        let states = self.passing.iter().filter_map(|(import, node)| {
            let rejection = self.imports.get(import)?.get(node)?;
            Some(rejection.state)
        });
        let times = states.filter_map(|state| match state {
            State::Pausing { until } => Some(until),
            State::Said | State::Unsaid | State::Over { .. } => None,
        });
        times.min()
    }

    /// Takes in what is noted on an Import's slices. For the leader that counts for agents that it has not
    /// heard; for another replica it is all that there is.
    pub(super) fn follow(
        &mut self,
        import: &ObjectName,
        noted: BTreeSet<Arc<str>>,
        leading_by: Option<&AgentTable>,
    ) {
        if leading_by.is_none() {
            let all = self.imports.get(import).into_iter().flatten();
            let others: Vec<_> = all.map(|(node, _)| Arc::clone(node)).collect();
            for node in others {
                self.forget(import, &node);
            }
        }
        for node in noted {
            if leading_by.is_some_and(|table| is_heard(table, &node)) {
                continue;
            }
            if let Entry::Vacant(vacant) = self.entry(import, &node) {
                vacant.insert(Rejection::said(None));
            }
        }
    }

    /// The nodes that are gone reject nothing.
    pub(super) fn retain_nodes(&mut self, exists: impl Fn(&Arc<str>) -> bool) {
        let gone = self.by_node.keys().filter(|node| !exists(node));
        let gone: Vec<_> = gone.cloned().collect();
        for node in gone {
            for import in self.by_node.get(&node).cloned().unwrap_or_default() {
                self.forget(&import, &node);
            }
        }
    }

    /// The nodes whose agents are no endpoints of an Import.
    pub(super) fn of(&self, import: &ObjectName) -> Rejecting {
        let all = self.imports.get(import).into_iter().flatten();
        let kept = all.filter(|(_, one)| !matches!(one.state, State::Over { .. }));
        kept.map(|(node, one)| (Arc::clone(node), one.reason.clone()))
            .collect()
    }

    /// Says whether that makes a difference.
    fn say(&mut self, import: &ObjectName, node: &Arc<str>, reason: &str) -> bool {
        self.passing.remove(&(import.clone(), Arc::clone(node)));
        match self.entry(import, node) {
            Entry::Vacant(vacant) => {
                vacant.insert(Rejection::said(Some(reason.into())));
                true
            }
            Entry::Occupied(mut occupied) => {
                let known = occupied.get_mut();
                let again = matches!(known.state, State::Over { .. });
                known.times = known.times.saturating_add(u32::from(again));
                known.state = State::Said;
                let differs = known.reason.as_deref() != Some(reason);
                if differs {
                    known.reason = Some(reason.into());
                }
                again || differs
            }
        }
    }

    /// The agent of a node says of nothing else that it rejects it.
    fn unsay(&mut self, node: &Arc<str>, said: &BTreeMap<&ObjectName, &str>) {
        for import in self.by_node.get(node).into_iter().flatten() {
            if said.contains_key(import) {
                continue;
            }
            let known = self.imports.get_mut(import);
            let Some(known) = known.and_then(|all| all.get_mut(node)) else {
                continue;
            };
            if known.state == State::Said {
                known.state = State::Unsaid;
                self.passing.insert((import.clone(), Arc::clone(node)));
            }
        }
    }

    fn entry(&mut self, import: &ObjectName, node: &Arc<str>) -> Entry<'_, Arc<str>, Rejection> {
        let imports = self.by_node.entry(Arc::clone(node)).or_default();
        imports.insert(import.clone());
        let nodes = self.imports.entry(import.clone()).or_default();
        nodes.entry(Arc::clone(node))
    }

    fn forget(&mut self, import: &ObjectName, node: &Arc<str>) {
        self.passing.remove(&(import.clone(), Arc::clone(node)));
        if let Some(nodes) = self.imports.get_mut(import) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.imports.remove(import);
            }
        }
        if let Some(imports) = self.by_node.get_mut(node) {
            imports.remove(import);
            if imports.is_empty() {
                self.by_node.remove(node);
            }
        }
    }
}

impl Rejection {
    fn said(reason: Option<Arc<str>>) -> Self {
        Self {
            reason,
            state: State::Said,
            times: 1,
        }
    }
}

/// Whether what the agent of a node does not say counts, too: before all is in force there it has tried
/// nothing, and when it stops it has given up its ports.
fn is_heard(table: &AgentTable, node: &Arc<str>) -> bool {
    let agent = table.get(node);
    agent.is_some_and(|agent| agent.report.waits_for.is_empty())
}

fn rejected(report: &NodeReport) -> BTreeMap<&ObjectName, &str> {
    let mut all = BTreeMap::new();
    for one in &report.rejected {
        if let ResourceKey::Import(import) = &one.key {
            all.entry(import).or_insert(&*one.reason);
        }
    }
    all
}

fn pause(times: u32) -> SignedDuration {
    let doubled = 2_i32.saturating_pow(times.saturating_sub(1).min(16));
    PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests;
