//! Reads one YAML (or JSON) document into a tree of located values.
//!
//! Scalars mean what they mean to an API server, which reads YAML 1.1: `yes`, `on` and `off` are
//! booleans, so that a manifest that works on a plain host works on a cluster too. Depth and the
//! growth by aliases are bounded.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::node::{Entry, Node, Value};

/// How deeply values may be nested; Kubernetes objects stay far below.
const DEPTH: usize = 64;

/// How many values may still be copied for anchors and aliases; one allowance serves a whole file.
#[derive(Debug)]
pub(super) struct Copies(usize);

impl Default for Copies {
    fn default() -> Self {
        Self(1_000_000)
    }
}

impl Copies {
    fn take(&mut self, count: usize, span: &Span) -> Result<(), SyntaxError> {
        self.0 = self.0.checked_sub(count).ok_or_else(|| {
            fail(
                span,
                "the file's anchors and aliases stand for too many values: write them out",
            )
        })?;
        Ok(())
    }
}

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct SyntaxError {
    /// The line, from 0 at the first line of the text.
    pub(super) line: u32,
    pub(super) message: String,
}

/// Reads the one document in `text`; `None` if there is nothing in it.
pub(super) fn parse(text: &str, copies: &mut Copies) -> Result<Option<Node>, SyntaxError> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEPTH;
    options.block_nesting_limit = DEPTH;
    let mut reader = Reader {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        copies,
    };
    let mut document = None;
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            event if document.is_none() => document = Some(reader.node(event, span, 0)?),
            _ => {
                return Err(fail(
                    &span,
                    "a second document without a `---` line before it",
                ));
            }
        }
    }
    Ok(document.filter(|node| node.value != Value::Null))
}

struct Reader<'t, 'c> {
    parser: Parser<'t, StrInput<'t>>,
    /// Anchored values with their sizes.
    anchors: HashMap<usize, (Node, usize)>,
    copies: &'c mut Copies,
}

impl<'t> Reader<'t, '_> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, SyntaxError> {
        self.parser
            .next_event()
            .transpose()
            .map_err(|error: ScanError| SyntaxError {
                line: line(error.marker().line()),
                message: format!("not YAML: {}", error.info()),
            })
    }

    fn following(&mut self, of: &Span) -> Result<(Event<'t>, Span), SyntaxError> {
        self.next()?
            .ok_or_else(|| fail(of, "not YAML: the document ends in the middle of a value"))
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, SyntaxError> {
        if depth > DEPTH {
            return Err(fail(
                &span,
                &format!("values are nested more than {DEPTH} deep"),
            ));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value =
                    scalar(&text, style, tag.as_deref()).map_err(|why| fail(&span, &why))?;
                (value, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.following(&span)? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
                (Value::List(items), anchor)
            }
            Event::MappingStart(_, anchor, _) => (Value::Map(self.mapping(&span, depth)?), anchor),
            Event::Alias(anchor) => {
                // An anchor is known only after its value is complete: one inside itself is not.
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return Err(fail(
                        &span,
                        "an alias stands inside the value that it stands for",
                    ));
                };
                self.copies.take(*size, &span)?;
                return Ok(Node {
                    line: line(span.start.line()),
                    value: node.value.clone(),
                });
            }
            _ => return Err(fail(&span, "not YAML: a value is missing")),
        };
        let node = Node {
            line: line(span.start.line()),
            value,
        };
        if anchor != 0 {
            let size = size(&node);
            self.copies.take(size, &span)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn mapping(&mut self, span: &Span, depth: usize) -> Result<Vec<Entry>, SyntaxError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut names = HashSet::new();
        let mut merged = Vec::new();
        loop {
            let (event, key_span) = match self.following(span)? {
                (Event::MappingEnd, _) => break,
                other => other,
            };
            let key = self.node(event, key_span, depth + 1)?;
            let (event, span) = self.following(&key_span)?;
            let value = self.node(event, span, depth + 1)?;
            let name = match key.value {
                Value::Text(text) => text,
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                Value::Bool(value) => value.to_string(),
                Value::Null | Value::List(_) | Value::Map(_) => {
                    return Err(fail(&key_span, "the name of a field must be a text"));
                }
            };
            if name == "<<" {
                merged.push((value, span));
            } else if names.insert(name.clone()) {
                entries.push(Entry {
                    key: name,
                    line: key.line,
                    value,
                });
            } else {
                return Err(fail(
                    &key_span,
                    &format!("the field {name:?} is given twice"),
                ));
            }
        }
        for (value, span) in merged {
            let sources = match value.value {
                Value::List(items) => items,
                _ => vec![value],
            };
            for source in sources {
                let Value::Map(inherited) = source.value else {
                    return Err(fail(&span, "`<<` must be given a mapping"));
                };
                entries.extend(
                    inherited
                        .into_iter()
                        .filter(|entry| names.insert(entry.key.clone())),
                );
            }
        }
        Ok(entries)
    }
}

fn fail(span: &Span, message: &str) -> SyntaxError {
    SyntaxError {
        line: line(span.start.line()),
        message: message.to_owned(),
    }
}

/// The parser counts lines from 1.
fn line(line: usize) -> u32 {
    u32::try_from(line.saturating_sub(1)).unwrap_or(u32::MAX)
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
        _ => 0,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let plain = || {
        if style == ScalarStyle::Plain {
            resolve(text)
        } else {
            Value::Text(text.to_owned())
        }
    };
    let Some(tag) = tag else { return Ok(plain()) };
    match tag.core_suffix() {
        Some("str") => Ok(Value::Text(text.to_owned())),
        Some(_) => Ok(resolve(text)),
        None if tag.suffix().is_empty() => Ok(Value::Text(text.to_owned())),
        None => Err(format!(
            "the tag {} has no meaning here: remove it",
            tag.original()
        )),
    }
}

/// What an unquoted scalar means.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Value::Text(text.to_owned());
    }
    integer(text)
        .or_else(|| float(text))
        .unwrap_or_else(|| Value::Text(text.to_owned()))
}

fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.replace('_', "");
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits.as_str()),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let number = i64::from_str_radix(digits, radix).ok()?;
    Some(Value::Integer(if negative { -number } else { number }))
}

fn float(text: &str) -> Option<Value> {
    let shape = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    if !text.bytes().all(shape) || !text.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    // A whole number keeps its meaning however it is written, as it does in JSON.
    let whole = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
    Some(if whole {
        Value::Integer(number as i64)
    } else {
        Value::Float(number)
    })
}
