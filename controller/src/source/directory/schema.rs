//! Checks a document against the schema of its kind, as an API server would, and says which field
//! on which line is wrong.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use regex::Regex;
use serde_json::{Map, Value as Json};

use super::node::{Entry, Node, Value, quoted};

/// How many faults of one document are told.
const MOST_FAULTS: usize = 16;

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
        let mut check = Check {
            path: String::new(),
            faults: Vec::new(),
        };
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

struct Check {
    path: String,
    faults: Vec<Fault>,
}

impl Check {
    fn fault(&mut self, line: u32, message: String) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(Fault {
                field: self.path.clone(),
                line,
                message,
            });
        }
    }

    fn below(&mut self, step: &str, go: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !self.path.is_empty() && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        go(self);
        self.path.truncate(length);
    }

    fn value(&mut self, schema: &Schema, node: &Node, line: u32) {
        match (schema.shape, &node.value) {
            (Shape::Any, _) | (Shape::Boolean, Value::Bool(_)) => {}
            (Shape::Integer | Shape::IntegerOrText, Value::Integer(number)) => {
                self.number(schema, *number, line);
            }
            (Shape::Text | Shape::IntegerOrText, Value::Text(text)) => {
                self.text(schema, text, line);
            }
            (Shape::Time, Value::Text(text)) => {
                if text.parse::<Timestamp>().is_err() {
                    let value = quoted(text);
                    self.fault(
                        line,
                        format!("{value} is no time: write one such as 2026-01-31T12:00:00Z"),
                    );
                }
            }
            (Shape::List, Value::List(items)) => self.list(schema, items, line),
            (Shape::Map, Value::Map(entries)) => self.map(schema, node, entries, line),
            (shape, _) => self.fault(line, wrong_type(shape, node)),
        }
    }

    fn number(&mut self, schema: &Schema, number: i64, line: u32) {
        let Bounds { min, max } = schema.range;
        if min.is_none_or(|min| number >= min) && max.is_none_or(|max| number <= max) {
            return;
        }
        let bounds = match (min, max) {
            (Some(min), Some(max)) => format!("must be from {min} to {max}"),
            (Some(min), None) => format!("must be at least {min}"),
            (None, max) => format!("must be at most {}", max.unwrap_or(i64::MAX)),
        };
        self.fault(line, format!("{number} is out of range: it {bounds}"));
    }

    fn text(&mut self, schema: &Schema, text: &str, line: u32) {
        if !schema.one_of.is_empty() && !schema.one_of.iter().any(|known| known == text) {
            let known = schema.one_of.join(", ");
            self.fault(
                line,
                format!("{} is not known: it must be one of {known}", quoted(text)),
            );
        }
        let length = text.chars().count();
        self.length(schema.length, length, "characters", line);
        if schema.length.max.is_none_or(|max| length as i64 <= max)
            && schema
                .pattern
                .as_ref()
                .is_some_and(|pattern| !pattern.is_match(text))
        {
            let pattern = schema.pattern.as_ref().map_or("", Regex::as_str);
            self.fault(
                line,
                format!("{} does not have the form {pattern}", quoted(text)),
            );
        }
    }

    fn list(&mut self, schema: &Schema, items: &[Node], line: u32) {
        self.length(schema.length, items.len(), "items", line);
        let Some(inner) = &schema.inner else { return };
        let most = schema
            .length
            .max
            .and_then(|max| usize::try_from(max).ok())
            .unwrap_or(usize::MAX);
        for (index, item) in items.iter().enumerate().take(most) {
            self.below(&format!("[{index}]"), |check| {
                check.value(inner, item, item.line);
            });
        }
    }

    fn map(&mut self, schema: &Schema, node: &Node, entries: &[Entry], line: u32) {
        let faults_before = self.faults.len();
        if schema.inner.is_some() {
            self.length(schema.length, entries.len(), "entries", line);
        }
        for entry in entries {
            if let Some(property) = schema.properties.get(&entry.key) {
                // A null says no more than leaving the field out.
                if entry.value.value != Value::Null {
                    self.below(&entry.key, |check| {
                        check.value(property, &entry.value, entry.line);
                    });
                }
            } else if let Some(inner) = &schema.inner {
                self.below(&format!("[{}]", entry.key), |check| {
                    check.value(inner, &entry.value, entry.line);
                });
            }
        }
        let present: HashSet<&str> = entries
            .iter()
            .filter(|entry| entry.value.value != Value::Null)
            .map(|entry| entry.key.as_str())
            .collect();
        for name in schema
            .required
            .iter()
            .filter(|name| !present.contains(name.as_str()))
        {
            self.below(name, |check| {
                check.fault(line, "is missing, and must be given".to_owned());
            });
        }
        // A rule speaks of values that are well-formed by themselves.
        if self.faults.len() > faults_before {
            return;
        }
        for rule in schema.rules.iter().filter(|rule| !(rule.holds)(node)) {
            self.fault(line, rule.message.clone());
        }
    }

    fn length(&mut self, bounds: Bounds, length: usize, what: &str, line: u32) {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        if let Some(min) = bounds.min.filter(|min| length < *min) {
            self.fault(line, format!("has {length} {what}: give at least {min}"));
        }
        if let Some(max) = bounds.max.filter(|max| length > *max) {
            self.fault(line, format!("has {length} {what}: give at most {max}"));
        }
    }
}

fn wrong_type(shape: Shape, node: &Node) -> String {
    let (expected, cure) = match (shape, &node.value) {
        (Shape::Text | Shape::Time, Value::Bool(value)) => {
            ("a text", format!(": write \"{value}\", with quotes"))
        }
        (Shape::Text | Shape::Time, Value::Integer(value)) => {
            ("a text", format!(": write \"{value}\", with quotes"))
        }
        (Shape::Text | Shape::Time, Value::Float(value)) => {
            ("a text", format!(": write \"{value}\", with quotes"))
        }
        (Shape::Text | Shape::Time, _) => ("a text", String::new()),
        (Shape::Integer, Value::Text(text)) if text.parse::<i64>().is_ok() => {
            ("a whole number", format!(": write {text}, without quotes"))
        }
        (Shape::Integer, _) => ("a whole number", String::new()),
        (Shape::IntegerOrText, _) => ("a whole number or a text", String::new()),
        (Shape::Boolean, _) => ("true or false", String::new()),
        (Shape::List, _) => ("a list", String::new()),
        (Shape::Map, _) => ("a mapping", String::new()),
        (Shape::Any, _) => ("a value", String::new()),
    };
    format!("must be {expected}, not {}{cure}", node.describe())
}
