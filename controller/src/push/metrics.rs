//! What the push server counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::auth::Refusal;

/// The counters of the push server. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    streams: Family<StreamLabels, Gauge>,
    refused: Family<ReasonLabels, Counter>,
    ended: Family<ReasonLabels, Counter>,
    handshakes_failed: Counter,
    upserts: Counter,
    removals: Counter,
    bytes: Counter,
    snapshots: Counter,
    rejected: Counter,
    oversized: Counter,
    lookups: Counter,
    reports: Counter,
}

/// A kind of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    kind: &'static str,
}

/// A reason, of which there are a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Counts a stream while it lives.
#[derive(Debug)]
pub(super) struct Live(Gauge);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Makes the counters visible.
    pub fn register(&self, registry: &mut Registry) {
        let push = registry.sub_registry_with_prefix("clusterlink_controller_push");
        push.register(
            "streams",
            "Streams of agents, by kind.",
            self.streams.clone(),
        );
        push.register(
            "refused",
            "Streams that were refused, by reason.",
            self.refused.clone(),
        );
        push.register(
            "ended",
            "Streams that the controller ended, by reason.",
            self.ended.clone(),
        );
        push.register(
            "handshakes_failed",
            "TLS handshakes that failed.",
            self.handshakes_failed.clone(),
        );
        push.register("upserts", "Resources that were sent.", self.upserts.clone());
        push.register(
            "removals",
            "Removals that were sent.",
            self.removals.clone(),
        );
        push.register(
            "sent_bytes",
            "Bytes of resources that were sent.",
            self.bytes.clone(),
        );
        push.register(
            "snapshots",
            "Agents that were brought up to date after they connected.",
            self.snapshots.clone(),
        );
        push.register(
            "rejected",
            "Resources that agents rejected.",
            self.rejected.clone(),
        );
        push.register(
            "oversized",
            "Resources that were not sent since they are too large.",
            self.oversized.clone(),
        );
        push.register(
            "lookups",
            "Addresses that agents asked about.",
            self.lookups.clone(),
        );
        push.register("reports", "Reports that agents sent.", self.reports.clone());
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        let reason = refusal.reason();
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn stream(&self, kind: &'static str) -> Live {
        let gauge = self.streams.get_or_create_owned(&StreamLabels { kind });
        gauge.inc();
        Live(gauge)
    }

    pub(super) fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    pub(super) fn sent(&self, upserts: usize, removals: usize, bytes: usize) {
        self.upserts.inc_by(upserts as u64);
        self.removals.inc_by(removals as u64);
        self.bytes.inc_by(bytes as u64);
    }

    pub(super) fn snapshot(&self) {
        self.snapshots.inc();
    }

    pub(super) fn rejected(&self, number: usize) {
        self.rejected.inc_by(number as u64);
    }

    pub(super) fn oversized(&self) {
        self.oversized.inc();
    }

    pub(super) fn lookup(&self) {
        self.lookups.inc();
    }

    pub(super) fn report(&self) {
        self.reports.inc();
    }
}

#[cfg(test)]
impl Metrics {
    pub(super) fn upserts_sent(&self) -> u64 {
        self.upserts.get()
    }

    pub(super) fn removals_sent(&self) -> u64 {
        self.removals.get()
    }

    pub(super) fn snapshots(&self) -> u64 {
        self.snapshots.get()
    }

    pub(super) fn refused_for(&self, reason: &'static str) -> u64 {
        self.refused.get_or_create(&ReasonLabels { reason }).get()
    }

    pub(super) fn rejected_count(&self) -> u64 {
        self.rejected.get()
    }

    pub(super) fn live(&self, kind: &'static str) -> i64 {
        self.streams.get_or_create(&StreamLabels { kind }).get()
    }
}
