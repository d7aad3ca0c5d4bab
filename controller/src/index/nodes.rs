//! Nodes that are to be translated again.

use std::sync::Arc;

use clusterlink_model::{Resource, ResourceKey};

use super::{Index, Settled};
use crate::translate::node;

impl Index {
    pub(super) fn settle_nodes(&mut self, settled: &mut Settled) {
        for object in std::mem::take(&mut self.dirty.nodes) {
            let node = self.nodes.get(&object);
            let node = node.map(|node| Resource::Node(node::translate(&object.name, node).into()));
            let key = ResourceKey::Node(Arc::clone(&object.name));
            settled.changes.push((key, node));
        }
    }
}
