//! Prometheus metrics of the controller's process.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
    registry::Registry,
};
use tokio::sync::watch;

use crate::{
    agents::AgentTable,
    leader::Leadership,
    source::Problems,
    status::{ControllerStatus, SharedStatus},
};

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum WriteResult {
    /// It is stored.
    Written,
    /// The object is gone.
    Gone,
    /// The object had changed.
    Conflict,
    /// The API server refused it, or did not answer.
    Failed,
}

/// The labels of a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: &'static str,
    result: WriteResult,
}

/// The labels of an Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    published: EventResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum EventResult {
    Yes,
    No,
}

/// What was sent to the API server. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    statuses: Family<WriteLabels, Counter>,
    events: Family<EventLabels, Counter>,
}

impl Writes {
    /// Makes them known to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "clusterlink_controller_status_writes",
            "Writes of statuses by kind and result",
            self.statuses.clone(),
        );
        registry.register(
            "clusterlink_controller_events",
            "Kubernetes Events by whether they were published",
            self.events.clone(),
        );
    }

    /// Counts a write of a status.
    pub(crate) fn count(&self, kind: &'static str, result: WriteResult) {
        let labels = WriteLabels { kind, result };
        self.statuses.get_or_create(&labels).inc();
    }

    /// Counts an Event.
    pub(crate) fn event(&self, published: bool) {
        let published = if published {
            EventResult::Yes
        } else {
            EventResult::No
        };
        self.events.get_or_create(&EventLabels { published }).inc();
    }
}

/// What is read at scrape time.
pub(crate) struct ControllerMetrics {
    pub(crate) status: Arc<SharedStatus>,
    pub(crate) problems: Problems,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) agents: watch::Receiver<Arc<AgentTable>>,
}

impl fmt::Debug for ControllerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllerMetrics").finish_non_exhaustive()
    }
}

impl ControllerMetrics {
    /// Makes them known to a registry.
    pub(crate) fn register(self, registry: &mut Registry) {
        registry.register(
            "clusterlink_controller_settle_seconds",
            "How long it takes from events that were read to what is published",
            self.status.settle_times.histogram.clone(),
        );
        registry.register_collector(Box::new(self));
    }
}

impl Collector for ControllerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let size = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let status = self.status.snapshot();
        let agents = self.agents.borrow().len();
        let undecodable = self
            .problems
            .borrow()
            .iter()
            .filter(|problem| problem.object.is_some())
            .count();
        let gauges = [
            (
                "clusterlink_controller_leader",
                "Whether this replica holds the lease and writes.",
                i64::from(self.leadership.borrow().leading),
            ),
            (
                "clusterlink_controller_agents",
                "Agents that report to this replica.",
                size(agents),
            ),
            (
                "clusterlink_controller_complete",
                "Whether every kind was read completely once.",
                i64::from(status.complete),
            ),
            (
                "clusterlink_controller_undecodable_objects",
                "Objects that cannot be decoded and are skipped.",
                size(undecodable),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let gauge = ConstGauge::new(0_i64);
        let mut family = encoder.encode_descriptor(
            "clusterlink_controller_objects",
            "Objects by kind.",
            None,
            gauge.metric_type(),
        )?;
        for (kind, count) in objects(&status) {
            ConstGauge::new(size(count)).encode(family.encode_family(&[("kind", kind)])?)?;
        }
        let build = ConstGauge::new(1_i64);
        let mut family = encoder.encode_descriptor(
            "clusterlink_build_info",
            "The version of this process; always 1.",
            None,
            build.metric_type(),
        )?;
        build.encode(family.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?)
    }
}

fn objects(status: &ControllerStatus) -> [(&'static str, usize); 5] {
    [
        ("Export", status.exports.len()),
        ("Import", status.imports.len()),
        ("Peer", status.peers.len()),
        ("Policy", status.policies.len()),
        ("Pod", status.workloads.len()),
    ]
}
