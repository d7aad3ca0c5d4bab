//! The routes of the local API.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use clusterlink_gateway::flow::{FlowLog, FlowRecord};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;

use super::Status;
use crate::readiness::Readiness;

/// The flow log at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// Open flows, oldest first.
    pub live: Vec<FlowRecord>,
    /// Flows that ended, oldest first.
    pub recent: Vec<FlowRecord>,
}

/// What the routes serve.
#[derive(Clone)]
pub struct Served {
    /// What is waited for.
    pub readiness: Readiness,
    /// The flow log.
    pub flows: Arc<FlowLog>,
    /// Composes the status.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
}

/// The local API.
pub fn router(served: Served) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/flows", get(flows))
        .route("/v1/flows/follow", get(follow))
        .with_state(served.clone())
        .merge(health(served.readiness))
}

/// What a kubelet asks: `/livez` and `/readyz`, which names what is waited for.
pub fn health(readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

async fn status(State(served): State<Served>) -> Json<Status> {
    Json((served.status)())
}

async fn flows(State(served): State<Served>) -> Json<Flows> {
    Json(Flows {
        live: served.flows.live(),
        recent: served.flows.recent(),
    })
}

async fn follow(State(served): State<Served>) -> Response {
    let events = served.flows.subscribe();
    let lines = futures::stream::unfold(events, async |mut events| {
        loop {
            match events.recv().await {
                Ok(record) => return Some((Ok::<_, Infallible>(line(&record)), events)),
                // A reader that is too slow misses flows; it reads on with the next ones.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

fn line(record: &FlowRecord) -> Bytes {
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let blockers = readiness.blockers();
    if blockers.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for {}\n", blockers.join(", ")),
        )
    }
}
