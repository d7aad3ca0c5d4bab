//! Splits a file into its documents before anything is parsed, so that what is wrong in one document
//! cannot disturb another.

use std::path::Path;

use serde::de::IgnoredAny;

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'t> {
    /// Its number in the file, from 1.
    pub(super) number: u32,
    /// The line of the file that its text starts on, from 1.
    pub(super) line: u32,
    pub(super) text: &'t str,
}

/// Where a JSON file stops being one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JsonError {
    pub(super) document: u32,
    pub(super) line: u32,
    pub(super) message: String,
}

/// The documents of a file named `path`: YAML ones, or JSON ones that follow each other.
pub(super) fn split<'t>(path: &Path, text: &'t str) -> (Vec<Document<'t>>, Option<JsonError>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let named_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    if !named_json && !text.trim_start().starts_with('{') {
        return (split_yaml(text), None);
    }
    match split_json(text) {
        // Braces begin a YAML mapping too.
        (_, Some(_)) if !named_json => (split_yaml(text), None),
        other => other,
    }
}

fn split_json(text: &str) -> (Vec<Document<'_>>, Option<JsonError>) {
    let mut documents = Vec::new();
    let (mut offset, mut line, mut number) = (0, 1, 0);
    loop {
        let start = text.len() - text[offset..].trim_start().len();
        line += newlines(&text[offset..start]);
        if start == text.len() {
            return (documents, None);
        }
        number += 1;
        let mut stream =
            serde_json::Deserializer::from_str(&text[start..]).into_iter::<IgnoredAny>();
        match stream.next() {
            Some(Ok(_)) => offset = start + stream.byte_offset(),
            Some(Err(error)) => {
                let line = line - 1 + u32::try_from(error.line()).unwrap_or(1).max(1);
                let message = format!("not JSON: {error}");
                return (
                    documents,
                    Some(JsonError {
                        document: number,
                        line,
                        message,
                    }),
                );
            }
            None => return (documents, None),
        }
        let text = &text[start..offset];
        documents.push(Document { number, line, text });
        line += newlines(text);
    }
}

fn newlines(text: &str) -> u32 {
    u32::try_from(text.bytes().filter(|b| *b == b'\n').count()).unwrap_or(u32::MAX)
}

/// The markers `---` and `...` can stand nowhere but between documents, whatever surrounds them.
fn split_yaml(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let mut start = (0, 1);
    let mut content = Content::Nothing;
    let mut offset = 0;
    let mut finish = |start: (usize, u32), end: usize, content: Content| {
        if matches!(content, Content::Values) {
            let number = u32::try_from(documents.len())
                .unwrap_or(u32::MAX)
                .saturating_add(1);
            documents.push(Document {
                number,
                line: start.1,
                text: &text[start.0..end],
            });
        }
    };
    for (line, number) in text.split_inclusive('\n').zip(1u32..) {
        let end = offset + line.len();
        if is_marker(line, "---") {
            // Directives belong to the document that they precede.
            if !matches!(content, Content::Directives) {
                finish(start, offset, content);
                start = (offset, number);
            }
            content = Content::Values;
        } else if is_marker(line, "...") {
            finish(start, offset, content);
            start = (end, number.saturating_add(1));
            content = Content::Nothing;
        } else {
            content = content.and(line);
        }
        offset = end;
    }
    finish(start, offset, content);
    documents
}

/// What has been seen of a document.
#[derive(Clone, Copy)]
enum Content {
    Nothing,
    Directives,
    Values,
}

impl Content {
    fn and(self, line: &str) -> Self {
        let blank = line.trim_start().is_empty() || line.trim_start().starts_with('#');
        match self {
            Self::Nothing if !blank && line.starts_with('%') => Self::Directives,
            Self::Directives if line.starts_with('%') => Self::Directives,
            Self::Nothing | Self::Directives if !blank => Self::Values,
            other => other,
        }
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}
