//! The gateway's Prometheus metrics.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::flow::{Direction, EndReason};

/// Labels of an ended connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Ended {
    direction: DirectionLabel,
    reason: ReasonLabel,
}

/// Labels of a refused handshake or an ended session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Because {
    direction: DirectionLabel,
    reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct DirectionLabel(bool);

impl EncodeLabelValue for DirectionLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        (if self.0 { "egress" } else { "ingress" }).encode(encoder)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ReasonLabel(EndReason);

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_str().encode(encoder)
    }
}

/// Counters of one gateway; cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections: Counter,
    ended: Family<Ended, Counter>,
    handshakes_refused: Family<Because, Counter>,
    pub(crate) sessions: Gauge,
    pub(crate) unrecorded: Counter,
    pub(crate) service_path: Counter,
    pub(crate) untargeted: Counter,
    pub(crate) target_listeners: Gauge,
    pub(crate) target_listeners_missing: Gauge,
    pub(crate) failovers: Counter,
    pub(crate) half_open_refused: Counter,
}

impl Metrics {
    /// Creates the metrics and adds them to `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "connections",
            "Connections of local clients that were accepted.",
            metrics.connections.clone(),
        );
        registry.register(
            "connections_ended",
            "Connections that ended, by direction and reason.",
            metrics.ended.clone(),
        );
        registry.register(
            "handshakes_refused",
            "TLS handshakes that failed, by who dialled and reason.",
            metrics.handshakes_refused.clone(),
        );
        registry.register(
            "sessions",
            "Sessions with other peers' gateways.",
            metrics.sessions.clone(),
        );
        registry.register(
            "connections_unrecorded",
            "Connections to the steering port that the kernel has no record of; they are reset.",
            metrics.unrecorded.clone(),
        );
        registry.register(
            "connections_service_path",
            "Connections of local clients that came to the leased port of an import, by kube-proxy or a CNI.",
            metrics.service_path.clone(),
        );
        registry.register(
            "connections_untargeted",
            "Connections on the Service path to a port that no import has; they are reset.",
            metrics.untargeted.clone(),
        );
        registry.register(
            "target_listeners",
            "Leased ports that are listened on here, since the kernel does not hand their connections over.",
            metrics.target_listeners.clone(),
        );
        registry.register(
            "target_listeners_missing",
            "Leased ports that should be listened on here and cannot be: other processes have them.",
            metrics.target_listeners_missing.clone(),
        );
        registry.register(
            "failovers",
            "Times that a further source was tried within one connection.",
            metrics.failovers.clone(),
        );
        registry.register(
            "handshakes_limited",
            "Incoming sessions closed because too many handshakes were under way.",
            metrics.half_open_refused.clone(),
        );
        metrics
    }

    pub(crate) fn ended(&self, direction: Direction, reason: EndReason) {
        let direction = DirectionLabel(direction == Direction::Egress);
        self.ended
            .get_or_create(&Ended {
                direction,
                reason: ReasonLabel(reason),
            })
            .inc();
    }

    pub(crate) fn handshake_refused(&self, dialled: bool, reason: &'static str) {
        let because = Because {
            direction: DirectionLabel(dialled),
            reason,
        };
        self.handshakes_refused.get_or_create(&because).inc();
    }
}
