//! Manifests with exactly one fault, derived from the schemas: for tests of whatever checks manifests.
//!
//! Every field of every kind is given the wrong type, left out where it is required, and taken out of
//! every bound that its schema has.

use serde_json::{Map, Value, json};

use crate::definitions;

/// A manifest with one fault.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// The kind of the object.
    pub kind: String,
    /// What is done to which field, for messages of tests.
    pub what: String,
    /// The path of the wrong field, such as `spec.sources[0].peer`.
    pub field: String,
    /// The manifest.
    pub manifest: Value,
}

/// The manifest as YAML, with one field on each line.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The line, from 1, on which the wrong field is, or that which it is missing from.
    pub line: u32,
}

/// Valid manifests of all five kinds with every field given.
pub fn complete_manifests() -> Vec<Value> {
    let selector = json!({ "workloadSelector": {
        "matchLabels": { "peer.clusterlink.net/name": "client" },
        "matchExpressions": [
            { "key": "client.clusterlink.net/namespace", "operator": "In", "values": ["default"] },
        ],
    } });
    let sets = json!({ "workloadSets": ["everything"] });
    let policy = json!({ "action": "allow", "from": [selector, sets], "to": [selector] });
    let object = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": crate::API_VERSION,
            "kind": kind,
            "metadata": { "name": name },
            "spec": spec,
        })
    };
    vec![
        object("AccessPolicy", "policy", policy.clone()),
        object("Export", "web", json!({ "host": "web", "port": 80 })),
        object(
            "Import",
            "web",
            json!({
                "port": 80,
                "targetPort": 40000,
                "sources": [{ "peer": "server", "exportName": "web", "exportNamespace": "default" }],
                "lbScheme": "static",
            }),
        ),
        object(
            "Peer",
            "server",
            json!({
                "gateways": [{ "host": "server.example", "port": 443 }],
                "labels": { "region": "west" },
                "notIssuedBefore": "2026-01-31T12:00:00Z",
            }),
        ),
        object("PrivilegedAccessPolicy", "policy", policy),
    ]
}

/// All manifests with one fault.
pub fn wrong_manifests() -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for (definition, manifest) in definitions().iter().zip(complete_manifests()) {
        let definition = serde_json::to_value(definition)
            .expect("a definition is plain data, which JSON expresses");
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut walk = Walk {
            manifest: &manifest,
            wrong: &mut wrong,
        };
        walk.field(&schema["properties"]["spec"], "/spec", "spec", true);
        let name = &schema["properties"]["metadata"]["properties"]["name"];
        if name.is_object() {
            walk.field(name, "/metadata/name", "metadata.name", false);
        }
    }
    wrong
}

impl Wrong {
    /// The manifest as YAML.
    pub fn render(&self) -> Rendered {
        let lines = emit(&self.manifest, "");
        // A missing field is told at what it is missing from.
        let mut path = self.field.as_str();
        let line = loop {
            let here = |line: &Line| line.paths.iter().any(|at| at == path);
            if let Some(index) = lines.iter().position(here) {
                break index;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => break 0,
            }
        };
        let text = lines
            .iter()
            .map(|line| format!("{}\n", line.text))
            .collect();
        Rendered {
            text,
            line: u32::try_from(line).map_or(u32::MAX, |line| line + 1),
        }
    }
}

struct Walk<'a> {
    manifest: &'a Value,
    wrong: &'a mut Vec<Wrong>,
}

impl Walk<'_> {
    fn field(&mut self, schema: &Value, pointer: &str, path: &str, required: bool) {
        let Some(value) = self.manifest.pointer(pointer) else {
            unreachable!("the complete manifest has no {path}");
        };
        let value = value.clone();
        if required {
            self.without(pointer, path);
        }
        for (what, value) in faults(schema, &value) {
            self.with(pointer, path, what, value);
        }
        let fields = schema["properties"].as_object().into_iter().flatten();
        let needed = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, schema) in fields {
            let pointer = format!("{pointer}/{name}");
            // Of alternatives only one is there.
            if self.manifest.pointer(&pointer).is_some() {
                let required = needed.iter().any(|needed| needed == name);
                self.field(schema, &pointer, &format!("{path}.{name}"), required);
            }
        }
        for (index, _) in value.as_array().into_iter().flatten().enumerate() {
            let (pointer, path) = (format!("{pointer}/{index}"), format!("{path}[{index}]"));
            self.field(&schema["items"], &pointer, &path, false);
        }
        if schema["additionalProperties"].is_object() {
            for name in value.as_object().into_iter().flat_map(Map::keys) {
                let pointer = format!("{pointer}/{}", name.replace('/', "~1"));
                self.field(
                    &schema["additionalProperties"],
                    &pointer,
                    &format!("{path}[{name}]"),
                    false,
                );
            }
        }
    }

    fn with(&mut self, pointer: &str, path: &str, what: &str, value: Value) {
        let mut manifest = self.manifest.clone();
        if let Some(place) = manifest.pointer_mut(pointer) {
            *place = value;
        }
        self.push(path, what, manifest);
    }

    fn without(&mut self, pointer: &str, path: &str) {
        let mut manifest = self.manifest.clone();
        if let Some((parent, name)) = pointer.rsplit_once('/')
            && let Some(parent) = manifest.pointer_mut(parent).and_then(Value::as_object_mut)
        {
            parent.remove(name);
        }
        self.push(path, "missing", manifest);
    }

    fn push(&mut self, path: &str, what: &str, manifest: Value) {
        let kind = manifest["kind"].as_str().unwrap_or_default().to_owned();
        let what = format!("{kind} {path}: {what}");
        self.wrong.push(Wrong {
            kind,
            what,
            field: path.to_owned(),
            manifest,
        });
    }
}

/// What `value`, which is valid, may be replaced by to break its schema.
fn faults(schema: &Value, value: &Value) -> Vec<(&'static str, Value)> {
    let bound = |key: &str| schema[key].as_f64().map(|bound| bound as i64);
    let size = |key: &str| bound(key).and_then(|bound| usize::try_from(bound).ok());
    let mut faults = Vec::new();
    match schema["type"].as_str() {
        Some("integer") => {
            faults.push(("a text instead of a number", json!("eighty")));
            faults.push(("a fraction instead of a number", json!(80.5)));
            faults.extend(bound("minimum").map(|min| ("too small", json!(min - 1))));
            faults.extend(bound("maximum").map(|max| ("too large", json!(max + 1))));
        }
        Some("string") => {
            faults.push(("a boolean instead of a text", json!(true)));
            faults.push(("a number instead of a text", json!(7)));
            faults.push(("a mapping instead of a text", json!({ "a": "b" })));
            faults.extend(size("maxLength").map(|max| ("too long", json!("a".repeat(max + 1)))));
            faults.extend(
                size("minLength")
                    .filter(|min| *min > 0)
                    .map(|_| ("empty", json!(""))),
            );
            faults.extend(
                schema["enum"]
                    .as_array()
                    .map(|_| ("unknown value", json!("nonsense"))),
            );
            faults.extend(
                schema["pattern"]
                    .as_str()
                    .map(|_| ("wrong form", json!("-!-"))),
            );
            faults.extend(
                schema["format"]
                    .as_str()
                    .map(|_| ("wrong format", json!("yesterday"))),
            );
        }
        Some("array") => {
            let first = &value[0];
            faults.push(("a text instead of a list", json!("text")));
            faults.push(("a mapping instead of a list", json!({ "a": "b" })));
            faults.extend(
                size("minItems")
                    .filter(|min| *min > 0)
                    .map(|_| ("no items", json!([]))),
            );
            faults.extend(
                size("maxItems").map(|max| ("too many items", json!(vec![first; max + 1]))),
            );
        }
        Some("object") => {
            faults.push(("a text instead of a mapping", json!("text")));
            faults.push(("a list instead of a mapping", json!([])));
            faults.extend(size("maxProperties").map(|max| {
                let many: Map<_, _> = (0..=max).map(|n| (format!("key{n}"), json!("v"))).collect();
                ("too many entries", Value::Object(many))
            }));
        }
        _ => {}
    }
    if schema["x-kubernetes-validations"].is_array() {
        faults.push(("neither alternative", json!({})));
        let both = json!({ "workloadSelector": {}, "workloadSets": ["everything"] });
        faults.push(("both alternatives", both));
    }
    faults
}

/// One line of YAML.
struct Line {
    /// The paths of what begins on it: a list's item shares the line of its first field.
    paths: Vec<String>,
    text: String,
}

/// Writes `value` with one field on each line.
fn emit(value: &Value, path: &str) -> Vec<Line> {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let free = path.to_ascii_lowercase().ends_with("labels");
            let entry = |(name, value): (&String, &Value)| {
                let path = match (path.is_empty(), free) {
                    (true, _) => name.clone(),
                    (false, true) => format!("{path}[{name}]"),
                    (false, false) => format!("{path}.{name}"),
                };
                let head = format!("{}:", json!(name));
                let mut below = emit(value, &path);
                if is_nested(value) {
                    below
                        .iter_mut()
                        .for_each(|line| line.text.insert_str(0, "  "));
                    below.insert(
                        0,
                        Line {
                            paths: vec![path],
                            text: head,
                        },
                    );
                } else {
                    below[0].text.insert_str(0, &format!("{head} "));
                }
                below
            };
            fields.iter().flat_map(entry).collect()
        }
        Value::Array(items) if !items.is_empty() => {
            let item = |(index, value): (usize, &Value)| {
                let path = format!("{path}[{index}]");
                let mut below = emit(value, &path);
                below
                    .iter_mut()
                    .for_each(|line| line.text.insert_str(0, "  "));
                below[0].text.replace_range(..1, "-");
                below[0].paths.push(path);
                below
            };
            items.iter().enumerate().flat_map(item).collect()
        }
        scalar => vec![Line {
            paths: vec![path.to_owned()],
            text: scalar.to_string(),
        }],
    }
}

fn is_nested(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}
