//! Which stream speaks for a node: the one that came last.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::agents::{AgentStatus, Agents};

/// The Report streams by node.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    agents: Agents,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    by_node: BTreeMap<Arc<str>, (u64, CancellationToken)>,
}

/// The right to speak for a node, until another stream takes it over. Dropping it says that the
/// agent has left.
#[derive(Debug)]
pub(super) struct Owned {
    owners: Owners,
    node: Arc<str>,
    number: u64,
    taken_over: CancellationToken,
}

impl Owners {
    pub(super) fn new(agents: Agents) -> Self {
        Self {
            agents,
            table: Arc::default(),
        }
    }

    /// Takes a node over from an earlier stream.
    pub(super) fn own(&self, node: &Arc<str>) -> Owned {
        let mut table = self.lock();
        table.last += 1;
        let number = table.last;
        let taken_over = CancellationToken::new();
        let place = (number, taken_over.clone());
        if let Some((_, earlier)) = table.by_node.insert(Arc::clone(node), place) {
            earlier.cancel();
        }
        Owned {
            owners: self.clone(),
            node: Arc::clone(node),
            number,
            taken_over,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owned {
    /// Waits until another stream speaks for the node.
    pub(super) async fn taken_over(&self) {
        self.taken_over.cancelled().await;
    }

    /// Notes what the agent says, unless another stream speaks for its node.
    pub(super) fn set(&self, status: AgentStatus) {
        let table = self.owners.lock();
        if table
            .by_node
            .get(&self.node)
            .is_some_and(|(number, _)| *number == self.number)
        {
            self.owners.agents.set(&self.node, Some(status));
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut table = self.owners.lock();
        if table
            .by_node
            .get(&self.node)
            .is_some_and(|(number, _)| *number == self.number)
        {
            table.by_node.remove(&self.node);
            self.owners.agents.set(&self.node, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clusterlink_model::ObjectName;
    use futures::FutureExt as _;

    use super::*;

    fn status(pod: &str) -> AgentStatus {
        AgentStatus {
            pod: ObjectName::new("clusterlink-system", pod),
            report: Arc::default(),
            let_go: BTreeSet::new(),
        }
    }

    #[test]
    fn a_late_end_of_an_earlier_stream_says_nothing_of_its_successor() {
        let agents = Agents::default();
        let owners = Owners::new(agents.clone());
        let node: Arc<str> = "n1".into();
        let earlier = owners.own(&node);
        earlier.set(status("a-1"));
        let later = owners.own(&node);
        later.set(status("a-2"));
        earlier.taken_over().now_or_never().unwrap();
        assert!(later.taken_over().now_or_never().is_none());
        earlier.set(status("a-1"));
        drop(earlier);
        assert_eq!(agents.table().borrow().get(&node), Some(&status("a-2")));
        drop(later);
        assert!(agents.table().borrow().is_empty());
    }
}
