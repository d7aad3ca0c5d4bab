//! The order in which policies are asked, laid out so that the first that matches decides.
//!
//! ```text
//! words:  | privileged deny, allow | namespace a: deny, allow | namespace b: deny, allow | …
//!          every connection          only if it is governed by namespace a
//! ```
//! Each group is ordered by action and name and begins a new 64-bit word, so that a decision over
//! match bits is an AND of a few words and the position of the lowest bit that is set.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    attribute::{DestinationKey, SourceKey},
    matcher::Matcher,
};
use crate::{
    name::PolicyName,
    resource::{Action, Policy},
};

/// How many policies one word of match bits covers at most.
const WORD: usize = 64;

/// All policies of a node in the order in which they are asked.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    /// At most [`WORD`] policies each; none spans two groups.
    words: Box<[Box<[Slot]>]>,
    /// The words of the privileged policies are `0..privileged`.
    privileged: usize,
    /// The words of each namespace's policies.
    namespaces: HashMap<Arc<str>, Range<usize>>,
}

/// One policy.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: PolicyName,
    pub(super) action: Action,
    pub(super) from: Matcher<SourceKey>,
    pub(super) to: Matcher<DestinationKey>,
}

impl Compiled {
    pub(super) fn new(policies: impl IntoIterator<Item = Arc<Policy>>) -> Self {
        let mut policies: Vec<_> = policies.into_iter().collect();
        policies.sort_by(|a, b| rank(a).cmp(&rank(b)));
        let mut words = Vec::new();
        let mut privileged = 0;
        let mut namespaces = HashMap::new();
        for group in policies.chunk_by(|a, b| namespace(a) == namespace(b)) {
            let start = words.len();
            words.extend(
                group
                    .chunks(WORD)
                    .map(|word| word.iter().map(|p| Slot::new(p)).collect()),
            );
            match namespace(&group[0]) {
                None => privileged = words.len(),
                Some(namespace) => drop(namespaces.insert(namespace.clone(), start..words.len())),
            }
        }
        Self {
            words: words.into(),
            privileged,
            namespaces,
        }
    }

    /// The words of the privileged policies.
    pub(super) fn privileged(&self) -> Range<usize> {
        0..self.privileged
    }

    /// The words of the policies that live in `namespace`.
    pub(super) fn namespaced(&self, namespace: &str) -> Range<usize> {
        self.namespaces.get(namespace).cloned().unwrap_or_default()
    }

    /// How many words there are.
    pub(super) fn words(&self) -> usize {
        self.words.len()
    }

    /// The policies of some words, in the order in which they are asked.
    pub(super) fn slots(&self, words: Range<usize>) -> impl Iterator<Item = &Slot> + '_ {
        self.words[words].iter().flatten()
    }

    /// The policy behind one bit.
    pub(super) fn slot(&self, word: usize, bit: u32) -> Option<&Slot> {
        self.words.get(word)?.get(bit as usize)
    }

    /// One word of match bits: which of its policies `matches` holds for.
    pub(super) fn match_word(&self, word: usize, matches: impl Fn(&Slot) -> bool) -> u64 {
        (self.words[word].iter().enumerate())
            .filter(|(_, slot)| matches(slot))
            .fold(0, |bits, (bit, _)| bits | 1 << bit)
    }
}

impl Slot {
    fn new(policy: &Policy) -> Self {
        Self {
            name: policy.name.clone(),
            action: policy.action,
            from: Matcher::new(&policy.from),
            to: Matcher::new(&policy.to),
        }
    }
}

/// Privileged ones first, then by namespace; within that denies first, then by name.
fn rank(policy: &Policy) -> (Option<&Arc<str>>, bool, &PolicyName) {
    (
        namespace(policy),
        policy.action == Action::Allow,
        &policy.name,
    )
}

fn namespace(policy: &Policy) -> Option<&Arc<str>> {
    match &policy.name {
        PolicyName::Privileged(_) => None,
        PolicyName::Namespaced(name) => Some(&name.namespace),
    }
}
