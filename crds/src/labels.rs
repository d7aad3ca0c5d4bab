//! Names of the labels, annotations and finalizers that ClusterLink reads or writes, and of the
//! attributes that access policies select on.

/// On an Import: `"true"` merges its sources into the existing Service of the same name.
pub const IMPORT_MERGE: &str = "import.clusterlink.net/merge";

/// On a merged Import (an annotation): how many agents serve it, in place of the usual number.
pub const MERGE_ENDPOINTS: &str = "import.clusterlink.net/merge-endpoints";

/// On Services and EndpointSlices that the controller made: the name of the Import.
pub const IMPORT_NAME: &str = "clusterlink.net/import-name";

/// On Services and EndpointSlices that the controller made: the namespace of the Import.
pub const IMPORT_NAMESPACE: &str = "clusterlink.net/import-namespace";

/// On EndpointSlices that the controller made (an annotation): the nodes whose agents would be among the
/// endpoints if they did not reject the Import, separated by commas.
pub const LEFT_OUT: &str = "clusterlink.net/left-out";

/// The well-known label that names the manager of an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The well-known label that names the manager of an EndpointSlice.
pub const ENDPOINT_SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// The value of [`MANAGED_BY`] and [`ENDPOINT_SLICE_MANAGED_BY`] on objects of ours.
pub const MANAGER: &str = "clusterlink.net";

/// The field manager of server-side apply.
pub const FIELD_MANAGER: &str = "clusterlink.net";

/// On an EndpointSlice: the Service that its endpoints belong to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// On a Pod of a standalone peer (an annotation): the cgroup v2 path of its processes, relative to
/// the root of the hierarchy.
pub const CGROUP: &str = "clusterlink.net/cgroup";

/// The finalizer that keeps a Service until no node steers its address any more.
pub const STEERING_FINALIZER: &str = "clusterlink.net/steering";

/// Attributes that `from` and `to` of an access policy select on.
pub mod attributes {
    /// The name of a peer.
    pub const PEER_NAME: &str = "peer.clusterlink.net/name";
    /// What precedes the key of a peer's label.
    pub const PEER_LABELS: &str = "peer.clusterlink.net/labels.";
    /// The namespace of the client's pod.
    pub const CLIENT_NAMESPACE: &str = "client.clusterlink.net/namespace";
    /// The service account of the client's pod.
    pub const CLIENT_SERVICE_ACCOUNT: &str = "client.clusterlink.net/service-account";
    /// What precedes the key of a label of the client's pod.
    pub const CLIENT_LABELS: &str = "client.clusterlink.net/labels.";
    /// What all attributes of a client begin with.
    pub const CLIENT: &str = "client.clusterlink.net/";
    /// The name of the Export.
    pub const EXPORT_NAME: &str = "export.clusterlink.net/name";
    /// The namespace of the Export.
    pub const EXPORT_NAMESPACE: &str = "export.clusterlink.net/namespace";
    /// What precedes the key of a label of the Import (egress) or Export (ingress).
    pub const EXPORT_LABELS: &str = "export.clusterlink.net/labels.";
}
