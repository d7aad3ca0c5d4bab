//! Compares a document with its schema, keeping count of where in the document it is.

use std::collections::HashSet;

use jiff::Timestamp;
use regex::Regex;

use super::{
    super::node::{Entry, Node, Value, quoted},
    Bounds, Fault, Schema, Shape,
};

/// How many faults of one document are told.
const MOST_FAULTS: usize = 16;

/// A comparison that is going on.
#[derive(Debug, Default)]
pub(super) struct Check {
    /// The path of the value that is being looked at.
    path: String,
    pub(super) faults: Vec<Fault>,
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

    /// Compares `node`; a fault in it is told at `line`.
    pub(super) fn value(&mut self, schema: &Schema, node: &Node, line: u32) {
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
