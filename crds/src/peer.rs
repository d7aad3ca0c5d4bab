//! `Peer`: another location of the fabric.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Where a peer is, and what we make of it.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "clusterlink.net",
    version = "v1alpha1",
    kind = "Peer",
    plural = "peers",
    singular = "peer",
    shortname = "clpeer",
    category = "clusterlink",
    namespaced,
    status = "PeerStatus",
    derive = "PartialEq",
    doc = "A Peer is another location of the fabric that services can be imported from. Its name is the DNS name in that peer's certificate.",
    printcolumn(
        name = "First Gateway",
        type_ = "string",
        json_path = ".spec.gateways[0].host",
        description = "Where the peer can be dialled, among others"
    ),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="PeerReachable")].status"#,
        description = "Whether it has a live session with us"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="PeerReachable")].reason"#,
        description = "Why it is reachable or not"
    ),
    printcolumn(
        name = "RTT",
        type_ = "string",
        json_path = ".status.rtt",
        description = "Round-trip time to the peer"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Last Seen",
        type_ = "date",
        json_path = ".status.lastSeen",
        priority = "1",
        description = "When the peer was last heard from"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version",
        priority = "1",
        description = "What the peer runs"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="PeerReachable")].message"#,
        priority = "1",
        description = "What is the matter, and what to do"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PeerSpec {
    /// Where the peer can be dialled. All of them are used. Empty for a peer that only calls us.
    #[schemars(length(max = 64))]
    pub gateways: Vec<Gateway>,

    /// Labels of the peer that access policies see, in place of what the peer says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::peer_labels")]
    pub labels: Option<BTreeMap<String, String>>,

    /// Certificates of the peer that were issued before this time are refused. Set it when the
    /// key of an older certificate may have been stolen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_issued_before: Option<Time>,
}

/// One address of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// DNS name or IP address of the gateway.
    #[schemars(schema_with = "schema::gateway_host")]
    pub host: String,

    /// TCP port of the gateway.
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
}

/// What was found out about a Peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Conditions of the Peer. PeerReachable says whether it has a live session with us.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// When the peer was last heard from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,

    /// Round-trip time to the peer, with its unit, for example 12.5ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub rtt: Option<String>,

    /// Software and version that the peer runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub version: Option<String>,

    /// What the peer says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::peer_labels")]
    pub labels: Option<BTreeMap<String, String>>,
}
