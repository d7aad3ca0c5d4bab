//! The objects of a cluster as its Imports need them.

use std::{collections::BTreeSet, sync::Arc};

use clusterlink_model::ObjectName;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{Index, Links, Provider, Store, store::Changed};
use crate::{
    cluster::{Kind, Observed, Outcome, WriteKey, fleet, ownership},
    translate::node,
};

impl Index {
    /// Finds the agents anew if some may have changed. Which agents serve an Import depends on all
    /// of them, so each Import is looked at again; what does not differ then is not written.
    pub(super) fn settle_fleet(&mut self, now: Timestamp) {
        let Provider::Cluster(cluster) = &mut self.provider else {
            return;
        };
        self.dirty.imports.append(&mut cluster.begin(now));
        if !std::mem::take(&mut self.dirty.fleet) {
            return;
        }
        let namespace = cluster.system_namespace();
        let pods = self
            .pods
            .iter()
            .filter(|(name, _)| *name.namespace == *namespace);
        let zone = |node: &str| {
            let node = self.nodes.get(&ObjectName::new("", node))?;
            Some(node::zone(node))
        };
        let fleet = fleet::fleet(pods.map(|(name, pod)| (name, &**pod)), zone);
        let nodes = self.nodes.names().map(|node| &node.name);
        if cluster.set_fleet(fleet, nodes, now) {
            self.dirty.imports.extend(self.imports.names().cloned());
        }
        // Nodes without an agent count for them, too.
        self.dirty.imports.append(&mut cluster.releasing());
    }

    /// Whether a change of a Pod may be one of the agents.
    pub(super) fn concerns_fleet(&self, changed: &Changed<Pod>) -> bool {
        let Provider::Cluster(cluster) = &self.provider else {
            return false;
        };
        *changed.name.namespace == *cluster.system_namespace()
            && [&changed.old, &changed.new]
                .into_iter()
                .flatten()
                .any(|pod| fleet::is_labelled(pod))
    }

    /// Notes whose objects could not be written, or can be again.
    pub(super) fn written(&mut self, keys: &BTreeSet<WriteKey>) {
        for key in keys {
            let import = match key.kind {
                Kind::Service => Some(key.name.clone()),
                Kind::EndpointSlice => self
                    .endpoint_slices
                    .get(&key.name)
                    .and_then(|slice| ownership::import_of_slice(&slice.metadata))
                    .or_else(|| import_by_slice_name(&key.name)),
            };
            self.dirty.imports.extend(import);
        }
    }

    /// Compares what the cluster has of an Import with what it should have.
    pub(super) fn reconcile_import(
        &mut self,
        name: &ObjectName,
        now: Timestamp,
    ) -> Option<Outcome> {
        let Provider::Cluster(cluster) = &mut self.provider else {
            return None;
        };
        let slices = &self.endpoint_slices;
        let observed = Observed {
            import: self.imports.get(name).cloned(),
            service: self.services.get(name).cloned(),
            slices: linked(slices, &self.slices_by_import, name),
            foreign_slices: linked(slices, &self.slices_by_service, name),
        };
        cluster.reconcile(name, &observed, now)
    }
}

/// A slice that could not be made is known by its name only.
fn import_by_slice_name(slice: &ObjectName) -> Option<ObjectName> {
    let (import, _) = slice.name.rsplit_once("-clusterlink-")?;
    Some(ObjectName::new(Arc::clone(&slice.namespace), import))
}

fn linked<K: kube::Resource>(
    store: &Store<K>,
    links: &Links<ObjectName>,
    name: &ObjectName,
) -> Vec<Arc<K>> {
    let names = links.get(name);
    names.filter_map(|one| store.get(one).cloned()).collect()
}
