//! `AccessPolicy` and `PrivilegedAccessPolicy`: who may connect to what.
//!
//! Tiers, in order: privileged deny, privileged allow, deny of the namespace, allow of the
//! namespace. A connection that no policy matches is refused.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// The validation rule of an item of `from` or `to`, in the Common Expression Language.
pub const SELECTOR_OR_SETS_RULE: &str =
    "has(self.workloadSelector) != (has(self.workloadSets) && size(self.workloadSets) > 0)";

/// Which connections a policy of a namespace is about, and what becomes of them.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "clusterlink.net",
    version = "v1alpha1",
    kind = "AccessPolicy",
    plural = "accesspolicies",
    singular = "accesspolicy",
    shortname = "clap",
    category = "clusterlink",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "An AccessPolicy allows or denies connections to the Imports of its namespace by local clients, and to the Exports of its namespace by other peers. Deny goes before allow, privileged policies go before both, and what no policy allows is refused.",
    printcolumn(
        name = "Action",
        type_ = "string",
        json_path = ".spec.action",
        description = "Whether it allows or denies"
    ),
    printcolumn(
        name = "Valid",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="PolicyValid")].status"#,
        description = "Whether what was written last is in force"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="PolicyValid")].reason"#,
        description = "Why it is in force or not"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="PolicyValid")].message"#,
        priority = "1",
        description = "What is the matter, and what to do"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// Whether connections that match are allowed or denied: allow or deny.
    pub action: PolicyAction,

    /// Sources of connections; one of these must match. Attributes:
    /// peer.clusterlink.net/name, peer.clusterlink.net/labels.KEY, client.clusterlink.net/namespace,
    /// client.clusterlink.net/service-account, client.clusterlink.net/labels.KEY.
    #[schemars(length(min = 1, max = 64))]
    pub from: Vec<WorkloadSetOrSelector>,

    /// Destinations of connections; one of these must match. Attributes:
    /// export.clusterlink.net/name, export.clusterlink.net/namespace,
    /// export.clusterlink.net/labels.KEY, peer.clusterlink.net/name, peer.clusterlink.net/labels.KEY.
    #[schemars(length(min = 1, max = 64))]
    pub to: Vec<WorkloadSetOrSelector>,
}

/// Which connections a policy of the whole cluster is about, and what becomes of them.
///
/// The same fields as [`PolicySpec`]; it is a type of its own because a kind is derived from it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "clusterlink.net",
    version = "v1alpha1",
    kind = "PrivilegedAccessPolicy",
    plural = "privilegedaccesspolicies",
    singular = "privilegedaccesspolicy",
    shortname = "clpap",
    category = "clusterlink",
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "A PrivilegedAccessPolicy allows or denies connections to Imports and Exports of every namespace. It is judged before every AccessPolicy; deny goes before allow.",
    printcolumn(
        name = "Action",
        type_ = "string",
        json_path = ".spec.action",
        description = "Whether it allows or denies"
    ),
    printcolumn(
        name = "Valid",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="PolicyValid")].status"#,
        description = "Whether what was written last is in force"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="PolicyValid")].reason"#,
        description = "Why it is in force or not"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="PolicyValid")].message"#,
        priority = "1",
        description = "What is the matter, and what to do"
    )
)]
#[serde(transparent)]
pub struct PrivilegedPolicySpec(pub PolicySpec);

/// Whether connections are allowed or denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyAction {
    /// They may pass, unless a policy of higher rank denies them.
    Allow,
    /// They are refused, unless a policy of higher rank allows them.
    Deny,
}

/// Some sources or destinations: exactly one of workloadSelector and workloadSets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": SELECTOR_OR_SETS_RULE,
    "message": "exactly one of workloadSelector and workloadSets must be given"
}]))]
pub struct WorkloadSetOrSelector {
    /// Names of predefined sets of workloads. None are predefined yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::workload_sets")]
    pub workload_sets: Option<Vec<String>>,

    /// A label selector over the attributes. An empty one, {}, selects everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::workload_selector")]
    pub workload_selector: Option<LabelSelector>,
}

/// What was found out about a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Conditions of the policy. PolicyValid says whether what was written last is in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
