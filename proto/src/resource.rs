//! Resources of the model as messages: one file per kind.

mod export;
mod import;
mod node;
mod peer;
mod policy;
#[cfg(test)]
pub(crate) mod tests;
mod workload;

use std::sync::Arc;

use clusterlink_model::Resource;

use crate::{
    invalid::Invalid,
    wire::{self, resource::Resource as Kind},
};

impl From<&Resource> for wire::Resource {
    fn from(resource: &Resource) -> Self {
        let kind = match resource {
            Resource::Import(import) => Kind::Import((&**import).into()),
            Resource::Export(export) => Kind::Export((&**export).into()),
            Resource::Peer(peer) => Kind::Peer((&**peer).into()),
            Resource::Policy(policy) => Kind::Policy((&**policy).into()),
            Resource::Workload(workload) => Kind::Workload((&**workload).into()),
            Resource::Node(node) => Kind::Node((&**node).into()),
        };
        Self {
            resource: Some(kind),
        }
    }
}

impl TryFrom<wire::Resource> for Resource {
    type Error = Invalid;

    fn try_from(resource: wire::Resource) -> Result<Self, Invalid> {
        let unknown = || {
            Invalid::new(
                "resource",
                "its kind is not known to this version; update it",
            )
        };
        Ok(match resource.resource.ok_or_else(unknown)? {
            Kind::Import(import) => Self::Import(Arc::new(import.try_into()?)),
            Kind::Export(export) => Self::Export(Arc::new(export.try_into()?)),
            Kind::Peer(peer) => Self::Peer(Arc::new(peer.try_into()?)),
            Kind::Policy(policy) => Self::Policy(Arc::new(policy.try_into()?)),
            Kind::Workload(workload) => Self::Workload(Arc::new(workload.try_into()?)),
            Kind::Node(node) => Self::Node(Arc::new(node.try_into()?)),
        })
    }
}
