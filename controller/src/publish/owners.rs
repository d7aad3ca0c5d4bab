//! Whose an address is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use clusterlink_model::{Resource, ResourceKey};

use super::log::Entry;

/// The workloads and nodes that have an address. While a pod follows another one, both may.
#[derive(Debug, Default)]
pub(super) struct Owners {
    by_address: HashMap<IpAddr, BTreeSet<ResourceKey>>,
}

/// Who has an address.
#[derive(Clone, Debug)]
pub(crate) enum Owner {
    /// A pod.
    Workload(Arc<Entry>),
    /// A node.
    Node(Arc<str>),
}

impl Owners {
    pub(super) fn insert(&mut self, key: &ResourceKey, resource: &Resource) {
        for address in addresses(resource) {
            self.by_address
                .entry(*address)
                .or_default()
                .insert(key.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &ResourceKey, resource: &Resource) {
        for address in addresses(resource) {
            if let Some(keys) = self.by_address.get_mut(address) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
    }

    /// A node's own address is the node's; of several pods the one that was named last counts.
    pub(super) fn find(
        &self,
        address: IpAddr,
        current: &BTreeMap<ResourceKey, Arc<Entry>>,
    ) -> Option<Owner> {
        let keys = self.by_address.get(&address)?;
        let node = keys.iter().find_map(|key| match key {
            ResourceKey::Node(name) => Some(Owner::Node(Arc::clone(name))),
            _ => None,
        });
        node.or_else(|| {
            let pods = keys.iter().filter_map(|key| current.get(key));
            pods.max_by_key(|entry| entry.revision)
                .map(|entry| Owner::Workload(Arc::clone(entry)))
        })
    }
}

/// Pods with the network of their node have the node's addresses: those say nothing of the pod.
fn addresses(resource: &Resource) -> &[IpAddr] {
    match resource {
        Resource::Workload(workload) if !workload.host_network => &workload.addresses,
        Resource::Node(node) => &node.addresses,
        Resource::Workload(_)
        | Resource::Import(_)
        | Resource::Export(_)
        | Resource::Peer(_)
        | Resource::Policy(_) => &[],
    }
}
