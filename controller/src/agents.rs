//! What the agents of this cluster say, as the rest of the controller reads it.
//!
//! ```text
//! agents ──Report──▶ push server ─▶ Agents ─▶ placement, status of peers and sources
//!        ◀── Ask ───                   └────▶ which released addresses are still steered
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clusterlink_model::ObjectName;
use clusterlink_proto::NodeReport;
use jiff::Timestamp;
use tokio::sync::watch;

/// The name of the agents: that of their ServiceAccount, and of the program in the label of their
/// Pods.
pub(crate) const AGENT: &str = "clusterlink-agent";

/// The agents by node, and what is asked of them. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Agents {
    table: watch::Sender<Arc<AgentTable>>,
    question: watch::Sender<Option<Arc<Question>>>,
    keeping: watch::Sender<Arc<BTreeSet<Keeping>>>,
    leading: Arc<Mutex<Option<Timestamp>>>,
}

/// What agents are asked about addresses that stopped being ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// What others have asked before stays released, too: it is not known here.
    pub adds: bool,
}

/// An agent that is connected and does not say that it has let go of the addresses of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keeping {
    /// The Service that cannot be given up for it.
    pub service: ObjectName,
    /// The UID of that.
    pub uid: String,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The node of the agent.
    pub node: Arc<str>,
    /// The agent's Pod.
    pub agent: Option<ObjectName>,
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

    /// Notes what the agent of a node says; none is for an agent that left. Of addresses that are
    /// not asked about (any more), nothing is kept: they may be in use again.
    pub fn set(&self, node: &Arc<str>, mut agent: Option<AgentStatus>) {
        if let Some(agent) = &mut agent {
            let question = self.question.borrow();
            let asked = question.as_ref().map(|question| &question.addresses);
            (agent.let_go).retain(|address| asked.is_some_and(|asked| asked.contains(address)));
        }
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

    /// Says whether agents report to this replica, which is to be said before it writes anything:
    /// what was decided before, it did not hear the agents for.
    pub fn lead(&self, leads: bool) {
        let mut leading = self.leading();
        if leading.is_some() == leads {
            return;
        }
        *leading = leads.then(Timestamp::now);
        drop(leading);
        // Who waits for agents has to look again.
        self.table.send_modify(|_| {});
    }

    /// Since when agents report to this replica; `None` if they do not.
    pub fn leading_since(&self) -> Option<Timestamp> {
        *self.leading()
    }

    fn leading(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.leading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What every agent is asked; `None` before everything was read once, since to ask about nothing
    /// would take back what another replica has asked.
    pub fn question(&self) -> watch::Receiver<Option<Arc<Question>>> {
        self.question.subscribe()
    }

    /// The addresses that agents are asked about.
    pub fn asked(&self) -> BTreeSet<IpAddr> {
        let question = self.question.borrow();
        question
            .as_ref()
            .map_or_else(BTreeSet::new, |question| question.addresses.clone())
    }

    /// The agents that have kept a released address for a while, as they change.
    pub fn keeping(&self) -> watch::Receiver<Arc<BTreeSet<Keeping>>> {
        self.keeping.subscribe()
    }

    /// Replaces the agents that keep a released address.
    pub(crate) fn set_keeping(&self, keeping: BTreeSet<Keeping>) {
        self.keeping.send_if_modified(|before| {
            let changed = **before != keeping;
            if changed {
                *before = Arc::new(keeping);
            }
            changed
        });
    }

    /// Replaces what agents are asked, and forgets the answers about other addresses: one may be used
    /// and released again, and then has to be let go anew.
    pub fn ask(&self, question: Question) {
        let question = Arc::new(question);
        self.question.send_if_modified(|before| {
            if before.as_ref() == Some(&question) {
                return false;
            }
            *before = Some(Arc::clone(&question));
            true
        });
        self.table.send_if_modified(|table| {
            let answered = |agent: &AgentStatus| !agent.let_go.is_subset(&question.addresses);
            if !table.values().any(answered) {
                return false;
            }
            for agent in Arc::make_mut(table).values_mut() {
                agent
                    .let_go
                    .retain(|address| question.addresses.contains(address));
            }
            true
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

    #[test]
    fn an_answer_counts_only_while_its_address_is_asked_about() {
        let agents = Agents::default();
        let node: Arc<str> = "n1".into();
        let address: IpAddr = "10.96.0.7".parse().unwrap();
        let says = |agents: &Agents| {
            let agent = AgentStatus {
                pod: ObjectName::new("clusterlink-system", "agent-1"),
                report: Arc::default(),
                let_go: [address].into(),
            };
            agents.set(&node, Some(agent));
        };
        let let_go = |agents: &Agents| agents.table().borrow()[&node].let_go.len();
        says(&agents);
        assert_eq!(let_go(&agents), 0, "nobody has asked");
        let ask = |addresses| {
            agents.ask(Question {
                addresses,
                adds: false,
            });
        };
        ask([address].into());
        says(&agents);
        assert_eq!(let_go(&agents), 1);
        ask(BTreeSet::new());
        ask([address].into());
        assert_eq!(let_go(&agents), 0, "it was used again meanwhile");
    }
}
