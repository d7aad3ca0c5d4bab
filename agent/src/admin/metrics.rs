//! Prometheus metrics: what the node's own part has to say, and the endpoint for all of them.

use std::{fmt, sync::Arc};

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use clusterlink_gateway::view::View;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::sync::watch;

use super::status::Steering;
use crate::{datapath::Datapath, readiness::Readiness};

/// What is read at scrape time.
pub struct NodeMetrics {
    /// The software version.
    pub version: String,
    /// Whether the process is ready.
    pub readiness: Readiness,
    /// The view in force.
    pub view: watch::Receiver<Arc<View>>,
    /// Whether connects are steered in the kernel.
    pub steering: watch::Receiver<Steering>,
    /// What the hooks counted.
    pub datapath: Arc<dyn Datapath>,
}

impl fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeMetrics").finish_non_exhaustive()
    }
}

impl Collector for NodeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let view = self.view.borrow().clone();
        let size = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let gauges = [
            (
                "clusterlink_agent_ready",
                "Whether connections of local clients are judged and served.",
                i64::from(self.readiness.blockers().is_empty()),
            ),
            (
                "clusterlink_agent_steering",
                "Whether connects are steered in the kernel; if not, clients come by the Service path alone.",
                i64::from(self.steering.borrow().on),
            ),
            (
                "clusterlink_agent_generation",
                "Grows with every change that a decision depends on.",
                i64::try_from(view.generation).unwrap_or(i64::MAX),
            ),
            (
                "clusterlink_agent_imports",
                "Imports in force.",
                size(view.snapshot.imports.len()),
            ),
            (
                "clusterlink_agent_exports",
                "Exports in force.",
                size(view.snapshot.exports.len()),
            ),
            (
                "clusterlink_agent_peers",
                "Peer objects.",
                size(view.snapshot.peers.len()),
            ),
            (
                "clusterlink_agent_policies",
                "Policies in force.",
                size(view.snapshot.policies.len()),
            ),
            (
                "clusterlink_agent_workloads",
                "Known workloads.",
                size(view.snapshot.workloads.len()),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let build = ConstGauge::new(1_i64);
        let mut family = encoder.encode_descriptor(
            "clusterlink_build_info",
            "The version of this process; always 1.",
            None,
            build.metric_type(),
        )?;
        build.encode(family.encode_family(&[("version", self.version.as_str())])?)?;
        let mut family = encoder.encode_descriptor(
            "clusterlink_datapath_events",
            "What the kernel hooks did, by reason.",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?;
        for (reason, count) in self.datapath.counters().unwrap_or_default() {
            ConstCounter::new(count).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}

/// The endpoint `/metrics`.
pub fn router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(registry)
}

async fn scrape(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, &registry);
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
}
