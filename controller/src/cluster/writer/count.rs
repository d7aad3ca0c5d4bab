//! How many requests of each verb and kind were sent.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cluster::Kind;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Makes an object.
    Create,
    /// Changes some of it.
    Patch,
    /// Deletes it.
    Delete,
}

/// Requests sent since the start.
#[derive(Debug, Default)]
pub struct WriteCounts {
    counts: [[AtomicU64; 2]; 3],
}

impl WriteCounts {
    /// The requests of one verb for one kind.
    pub fn get(&self, verb: Verb, kind: Kind) -> u64 {
        self.counts[verb as usize][kind as usize].load(Ordering::Relaxed)
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        let all = self.counts.iter().flatten();
        all.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn add(&self, verb: Verb, kind: Kind) {
        self.counts[verb as usize][kind as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_and_kind_is_counted_on_its_own() {
        let counts = WriteCounts::default();
        counts.add(Verb::Create, Kind::Service);
        counts.add(Verb::Delete, Kind::EndpointSlice);
        counts.add(Verb::Delete, Kind::EndpointSlice);
        assert_eq!(counts.get(Verb::Create, Kind::Service), 1);
        assert_eq!(counts.get(Verb::Delete, Kind::EndpointSlice), 2);
        assert_eq!(counts.get(Verb::Patch, Kind::Service), 0);
        assert_eq!(counts.total(), 3);
    }
}
