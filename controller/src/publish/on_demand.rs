//! Workloads of other nodes that one agent has asked for.

use std::collections::{HashMap, VecDeque};

use clusterlink_model::ResourceKey;

/// Which were asked for, in that order, and the revision that the agent has of each.
#[derive(Debug)]
pub(super) struct OnDemand {
    limit: usize,
    order: VecDeque<ResourceKey>,
    sent: HashMap<ResourceKey, u64>,
    dropped: Vec<ResourceKey>,
}

impl OnDemand {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            order: VecDeque::new(),
            sent: HashMap::new(),
            dropped: Vec::new(),
        }
    }

    /// Keeps a workload current from a revision on. One that is kept already stays as it is: what
    /// was taken for it earlier may still be on its way.
    pub(super) fn keep(&mut self, key: &ResourceKey, revision: u64) {
        if self.sent.contains_key(key) {
            return;
        }
        self.dropped.retain(|dropped| dropped != key);
        self.sent.insert(key.clone(), revision);
        self.order.push_back(key.clone());
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.sent.remove(&oldest);
            self.dropped.push(oldest);
        }
    }

    /// What was dropped to keep within the limit, since this was last asked.
    pub(super) fn take_dropped(&mut self) -> Vec<ResourceKey> {
        std::mem::take(&mut self.dropped)
    }

    pub(super) fn has_dropped(&self) -> bool {
        !self.dropped.is_empty()
    }

    /// Goes through what is kept, with the revision that the agent has; what `keep` answers false
    /// to is kept no longer.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&ResourceKey, &mut u64) -> bool) {
        self.sent.retain(|key, revision| keep(key, revision));
        if self.sent.len() < self.order.len() {
            self.order.retain(|key| self.sent.contains_key(key));
        }
    }
}
