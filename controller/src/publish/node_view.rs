//! The log as the agent of one node sees it.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use clusterlink_model::ResourceKey;
use clusterlink_proto::{MAX_ON_DEMAND, Version};

use super::{
    Subscriber, lock,
    log::{Entry, Reader},
    on_demand::OnDemand,
    owners::Owner,
};

/// What one agent was given: resources for everyone, the workloads of its node, and those that it
/// asked for.
#[derive(Debug)]
pub(crate) struct NodeView {
    subscriber: Subscriber,
    reader: Reader,
    /// The revision up to which the agent was given everything.
    seen: u64,
    on_demand: OnDemand,
}

/// What an agent is to be sent. Resources are shared with the log, not copied.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) upserts: Vec<Arc<Entry>>,
    pub(crate) removals: Vec<ResourceKey>,
}

/// What an agent says that it holds.
pub(crate) type Held = HashMap<ResourceKey, HeldVersion>;

/// The version of a resource that an agent holds.
#[derive(Clone, Debug)]
pub(crate) struct HeldVersion {
    pub(crate) version: Version,
    pub(crate) on_demand: bool,
}

/// So much was removed since the agent was last sent something, that it is not known any more what
/// it holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lagged;

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }
}

impl Subscriber {
    /// A reader for the agent of a node.
    pub(crate) fn node_view(&self, node: Arc<str>) -> NodeView {
        NodeView {
            subscriber: self.clone(),
            reader: Reader::Node(node),
            seen: 0,
            on_demand: OnDemand::new(MAX_ON_DEMAND),
        }
    }
}

impl NodeView {
    /// Waits until there may be something to send; false once the controller has stopped. May be
    /// cancelled without losing anything.
    pub(crate) async fn changed(&mut self) -> bool {
        while *self.subscriber.revision.borrow_and_update() <= self.seen {
            if self.on_demand.has_dropped() {
                return true;
            }
            if self.subscriber.revision.changed().await.is_err() {
                return false;
            }
        }
        true
    }

    /// What an agent lacks that holds `held`.
    pub(crate) fn first(&mut self, held: &Held) -> Batch {
        let mut batch = Batch::default();
        let entries = {
            let log = lock(&self.subscriber.log);
            self.seen = log.revision();
            let mut entries = log.readable(&self.reader);
            for (key, version) in held {
                if log.is_readable(key, &self.reader) {
                    continue;
                }
                match log.get(key) {
                    Some(entry) if version.on_demand => {
                        self.on_demand.keep(key, entry.revision);
                        entries.push(Arc::clone(entry));
                    }
                    _ => batch.removals.push(key.clone()),
                }
            }
            entries
        };
        // Outside the lock, since what was never sent is encoded here.
        batch.upserts = entries;
        batch.upserts.retain(|entry| {
            let held = held.get(&entry.resource.key());
            held.is_none_or(|held| held.version != *entry.encoded().version())
        });
        batch
    }

    /// What changed since the last batch.
    pub(crate) fn next(&mut self) -> Result<Batch, Lagged> {
        let log = lock(&self.subscriber.log);
        let changes = log.since(self.seen, &self.reader).ok_or(Lagged)?;
        self.seen = log.revision();
        let mut batch = Batch {
            upserts: changes.upserts,
            removals: changes.removals,
        };
        for key in self.on_demand.take_dropped() {
            if !log.is_readable(&key, &self.reader) {
                batch.removals.push(key);
            }
        }
        self.on_demand.retain(|key, sent| {
            if log.is_readable(key, &self.reader) {
                return false;
            }
            match log.get(key) {
                None => {
                    batch.removals.push(key.clone());
                    false
                }
                Some(entry) => {
                    if entry.revision > *sent {
                        *sent = entry.revision;
                        batch.upserts.push(Arc::clone(entry));
                    }
                    true
                }
            }
        });
        Ok(batch)
    }

    /// Whose an address is. A workload is kept current for the agent from here on.
    pub(crate) fn find(&mut self, address: IpAddr) -> Option<Owner> {
        let log = lock(&self.subscriber.log);
        let owner = log.owner(address)?;
        if let Owner::Workload(entry) = &owner {
            let key = entry.resource.key();
            if !log.is_readable(&key, &self.reader) {
                self.on_demand.keep(&key, entry.revision);
            }
        }
        Some(owner)
    }
}

#[cfg(test)]
mod tests;
