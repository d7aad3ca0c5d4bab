//! Settings are checked together, so that all wrong values are reported in one run.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

/// Every wrong value so far.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Notes a wrong value.
    pub fn add(&mut self, problem: String) {
        self.0.push(problem);
    }

    /// The value, or notes why there is none.
    pub fn keep<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.add(problem)).ok()
    }

    /// The value that a flag's text stands for; `form` says how it is written.
    pub fn parse<T: FromStr<Err: Display>>(
        &mut self,
        flag: &str,
        text: &str,
        form: &str,
    ) -> Option<T> {
        let parsed = text
            .parse()
            .map_err(|error| format!("{flag} {text:?}: {error}; write {form}"));
        self.keep(parsed)
    }

    /// Labels of a peer, each written as `KEY=VALUE`.
    pub fn labels(&mut self, flag: &str, texts: &[String]) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for text in texts {
            match text.split_once('=') {
                Some((key, value)) if !key.is_empty() && value.len() <= 63 => {
                    labels.insert(key.to_owned(), value.to_owned());
                }
                _ => self.add(format!(
                    "{flag} {text:?}: write KEY=VALUE with a value of at most 63 characters"
                )),
            }
        }
        labels
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order in which they were found.
    pub fn into_vec(self) -> Vec<String> {
        self.0
    }
}
