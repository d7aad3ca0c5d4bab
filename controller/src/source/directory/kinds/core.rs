//! The schemas of the kinds of Kubernetes itself, reduced to the fields that the controller reads,
//! and what holds for the metadata of every kind.
//!
//! A Pod or Service in a manifest directory only describes what runs on the host, so that nothing
//! is asked of it beyond what is needed.

use serde_json::{Value as Json, json};

use super::super::{
    node::{Node, Value, quoted},
    schema::{Fault, Schema},
};

const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// The schema of one of Kubernetes' kinds, without its metadata.
pub(super) fn schema(kind: &str) -> Json {
    let port = || json!({ "type": "integer", "minimum": 1, "maximum": 65535 });
    let text = || json!({ "type": "string" });
    let flag = || json!({ "type": "boolean" });
    let protocol = || json!({ "type": "string", "enum": ["TCP", "UDP", "SCTP"] });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let fields = |properties: Json| json!({ "type": "object", "properties": properties });
    let list = |properties: Json, required: Json| {
        let items = json!({ "type": "object", "properties": properties, "required": required });
        json!({ "type": "array", "items": items })
    };
    match kind {
        "Service" => fields(json!({ "spec": fields(json!({
            "type": {
                "type": "string",
                "enum": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"],
            },
            "clusterIP": text(),
            "clusterIPs": texts(),
            "externalName": text(),
            "selector": { "type": "object", "additionalProperties": { "type": "string" } },
            "ports": list(json!({
                "name": text(),
                "protocol": protocol(),
                "port": port(),
                "targetPort": { "x-kubernetes-int-or-string": true, "minimum": 1, "maximum": 65535 },
            }), json!(["port"])),
        })) })),
        "EndpointSlice" => json!({
            "type": "object",
            "required": ["addressType"],
            "properties": {
                "addressType": { "type": "string", "enum": ["IPv4", "IPv6", "FQDN"] },
                "endpoints": list(json!({
                    "addresses": texts(),
                    "conditions": fields(json!({
                        "ready": flag(),
                        "serving": flag(),
                        "terminating": flag(),
                    })),
                    "hostname": text(),
                    "nodeName": text(),
                    "zone": text(),
                }), json!(["addresses"])),
                "ports": list(json!({
                    "name": text(),
                    "protocol": protocol(),
                    "port": port(),
                }), json!([])),
            },
        }),
        "Pod" => fields(json!({
            "spec": fields(json!({
                "serviceAccountName": text(),
                "nodeName": text(),
                "hostNetwork": flag(),
            })),
            "status": fields(json!({
                "phase": {
                    "type": "string",
                    "enum": ["Pending", "Running", "Succeeded", "Failed", "Unknown"],
                },
                "podIP": text(),
                "podIPs": list(json!({ "ip": text() }), json!(["ip"])),
            })),
        })),
        _ => fields(json!({})),
    }
}

/// Compiles the schema of a kind, with what holds for the metadata of all kinds.
pub(super) fn with_metadata(kind: &Json) -> Schema {
    let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let mut metadata = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 253, "pattern": SUBDOMAIN },
            "namespace": { "type": "string", "minLength": 1, "maxLength": 63, "pattern": LABEL },
            "labels": texts,
            "annotations": texts,
            "uid": { "type": "string" },
            "creationTimestamp": { "type": "string", "format": "date-time" },
        },
    });
    // What a definition says of names is narrower than what holds for all.
    if let Some(name) = kind["properties"]["metadata"]["properties"].get("name") {
        let narrower = name.as_object().into_iter().flatten();
        for (keyword, value) in narrower {
            metadata["properties"]["name"][keyword] = value.clone();
        }
    }
    let mut whole = kind.clone();
    whole["properties"]["metadata"] = metadata;
    whole["properties"]["apiVersion"] = json!({ "type": "string" });
    whole["properties"]["kind"] = json!({ "type": "string" });
    Schema::compile(&whole)
}

/// What is wrong with the syntax of labels. Values that are no texts are the schema's business.
pub(super) fn check_labels(document: &Node) -> Vec<Fault> {
    let labels = document
        .entry("metadata")
        .and_then(|metadata| metadata.value.entry("labels"));
    let Some(Value::Map(labels)) = labels.map(|labels| &labels.value.value) else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    for label in labels {
        let mut fault = |message| {
            let field = format!("metadata.labels[{}]", label.key);
            faults.push(Fault {
                field,
                line: label.line,
                message,
            });
        };
        if !is_label_key(&label.key) {
            fault("is no label key: it must be a name of at most 63 letters, digits, '-', '_' and '.', which may follow a DNS name and '/'".to_owned());
        }
        if let Value::Text(value) = &label.value.value
            && !(value.is_empty() || is_label_word(value))
        {
            fault(format!(
                "{} is no label value: it must be at most 63 letters, digits, '-', '_' and '.', and begin and end with a letter or digit",
                quoted(value)
            ));
        }
    }
    faults
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let subdomain = |prefix: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        prefix.len() <= 253
            && prefix.split('.').all(|part| {
                part.bytes().all(|b| inner(b) || b == b'-')
                    && part.bytes().next().is_some_and(inner)
                    && part.bytes().last().is_some_and(inner)
            })
    };
    prefix.is_none_or(subdomain) && is_label_word(name)
}

fn is_label_word(word: &str) -> bool {
    let end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    word.len() <= 63
        && end(word.bytes().next())
        && end(word.bytes().last())
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
