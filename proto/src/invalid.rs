//! Why a message cannot be used.

use std::fmt::Display;

/// A field that does not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    field: &'static str,
    problem: String,
}

impl Invalid {
    /// `problem` says what the field holds, and what it should.
    pub(crate) fn new(field: &'static str, problem: impl Display) -> Self {
        Self {
            field,
            problem: problem.to_string(),
        }
    }

    /// The field has to be there.
    pub(crate) fn missing(field: &'static str) -> Self {
        Self::new(field, "missing")
    }

    /// A value that only a newer sender knows.
    pub(crate) fn unknown(field: &'static str, value: i32) -> Self {
        Self::new(
            field,
            format_args!("{value} is not known to this version; update it"),
        )
    }
}
