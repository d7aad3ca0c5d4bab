//! What the agents of this cluster say, as the rest of the controller reads it.
//!
//! ```text
//! agents ──Report──▶ push server ─▶ Agents ─▶ placement, status of peers and sources
//!        ◀── Ask ───                   └────▶ which released addresses are still steered
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use clusterlink_model::ObjectName;
use clusterlink_proto::NodeReport;
use tokio::sync::watch;

/// The agents by node, and what is asked of them. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Agents {
    table: watch::Sender<Arc<AgentTable>>,
    released: watch::Sender<Arc<BTreeSet<IpAddr>>>,
}

/// The agents that are connected, by the name of their node.
pub type AgentTable = BTreeMap<Arc<str>, AgentStatus>;

/// One connected agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// The pod that it authenticated as.
    pub pod: ObjectName,
    /// What it said last.
    pub report: Arc<NodeReport>,
    /// The released addresses that it was asked about and does not steer (any more).
    pub let_go: BTreeSet<IpAddr>,
}

impl Agents {
    /// What the agents say, as it changes.
    pub fn table(&self) -> watch::Receiver<Arc<AgentTable>> {
        self.table.subscribe()
    }

    /// Notes what the agent of a node says; none is for an agent that left.
    pub fn set(&self, node: &Arc<str>, agent: Option<AgentStatus>) {
        self.table.send_if_modified(|table| {
            if table.get(node) == agent.as_ref() {
                return false;
            }
            let table = Arc::make_mut(table);
            match agent {
                Some(agent) => drop(table.insert(Arc::clone(node), agent)),
                None => drop(table.remove(node)),
            }
            true
        });
    }

    /// Addresses that stopped being ours, of which every agent is asked whether it steers them.
    pub fn released(&self) -> watch::Receiver<Arc<BTreeSet<IpAddr>>> {
        self.released.subscribe()
    }

    /// Replaces the addresses that agents are asked about.
    pub fn ask(&self, released: BTreeSet<IpAddr>) {
        self.released.send_if_modified(|before| {
            let changed = **before != released;
            if changed {
                *before = Arc::new(released);
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_says_the_same_wakes_nobody() {
        let agents = Agents::default();
        let mut table = agents.table();
        let node: Arc<str> = "n1".into();
        let agent = AgentStatus {
            pod: ObjectName::new("clusterlink-system", "agent-1"),
            report: Arc::default(),
            let_go: BTreeSet::new(),
        };
        agents.set(&node, Some(agent.clone()));
        assert!(table.has_changed().unwrap());
        assert_eq!(table.borrow_and_update().get(&node), Some(&agent));
        agents.set(&node, Some(agent));
        assert!(!table.has_changed().unwrap());
        agents.set(&node, None);
        assert!(table.borrow_and_update().is_empty());
    }
}
