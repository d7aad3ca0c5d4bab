//! Match bits: which policies a source, or a destination, matches.
//!
//! A node judges thousands of imports for dozens of identity classes. Matching each source and
//! each destination once, and combining the results, costs the sum of both instead of their
//! product; what remains per pair is a few words of AND.

use std::{fmt, ops::Range, sync::Arc};

use super::{
    Decision, DestinationAttributes, PolicySet, SourceAttributes,
    compiled::{Compiled, Slot},
};
use crate::resource::Action;

/// Which policies of one [`PolicySet`] a source matches.
#[derive(Clone)]
pub struct SourceBits {
    set: Arc<Compiled>,
    words: Box<[u64]>,
}

/// Which policies that count for it a destination matches, in one [`PolicySet`].
#[derive(Clone)]
pub struct DestinationBits {
    set: Arc<Compiled>,
    /// The words of the privileged policies, then those of the governing namespace.
    words: Box<[u64]>,
    namespaced: Range<usize>,
}

impl PolicySet {
    /// Matches a source against every policy.
    pub fn source_bits(&self, source: &SourceAttributes<'_>) -> SourceBits {
        let matches = |slot: &Slot| slot.from.matches(|key| source.value(key));
        let words = (0..self.compiled.words()).map(|w| self.compiled.match_word(w, matches));
        SourceBits {
            set: self.compiled.clone(),
            words: words.collect(),
        }
    }

    /// Matches a destination against every policy that counts for it; `namespace` is the
    /// Import's or the Export's.
    pub fn destination_bits(
        &self,
        namespace: &str,
        destination: &DestinationAttributes<'_>,
    ) -> DestinationBits {
        let matches = |slot: &Slot| slot.to.matches(|key| destination.value(key));
        let namespaced = self.compiled.namespaced(namespace);
        let words = self.compiled.privileged().chain(namespaced.clone());
        let words = words
            .map(|w| self.compiled.match_word(w, matches))
            .collect();
        DestinationBits {
            set: self.compiled.clone(),
            words,
            namespaced,
        }
    }

    /// The same as [`PolicySet::decide`], from bits of this set; bits of another set are denied.
    pub fn decide_bits(&self, source: &SourceBits, destination: &DestinationBits) -> Decision {
        Decision::of(self.deciding(source, destination))
    }

    /// Whether [`PolicySet::decide_bits`] allows, without naming the policy.
    pub fn allows_bits(&self, source: &SourceBits, destination: &DestinationBits) -> bool {
        self.deciding(source, destination)
            .is_some_and(|slot| slot.action == Action::Allow)
    }

    fn deciding(&self, source: &SourceBits, destination: &DestinationBits) -> Option<&Slot> {
        // Bits of another set mean other policies.
        let same = Arc::ptr_eq(&self.compiled, &source.set)
            && Arc::ptr_eq(&self.compiled, &destination.set);
        if !same {
            return None;
        }
        let words = self
            .compiled
            .privileged()
            .chain(destination.namespaced.clone());
        (words.zip(&destination.words))
            .map(|(word, to)| (word, source.words[word] & to))
            .find(|(_, both)| *both != 0)
            .and_then(|(word, both)| self.compiled.slot(word, both.trailing_zeros()))
    }
}

impl fmt::Debug for SourceBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceBits").field(&self.words).finish()
    }
}

impl fmt::Debug for DestinationBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DestinationBits").field(&self.words).finish()
    }
}
