//! Kinds and names of resources.

use clusterlink_model::{ObjectName, PeerName, PolicyName, ResourceKey};

use crate::{
    invalid::Invalid,
    wire::{Kind, ResourceName},
};

impl From<&ResourceKey> for ResourceName {
    fn from(key: &ResourceKey) -> Self {
        let (kind, namespace, name): (_, &str, &str) = match key {
            ResourceKey::Import(n) => (Kind::Import, &n.namespace, &n.name),
            ResourceKey::Export(n) => (Kind::Export, &n.namespace, &n.name),
            ResourceKey::Peer(n) => (Kind::Peer, "", n.as_str()),
            ResourceKey::Policy(PolicyName::Namespaced(n)) => (Kind::Policy, &n.namespace, &n.name),
            ResourceKey::Policy(PolicyName::Privileged(n)) => (Kind::PrivilegedPolicy, "", n),
            ResourceKey::Workload(n) => (Kind::Workload, &n.namespace, &n.name),
            ResourceKey::Node(n) => (Kind::Node, "", n),
        };
        Self {
            kind: kind.into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl TryFrom<&ResourceName> for ResourceKey {
    type Error = Invalid;

    fn try_from(name: &ResourceName) -> Result<Self, Invalid> {
        let kind = Kind::try_from(name.kind).map_err(|error| Invalid::unknown("kind", error.0))?;
        let namespaced = || ObjectName::new(name.namespace.as_str(), name.name.as_str());
        let key = match kind {
            Kind::Unspecified => return Err(Invalid::missing("kind")),
            Kind::Import => Self::Import(namespaced()),
            Kind::Export => Self::Export(namespaced()),
            Kind::Policy => Self::Policy(PolicyName::Namespaced(namespaced())),
            Kind::Workload => Self::Workload(namespaced()),
            Kind::Peer => {
                Self::Peer(PeerName::new(&name.name).map_err(|error| Invalid::new("name", error))?)
            }
            Kind::PrivilegedPolicy => {
                Self::Policy(PolicyName::Privileged(name.name.as_str().into()))
            }
            Kind::Node => Self::Node(name.name.as_str().into()),
        };
        Ok(key)
    }
}

/// A name for people, also of a kind that is not known here.
pub fn describe(name: &ResourceName) -> String {
    let kind = match Kind::try_from(name.kind) {
        Ok(Kind::Unspecified) => "resource".to_owned(),
        Ok(Kind::Import) => "Import".to_owned(),
        Ok(Kind::Export) => "Export".to_owned(),
        Ok(Kind::Peer) => "Peer".to_owned(),
        Ok(Kind::Policy) => "AccessPolicy".to_owned(),
        Ok(Kind::PrivilegedPolicy) => "PrivilegedAccessPolicy".to_owned(),
        Ok(Kind::Workload) => "Pod".to_owned(),
        Ok(Kind::Node) => "Node".to_owned(),
        Err(error) => format!("kind {}", error.0),
    };
    if name.namespace.is_empty() {
        format!("{kind} {}", name.name)
    } else {
        format!("{kind} {}/{}", name.namespace, name.name)
    }
}
