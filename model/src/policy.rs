//! Access policy: attributes, tiers, and the decision with the name of the policy that made it.
//!
//! Tiers, in order: privileged deny, privileged allow, namespaced deny, namespaced allow, default
//! deny. Namespaced policies count when they live in the Import's namespace (egress) or the
//! Export's namespace (ingress).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    client::{Client, WorkloadAttributes},
    name::{ObjectName, PeerName, PolicyName},
    resource::{Import, Policy, Source},
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

/// The policies of a node, compiled for fast decisions.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    policies: Vec<Arc<Policy>>,
}

impl PolicySet {
    /// Compiles `policies`.
    pub fn new(policies: impl IntoIterator<Item = Arc<Policy>>) -> Self {
        Self { policies: policies.into_iter().collect() }
    }

    /// Judges one connection; `namespace` is the Import's or the Export's.
    pub fn decide(
        &self,
        _namespace: &str,
        _source: SourceAttributes<'_>,
        _destination: DestinationAttributes<'_>,
    ) -> Decision {
        let _ = &self.policies;
        Decision { allowed: false, policy: None }
    }

    /// Judges a client's connection to one source of an import, on the importing side.
    pub fn decide_egress(
        &self,
        _own: (&PeerName, &Labels),
        _client: &Client,
        _import: &Import,
        _source: &Source,
        _source_peer_labels: &Labels,
    ) -> Decision {
        Decision { allowed: false, policy: None }
    }
}
