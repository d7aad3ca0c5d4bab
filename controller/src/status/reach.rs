//! What the agents say of peers and sources, merged over the nodes.
//!
//! ```text
//! Agents ─ table ─▶ Reach (by peer, by source; only nodes with a new report are looked at) ─▶ render
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use clusterlink_model::{Labels, ObjectName, PeerName, Source};
use clusterlink_proto::{NodeReport, PeerReport};

use crate::agents::AgentTable;

/// The reports of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    reports: BTreeMap<Arc<str>, Arc<NodeReport>>,
    peers: BTreeMap<PeerName, BTreeMap<Arc<str>, Seen>>,
    sources: BTreeMap<ObjectName, BTreeMap<Source, Answers>>,
}

/// A peer as one node sees it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    report: PeerReport,
}

/// What the peer said of a source, by node: nothing for yes, else the reason.
type Answers = BTreeMap<Arc<str>, Option<Arc<str>>>;

/// What changed with the newest reports in a way that people should see soon.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Peers that became reachable or unreachable, or say other things of themselves.
    pub(crate) peers: BTreeSet<PeerName>,
    /// Imports with a source that is accepted or refused now.
    pub(crate) imports: BTreeSet<ObjectName>,
    /// The first agent came, or the last one left.
    pub(crate) any_agent: bool,
}

/// A peer, merged over the nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PeerReach {
    /// How many agents are connected.
    pub(crate) agents: usize,
    /// How many of them know the peer.
    pub(crate) told: usize,
    /// How many have a session with it.
    pub(crate) reachable: usize,
    /// The node with the shortest way.
    pub(crate) best: Option<(Arc<str>, Duration)>,
    /// The node with the longest way.
    pub(crate) worst: Option<(Arc<str>, Duration)>,
    /// A node without a session, and why.
    pub(crate) failing: Option<(Arc<str>, String)>,
    /// When it was last heard from by any, in milliseconds since the epoch.
    pub(crate) last_seen_ms: Option<u64>,
    /// What it runs.
    pub(crate) software: Option<String>,
    /// What it says of itself; none while nobody has heard it.
    pub(crate) labels: Option<Labels>,
}

impl Reach {
    /// Takes in the table of the agents.
    pub(crate) fn update(&mut self, table: &AgentTable) -> Changed {
        let mut changed = Changed::default();
        let before = self.reports.is_empty();
        let gone: Vec<_> = self
            .reports
            .keys()
            .filter(|node| !table.contains_key(*node))
            .cloned()
            .collect();
        for node in gone {
            self.replace(&node, None, &mut changed);
        }
        for (node, agent) in table {
            let same = self
                .reports
                .get(node)
                .is_some_and(|report| Arc::ptr_eq(report, &agent.report));
            if !same {
                self.replace(node, Some(&agent.report), &mut changed);
            }
        }
        changed.any_agent = before != self.reports.is_empty();
        changed
    }

    /// A peer, merged over the nodes.
    pub(crate) fn peer(&self, name: &PeerName) -> PeerReach {
        let mut merged = PeerReach {
            agents: self.reports.len(),
            ..PeerReach::default()
        };
        let mut newest = 0;
        for (node, Seen { report }) in self.peers.get(name).into_iter().flatten() {
            merged.told += 1;
            let seen = report.last_seen_ms;
            merged.last_seen_ms = merged.last_seen_ms.max(seen);
            if report.reachable {
                merged.reachable += 1;
                if let Some(rtt) = report.rtt {
                    merged.measure(node, rtt);
                }
            } else if merged.failing.is_none() {
                merged.failing = Some((Arc::clone(node), report.error.clone().unwrap_or_default()));
            }
            // Of what it says of itself, the newest counts: nodes may still remember older words.
            let heard = report.reachable || report.software.is_some();
            if heard && seen.unwrap_or_default() >= newest {
                newest = seen.unwrap_or_default();
                merged.software = report.software.clone().or(merged.software);
                merged.labels = Some(report.labels.clone());
            }
        }
        merged
    }

    /// What was said of a source: accepted by any node, refused with a reason, or never asked.
    pub(crate) fn source(
        &self,
        import: &ObjectName,
        source: &Source,
    ) -> Option<Result<(), Arc<str>>> {
        let answers = self.sources.get(import)?.get(source)?;
        if answers.values().any(Option::is_none) {
            return Some(Ok(()));
        }
        answers.values().flatten().next().cloned().map(Err)
    }

    fn replace(
        &mut self,
        node: &Arc<str>,
        report: Option<&Arc<NodeReport>>,
        changed: &mut Changed,
    ) {
        let old = match report {
            Some(report) => self.reports.insert(Arc::clone(node), Arc::clone(report)),
            None => self.reports.remove(node),
        };
        let empty = NodeReport::default();
        let (old, new) = (
            old.as_deref().unwrap_or(&empty),
            report.map_or(&empty, |r| r),
        );
        self.replace_peers(node, old, new, changed);
        self.replace_sources(node, old, new, changed);
    }

    fn replace_peers(
        &mut self,
        node: &Arc<str>,
        old: &NodeReport,
        new: &NodeReport,
        changed: &mut Changed,
    ) {
        let mut gone: BTreeSet<&PeerName> = old.peers.iter().map(|peer| &peer.name).collect();
        for report in &new.peers {
            gone.remove(&report.name);
            let seen = Seen {
                report: report.clone(),
            };
            let nodes = self.peers.entry(report.name.clone()).or_default();
            let before = nodes.insert(Arc::clone(node), seen);
            if before.is_none_or(|before| before.differs(report)) {
                changed.peers.insert(report.name.clone());
            }
        }
        for name in gone {
            changed.peers.insert(name.clone());
            if let Some(nodes) = self.peers.get_mut(name) {
                nodes.remove(node);
                if nodes.is_empty() {
                    self.peers.remove(name);
                }
            }
        }
    }

    fn replace_sources(
        &mut self,
        node: &Arc<str>,
        old: &NodeReport,
        new: &NodeReport,
        changed: &mut Changed,
    ) {
        let mut gone: BTreeSet<(&ObjectName, &Source)> = old
            .sources
            .iter()
            .map(|one| (&one.import, &one.source))
            .collect();
        for report in &new.sources {
            gone.remove(&(&report.import, &report.source));
            let answer = (!report.accepted).then(|| Arc::from(&*report.reason));
            let sources = self.sources.entry(report.import.clone()).or_default();
            let answers = sources.entry(report.source.clone()).or_default();
            let before = answers.insert(Arc::clone(node), answer.clone());
            if before != Some(answer) {
                changed.imports.insert(report.import.clone());
            }
        }
        for (import, source) in gone {
            changed.imports.insert(import.clone());
            let Some(sources) = self.sources.get_mut(import) else {
                continue;
            };
            if let Some(answers) = sources.get_mut(source) {
                answers.remove(node);
                if answers.is_empty() {
                    sources.remove(source);
                }
            }
            if sources.is_empty() {
                self.sources.remove(import);
            }
        }
    }
}

impl Seen {
    /// Whether a newer report says something that should be seen soon; times change all the time.
    fn differs(&self, newer: &PeerReport) -> bool {
        let older = &self.report;
        older.reachable != newer.reachable
            || older.software != newer.software
            || older.labels != newer.labels
            || older.last_seen_ms.is_some() != newer.last_seen_ms.is_some()
    }
}

impl PeerReach {
    fn measure(&mut self, node: &Arc<str>, rtt: Duration) {
        if self.best.as_ref().is_none_or(|(_, best)| rtt < *best) {
            self.best = Some((Arc::clone(node), rtt));
        }
        if self.worst.as_ref().is_none_or(|(_, worst)| rtt > *worst) {
            self.worst = Some((Arc::clone(node), rtt));
        }
    }
}

#[cfg(test)]
mod tests;
