//! How many requests of each verb and kind were sent, and how they ended.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::{cluster::Kind, metrics::WriteResult};

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
    ended: Family<Labels, Counter>,
}

/// The labels of a request that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: &'static str,
    verb: &'static str,
    result: WriteResult,
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

    /// Makes them known to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "clusterlink_controller_object_writes",
            "Writes of Services and EndpointSlices by kind, verb and result",
            self.ended.clone(),
        );
    }

    pub(super) fn ended(&self, verb: Verb, kind: Kind, result: WriteResult) {
        let labels = Labels {
            kind: kind.as_str(),
            verb: match verb {
                Verb::Create => "Create",
                Verb::Patch => "Patch",
                Verb::Delete => "Delete",
            },
            result,
        };
        self.ended.get_or_create(&labels).inc();
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

    #[test]
    fn a_scrape_shows_how_requests_ended() {
        let counts = WriteCounts::default();
        let mut registry = Registry::default();
        counts.register(&mut registry);
        counts.ended(Verb::Create, Kind::Service, WriteResult::Written);
        counts.ended(Verb::Delete, Kind::EndpointSlice, WriteResult::Conflict);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"clusterlink_controller_object_writes_total{kind="Service",verb="Create",result="Written"} 1"#,
            r#"clusterlink_controller_object_writes_total{kind="EndpointSlice",verb="Delete",result="Conflict"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
