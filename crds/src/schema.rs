//! Pieces of the schema that the types alone do not say: bounds, patterns, list semantics.
//!
//! Every list, map and string has an upper bound, which keeps the estimated cost of validation
//! rules within what the API server admits.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A port that must be one.
pub(crate) fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535 })
}

/// A port, or 0 for none.
pub(crate) fn port_or_zero(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 0, "maximum": 65535 })
}

/// The name of a Service or Import, or nothing.
pub(crate) fn export_host(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 253 })
}

/// A DNS name or an IP address of either family.
pub(crate) fn gateway_host(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": r"^[0-9A-Za-z:]([-0-9A-Za-z.:]*[0-9A-Za-z.:])?$",
    })
}

/// How a source is chosen.
pub(crate) fn lb_scheme(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": ["random", "round-robin", "static"],
        "default": "random",
    })
}

/// Labels of a peer.
pub(crate) fn peer_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 253 },
    })
}

/// Names of predefined sets.
pub(crate) fn workload_sets(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": { "type": "string", "minLength": 1, "maxLength": 253 },
        "x-kubernetes-list-type": "atomic",
    })
}

/// `metav1.LabelSelector` with bounds. A value may be as long as a peer's name, which is longer
/// than a label's value.
pub(crate) fn workload_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Attributes that must all have the given values.",
                "type": "object",
                "maxProperties": 64,
                "additionalProperties": { "type": "string", "maxLength": 253 },
            },
            "matchExpressions": {
                "description": "Requirements that must all hold, beside matchLabels.",
                "type": "array",
                "maxItems": 64,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "description": "The attribute.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 512,
                        },
                        "operator": {
                            "description": "How the attribute relates to the values: In, NotIn, Exists or DoesNotExist.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "At least one value for In and NotIn, none for Exists and DoesNotExist.",
                            "type": "array",
                            "maxItems": 128,
                            "items": { "type": "string", "maxLength": 253 },
                            "x-kubernetes-list-type": "atomic",
                        },
                    },
                },
            },
        },
    })
}

/// `metav1.Condition`, in a list that is keyed by type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "description": "When the condition last changed its status.",
                    "type": "string",
                    "format": "date-time",
                },
                "message": {
                    "description": "What is the matter: the object, the value and what to do.",
                    "type": "string",
                    "maxLength": 32768,
                },
                "observedGeneration": {
                    "description": "The metadata.generation of the object that the condition speaks of.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "reason": {
                    "description": "One word for programs that says why the condition has its status.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "status": {
                    "description": "True, False or Unknown.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "type": {
                    "description": "Which condition it is.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 316,
                },
            },
        },
    })
}
