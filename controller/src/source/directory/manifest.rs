//! Reads the text of one file into items: objects, and what is wrong.
//!
//! Documents that did not change since the file was read last are not read again: after an edit of
//! one among ten thousand, one is parsed.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    path::Path,
    sync::Arc,
};

use super::{
    documents::{self, Document},
    kinds::{Key, Kind, Object},
    node::{Node, Value, quoted},
    schema::Fault,
    yaml::{self, Copies},
};

/// The namespace of an object that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// One object of a file, or what stands in its place.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The number of its document, from 1.
    pub(super) document: u32,
    /// The line of the file that its document starts on, from 1. Lines of faults count from there.
    pub(super) line: u32,
    pub(super) content: Content,
}

/// What an [`Item`] is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// An object; the number is its line within the document.
    Object(Key, u32, Arc<Object>),
    /// An object that is known by name, and wrong.
    Invalid(Key, u32, Vec<Fault>),
    /// Nobody can say which object this is; the kind may be known.
    Unknown(Option<Kind>, Fault),
    /// An object of another kind (its kind, and its name if it has one).
    Foreign(String, Option<String>, Fault),
}

/// What was read from the documents of a file, by their text.
#[derive(Debug, Default)]
pub(super) struct Memory {
    hasher: RandomState,
    documents: HashMap<u64, Arc<[Content]>>,
}

/// Reads the file `path` with the content `text`.
pub(super) fn read(path: &Path, text: &str, memory: &mut Memory) -> Vec<Item> {
    let (documents, error) = documents::split(path, text);
    let mut copies = Copies::default();
    let mut items = Vec::with_capacity(documents.len());
    let mut remembered = HashMap::with_capacity(documents.len());
    for Document { number, line, text } in documents {
        let hash = memory.hasher.hash_one(text);
        let contents = match remembered
            .get(&hash)
            .or_else(|| memory.documents.get(&hash))
        {
            Some(known) => Arc::clone(known),
            None => contents_of(text, &mut copies).into(),
        };
        items.extend(contents.iter().map(|content| Item {
            document: number,
            line,
            content: content.clone(),
        }));
        remembered.insert(hash, contents);
    }
    memory.documents = remembered;
    if let Some(documents::JsonError {
        document,
        line,
        message,
    }) = error
    {
        let fault = Fault {
            field: String::new(),
            line: 0,
            message,
        };
        items.push(Item {
            document,
            line,
            content: Content::Unknown(None, fault),
        });
    }
    items
}

fn contents_of(text: &str, copies: &mut Copies) -> Vec<Content> {
    let mut contents = Vec::new();
    match yaml::parse(text, copies) {
        Ok(None) => {}
        Ok(Some(document)) => read_object(&document, None, &mut contents),
        Err(yaml::SyntaxError { line, message }) => {
            contents.push(Content::Unknown(
                None,
                Fault {
                    field: String::new(),
                    line,
                    message,
                },
            ));
        }
    }
    contents
}

/// Reads one object, or every item of a list of them; `typed` is the kind that a list gives its items.
fn read_object(node: &Node, typed: Option<Kind>, contents: &mut Vec<Content>) {
    let fault = |field: &str, message: String| {
        let line = node.entry(field).map_or(node.line, |entry| entry.line);
        Fault {
            field: field.to_owned(),
            line,
            message,
        }
    };
    if !matches!(node.value, Value::Map(_)) {
        let message = format!(
            "a manifest must be a mapping with apiVersion and kind, not {}",
            node.describe()
        );
        contents.push(Content::Unknown(typed, fault("", message)));
        return;
    }
    let kind_name = match (node.text("kind"), typed) {
        (Some(name), _) => name,
        (None, Some(kind)) if node.entry("kind").is_none() => kind.name(),
        _ => {
            let message = match node.entry("kind") {
                None => "is missing, and must be given".to_owned(),
                Some(entry) => format!("must be a text, not {}", entry.value.describe()),
            };
            contents.push(Content::Unknown(None, fault("kind", message)));
            return;
        }
    };
    let element = kind_name.strip_suffix("List").filter(|_| typed.is_none());
    if let Some(element) =
        element.filter(|element| element.is_empty() || Kind::named(element).is_some())
    {
        read_list(node, Kind::named(element), contents);
        return;
    }
    let metadata = node.entry("metadata").map(|entry| &entry.value);
    let name = metadata.and_then(|metadata| metadata.text("name"));
    let Some(kind) = Kind::named(kind_name) else {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let message = format!(
            "{} is skipped: what is read here is {}",
            quoted(kind_name),
            known.join(", ")
        );
        let name = name.map(str::to_owned);
        contents.push(Content::Foreign(
            kind_name.to_owned(),
            name,
            fault("kind", message),
        ));
        return;
    };
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        let mut fault = fault(
            "metadata",
            "metadata.name must be given, as a text".to_owned(),
        );
        fault.field = "metadata.name".to_owned();
        if let Some(entry) = metadata.and_then(|metadata| metadata.entry("name")) {
            fault.line = entry.line;
            fault.message = format!(
                "must be a text, not {}: put it in quotes",
                entry.value.describe()
            );
        }
        contents.push(Content::Unknown(Some(kind), fault));
        return;
    };
    let namespace = metadata
        .and_then(|metadata| metadata.text("namespace"))
        .unwrap_or(DEFAULT_NAMESPACE);
    let key = Key {
        kind,
        namespace: if kind.is_namespaced() {
            namespace.into()
        } else {
            "".into()
        },
        name: name.into(),
    };
    let version = node.text("apiVersion");
    let versionless = typed.is_some() && node.entry("apiVersion").is_none();
    if version != Some(kind.api_version()) && !versionless {
        let wanted = kind.api_version();
        let message = match node.entry("apiVersion") {
            None => format!("is missing: write {wanted}"),
            Some(entry) => format!(
                "must be {wanted} for the kind {kind_name}, not {}",
                entry.value.describe()
            ),
        };
        contents.push(Content::Invalid(
            key,
            node.line,
            vec![fault("apiVersion", message)],
        ));
        return;
    }
    contents.push(match kind.read(node) {
        Ok(object) => Content::Object(key, node.line, Arc::new(object)),
        Err(faults) => Content::Invalid(key, node.line, faults),
    });
}

fn read_list(node: &Node, element: Option<Kind>, contents: &mut Vec<Content>) {
    let Some(entry) = node.entry("items") else {
        return;
    };
    let Value::List(items) = &entry.value.value else {
        let message = format!("must be a list, not {}", entry.value.describe());
        let fault = Fault {
            field: "items".to_owned(),
            line: entry.line,
            message,
        };
        contents.push(Content::Unknown(element, fault));
        return;
    };
    for (index, item) in items.iter().enumerate() {
        let first = contents.len();
        // An item cannot be a list again: only its own kind or that of the list is read.
        let nested = item.text("kind").is_some_and(|kind| kind.ends_with("List"));
        if nested {
            let line = item.line;
            let message = "a list must not stand in a list: give its items here".to_owned();
            contents.push(Content::Unknown(
                None,
                Fault {
                    field: "kind".to_owned(),
                    line,
                    message,
                },
            ));
        } else {
            read_object(item, element, contents);
        }
        for content in &mut contents[first..] {
            content.faults_mut().for_each(|fault| {
                let dot = if fault.field.is_empty() { "" } else { "." };
                fault.field = format!("items[{index}]{dot}{}", fault.field);
            });
        }
    }
}

impl Content {
    fn faults_mut(&mut self) -> impl Iterator<Item = &mut Fault> {
        match self {
            Self::Object(..) => [].iter_mut(),
            Self::Invalid(_, _, faults) => faults.iter_mut(),
            Self::Unknown(_, fault) | Self::Foreign(_, _, fault) => {
                std::slice::from_mut(fault).iter_mut()
            }
        }
    }
}

#[cfg(test)]
mod tests;
