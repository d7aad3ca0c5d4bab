//! Access policy: attributes, tiers, and the decision with the name of the policy that made it.
//!
//! Tiers, in order: privileged deny, privileged allow, namespaced deny, namespaced allow, default
//! deny. Namespaced policies count when they live in the Import's namespace (egress) or the
//! Export's namespace (ingress). Within a tier the policy with the least name is said to decide,
//! so that two gateways with the same policies give the same answer.

pub mod attribute;
mod bits;
mod compiled;
mod matcher;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::bits::{DestinationBits, SourceBits};
use self::compiled::{Compiled, Slot};
use crate::{
    client::{Client, WorkloadAttributes},
    name::{ObjectName, PeerName, PolicyName},
    resource::{Action, Export, Import, Peer, Policy, Source},
    selector::Labels,
};

/// The source of a connection, as policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct SourceAttributes<'a> {
    /// The importing peer (egress: own; ingress: the authenticated caller).
    pub peer: &'a PeerName,
    /// That peer's labels.
    pub peer_labels: &'a Labels,
    /// The workload, or `None` for host and outside clients.
    pub workload: Option<&'a WorkloadAttributes>,
}

/// The destination of a connection, as policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct DestinationAttributes<'a> {
    /// The export.
    pub export: &'a ObjectName,
    /// Labels of the Import (egress) or of the Export (ingress).
    pub export_labels: &'a Labels,
    /// The exporting peer (egress: the source's peer; ingress: own).
    pub peer: &'a PeerName,
    /// That peer's labels.
    pub peer_labels: &'a Labels,
}

/// What policy says of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether it may pass.
    pub allowed: bool,
    /// The policy that decided; `None` is the default deny.
    pub policy: Option<PolicyName>,
}

impl Decision {
    /// Refused, since no policy allows it.
    pub const DEFAULT_DENY: Self = Self {
        allowed: false,
        policy: None,
    };

    fn of(slot: Option<&Slot>) -> Self {
        slot.map_or(Self::DEFAULT_DENY, |slot| Self {
            allowed: slot.action == Action::Allow,
            policy: Some(slot.name.clone()),
        })
    }
}

/// The policies of a node, compiled for fast decisions. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    compiled: Arc<Compiled>,
}

impl PolicySet {
    /// Compiles `policies`.
    pub fn new(policies: impl IntoIterator<Item = Arc<Policy>>) -> Self {
        Self {
            compiled: Arc::new(Compiled::new(policies)),
        }
    }

    /// Judges one connection; `namespace` is the Import's or the Export's.
    pub fn decide(
        &self,
        namespace: &str,
        source: SourceAttributes<'_>,
        destination: DestinationAttributes<'_>,
    ) -> Decision {
        let privileged = self.compiled.slots(self.compiled.privileged());
        let namespaced = self.compiled.slots(self.compiled.namespaced(namespace));
        Decision::of(privileged.chain(namespaced).find(|slot| {
            slot.from.matches(|key| source.value(key))
                && slot.to.matches(|key| destination.value(key))
        }))
    }

    /// Judges a client's connection to one source of an import, on the importing side. An unknown
    /// client is refused whatever the policies say.
    pub fn decide_egress(
        &self,
        own: (&PeerName, &Labels),
        client: &Client,
        import: &Import,
        source: &Source,
        source_peer_labels: &Labels,
    ) -> Decision {
        let workload = match client {
            Client::Pod { attributes, .. } => Some(&**attributes),
            Client::Host | Client::Outside => None,
            Client::Unknown => return Decision::DEFAULT_DENY,
        };
        self.decide(
            &import.name.namespace,
            SourceAttributes {
                peer: own.0,
                peer_labels: own.1,
                workload,
            },
            DestinationAttributes::egress(import, source, source_peer_labels),
        )
    }

    /// Judges a caller's connection to an export, on the exporting side. `caller` is the name of
    /// the authenticated certificate with that peer's labels (see [`peer_labels`]), `workload`
    /// what the caller attests of its client: `None` for one that is no pod.
    pub fn decide_ingress(
        &self,
        own: (&PeerName, &Labels),
        caller: (&PeerName, &Labels),
        workload: Option<&WorkloadAttributes>,
        export: &Export,
    ) -> Decision {
        self.decide(
            &export.name.namespace,
            SourceAttributes {
                peer: caller.0,
                peer_labels: caller.1,
                workload,
            },
            DestinationAttributes {
                export: &export.name,
                export_labels: &export.labels,
                peer: own.0,
                peer_labels: own.1,
            },
        )
    }
}

impl<'a> DestinationAttributes<'a> {
    /// One source of an import, as the importing side sees it.
    pub fn egress(import: &'a Import, source: &'a Source, source_peer_labels: &'a Labels) -> Self {
        Self {
            export: &source.export,
            export_labels: &import.labels,
            peer: &source.peer,
            peer_labels: source_peer_labels,
        }
    }
}

/// A peer's labels: those of its Peer object where that has any, else what the peer says of
/// itself, else none.
pub fn peer_labels<'a>(peer: Option<&'a Peer>, said: Option<&'a Labels>) -> &'a Labels {
    static NONE: Labels = BTreeMap::new();
    peer.and_then(|peer| peer.labels.as_ref())
        .or(said)
        .unwrap_or(&NONE)
}
