//! `Export`: marks a Service port as potentially reachable from other peers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// What is exported.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "clusterlink.net",
    version = "v1alpha1",
    kind = "Export",
    plural = "exports",
    singular = "export",
    shortname = "clexp",
    category = "clusterlink",
    namespaced,
    status = "ExportStatus",
    derive = "PartialEq",
    doc = "An Export makes one port of a Service of its own namespace potentially reachable from other peers. Nothing is shared until a peer imports it and an access policy allows it.",
    printcolumn(
        name = "Host",
        type_ = "string",
        json_path = ".spec.host",
        description = "The exported Service; empty means the Export's own name"
    ),
    printcolumn(
        name = "Port",
        type_ = "integer",
        json_path = ".spec.port",
        description = "The exported port of the Service"
    ),
    printcolumn(
        name = "Valid",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ExportValid")].status"#,
        description = "Whether the Service and its port exist"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ExportValid")].reason"#,
        description = "Why the Export is valid or not"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ExportValid")].message"#,
        priority = "1",
        description = "What is the matter, and what to do"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ExportSpec {
    /// Name of the Service, or of the Import, that is exported. It must be in the namespace of the
    /// Export. When empty, the name of the Export is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::export_host")]
    pub host: Option<String>,

    /// Port of the Service that is exported. To export several ports, make an Export for each, with
    /// the same host.
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
}

/// What was found out about an Export.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportStatus {
    /// Conditions of the Export. ExportValid says whether its Service and port exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl Export {
    /// The name of the Service or Import that is exported.
    pub fn host_name(&self) -> String {
        match self.spec.host.as_deref() {
            None | Some("") => self.name_any(),
            Some(host) => host.to_owned(),
        }
    }
}
