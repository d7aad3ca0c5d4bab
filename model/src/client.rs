//! Who opened a connection.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{name::ObjectName, selector::Labels};

/// What policy can know of a workload; equal attributes are judged equally.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadAttributes {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's service account.
    pub service_account: Arc<str>,
    /// The pod's labels.
    pub labels: Labels,
}

/// The client of a connection, as far as it is known (spec: "Who the client is").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// A pod, known by its cgroup or its address.
    Pod {
        /// The pod's name, for the flow log only.
        name: ObjectName,
        /// What policy sees.
        attributes: Arc<WorkloadAttributes>,
    },
    /// A process of the node itself: it has the peer's attributes only.
    Host,
    /// An address that is neither pod nor node; refused unless opened by the administrator.
    Outside,
    /// Not known yet, or no longer: held for up to two seconds, then refused.
    Unknown,
}
