//! Checks a document against the schema of its kind, as an API server would, and says which field
//! on which line is wrong.

mod check;

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Map, Value as Json};

use self::check::Check;
use super::node::{Entry, Node, Value};

/// Something wrong in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The path of the field; empty for the document itself.
    pub(super) field: String,
    /// The line, from 0 at the first line of the document.
    pub(super) line: u32,
    pub(super) message: String,
}

/// A compiled schema.
#[derive(Debug, Default)]
pub(super) struct Schema {
    shape: Shape,
    one_of: Vec<String>,
    pattern: Option<Regex>,
    length: Bounds,
    range: Bounds,
    properties: HashMap<String, Schema>,
    required: Vec<String>,
    /// The schema of list items, or of the values of a free mapping.
    inner: Option<Box<Schema>>,
    rules: Vec<Rule>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Shape {
    #[default]
    Any,
    Text,
    Time,
    Integer,
    IntegerOrText,
    Boolean,
    List,
    Map,
}

#[derive(Debug, Default, Clone, Copy)]
struct Bounds {
    min: Option<i64>,
    max: Option<i64>,
}

#[derive(Debug)]
struct Rule {
    holds: fn(&Node) -> bool,
    message: String,
}

impl Schema {
    /// Compiles an OpenAPI schema as it stands in a CustomResourceDefinition.
    pub(super) fn compile(schema: &Json) -> Self {
        let text = |key: &str| schema[key].as_str();
        let shape = match (text("type"), text("format")) {
            (Some("string"), Some("date-time")) => Shape::Time,
            (Some("string"), _) => Shape::Text,
            (Some("integer"), _) => Shape::Integer,
            (Some("boolean"), _) => Shape::Boolean,
            (Some("array"), _) => Shape::List,
            (Some("object"), _) => Shape::Map,
            _ if schema["x-kubernetes-int-or-string"] == true => Shape::IntegerOrText,
            _ => Shape::Any,
        };
        let bounds = |min: &str, max: &str| Bounds {
            min: whole(&schema[min]),
            max: whole(&schema[max]),
        };
        let texts = |key: &str| -> Vec<String> {
            let values = schema[key].as_array().into_iter().flatten();
            values
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect()
        };
        let mut range = bounds("minimum", "maximum");
        if text("format") == Some("int32") {
            range.min.get_or_insert(i32::MIN.into());
            range.max.get_or_insert(i32::MAX.into());
        }
        let properties = schema["properties"].as_object().into_iter().flatten();
        let inner = schema
            .get("items")
            .or_else(|| schema.get("additionalProperties"));
        let rules = schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten();
        Self {
            shape,
            one_of: texts("enum"),
            pattern: text("pattern").map(|p| Regex::new(p).expect("schemas have valid patterns")),
            length: match shape {
                Shape::List => bounds("minItems", "maxItems"),
                Shape::Map => bounds("minProperties", "maxProperties"),
                _ => bounds("minLength", "maxLength"),
            },
            range,
            properties: properties
                .map(|(name, schema)| (name.clone(), Self::compile(schema)))
                .collect(),
            required: texts("required"),
            inner: inner.map(|inner| Self::compile(inner).into()),
            rules: rules.map(Rule::compile).collect(),
        }
    }

    /// What is wrong with `document`.
    pub(super) fn check(&self, document: &Node) -> Vec<Fault> {
        let mut check = Check::default();
        check.value(self, document, document.line);
        check.faults
    }

    /// The part of a checked value that the schema knows, without nulls.
    pub(super) fn prune(&self, node: &Node) -> Json {
        match &node.value {
            Value::Map(entries) => {
                let known = |entry: &Entry| -> Option<(String, Json)> {
                    if entry.value.value == Value::Null {
                        return None;
                    }
                    let schema = self.properties.get(&entry.key).or(self.inner.as_deref())?;
                    Some((entry.key.clone(), schema.prune(&entry.value)))
                };
                Json::Object(entries.iter().filter_map(known).collect::<Map<_, _>>())
            }
            Value::List(items) => match &self.inner {
                Some(inner) => items.iter().map(|item| inner.prune(item)).collect(),
                None => Json::Array(Vec::new()),
            },
            _ => node.to_json(),
        }
    }
}

impl Rule {
    /// The rules of our kinds are known by their text; a test sees to it that each of them is.
    fn compile(rule: &Json) -> Self {
        let holds = match rule["rule"].as_str() {
            Some(clusterlink_crds::SELECTOR_OR_SETS_RULE) => selector_or_sets,
            other => unreachable!("the schema has a rule that is not implemented here: {other:?}"),
        };
        Self {
            holds,
            message: rule["message"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

fn selector_or_sets(item: &Node) -> bool {
    let sets = item
        .entry("workloadSets")
        .is_some_and(|entry| match &entry.value.value {
            Value::List(sets) => !sets.is_empty(),
            _ => false,
        });
    item.entry("workloadSelector").is_some() != sets
}

fn whole(value: &Json) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|float| float as i64))
}
