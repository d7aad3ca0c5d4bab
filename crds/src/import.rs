//! `Import`: a service of other peers, made available in a namespace.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{labels, schema};

/// What is imported, from where.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "clusterlink.net",
    version = "v1alpha1",
    kind = "Import",
    plural = "imports",
    singular = "import",
    shortname = "climp",
    category = "clusterlink",
    namespaced,
    status = "ImportStatus",
    derive = "PartialEq",
    doc = "An Import makes a service of other peers available in its own namespace, as a Service with the name of the Import. Clients reach it once an access policy of both sides allows it.",
    printcolumn(
        name = "Port",
        type_ = "integer",
        json_path = ".spec.port",
        description = "The port that clients connect to"
    ),
    printcolumn(
        name = "Target Port",
        type_ = "integer",
        json_path = ".status.targetPort",
        description = "The port of the agents behind the Service"
    ),
    printcolumn(
        name = "Service",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ImportServiceValid")].status"#,
        description = "Whether clients can address it"
    ),
    printcolumn(
        name = "Port Valid",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ImportTargetPortValid")].status"#,
        description = "Whether the target port is held by this Import"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.status=="False")].reason"#,
        description = "Why it cannot be used, where that is so"
    ),
    printcolumn(
        name = "First Peer",
        type_ = "string",
        json_path = ".spec.sources[0].peer",
        description = "The peer of the first source"
    ),
    printcolumn(
        name = "Reachable Peer",
        type_ = "string",
        json_path = ".status.sources[?(@.reachable==true)].peer",
        description = "The first source's peer that can be reached; empty if none can"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "LB",
        type_ = "string",
        json_path = ".spec.lbScheme",
        priority = "1",
        description = "How a source is chosen for each connection"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.status=="False")].message"#,
        priority = "1",
        description = "What is the matter, and what to do"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ImportSpec {
    /// Port that clients connect to.
    #[schemars(schema_with = "schema::port")]
    pub port: u16,

    /// Port of the agents that stands for this Import where connections go by the Service. Leave
    /// it out, or 0, to have a free one allocated; status.targetPort shows which one it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::port_or_zero")]
    pub target_port: Option<u16>,

    /// The remote Exports behind this Import. May be empty.
    #[schemars(length(max = 128))]
    pub sources: Vec<ImportSource>,

    /// How a source is chosen for each connection: random (the default), round-robin, or static
    /// (always the first source of the list that can be used).
    #[serde(default)]
    #[schemars(schema_with = "schema::lb_scheme")]
    pub lb_scheme: LbScheme,
}

/// One remote Export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportSource {
    /// Name of the peer that exports the service.
    #[schemars(length(max = 253))]
    pub peer: String,

    /// Name of the Export at that peer.
    #[schemars(length(max = 253))]
    pub export_name: String,

    /// Namespace of the Export at that peer.
    #[schemars(length(max = 63))]
    pub export_namespace: String,
}

/// How a source is chosen; the unit is one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LbScheme {
    /// Uniform over the usable sources.
    #[default]
    Random,
    /// Strict rotation on each node.
    RoundRobin,
    /// The first usable source in the order of the list.
    Static,
}

/// What was found out about an Import.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportStatus {
    /// Conditions of the Import. ImportServiceValid says whether clients can address it,
    /// ImportTargetPortValid whether its target port is its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// What is known of each source, in the order of spec.sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "atomic"))]
    pub sources: Vec<ImportSourceStatus>,

    /// The port of the agents that stands for this Import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::port")]
    pub target_port: Option<u16>,
}

/// What is known of one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportSourceStatus {
    /// Name of the exporting peer.
    #[schemars(length(max = 253))]
    pub peer: String,

    /// Name of the Export at that peer.
    #[schemars(length(max = 253))]
    pub export_name: String,

    /// Namespace of the Export at that peer.
    #[schemars(length(max = 63))]
    pub export_namespace: String,

    /// Whether the source is well-formed and its peer is known here.
    pub valid: bool,

    /// Whether the peer has a live session with this one; absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,

    /// Whether the peer let us have the Export when it was last asked; absent before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<bool>,

    /// One word for programs that says why the source is as it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,

    /// The same for people: the object, the value and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32768))]
    pub message: String,
}

impl Import {
    /// Whether its sources are to join an existing Service instead of getting one of their own.
    pub fn merges(&self) -> bool {
        self.labels()
            .get(labels::IMPORT_MERGE)
            .is_some_and(|value| value == "true")
    }
}
