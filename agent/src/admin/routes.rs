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
use clusterlink_gateway::flow::FlowRecord;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;

use super::{Admin, Status};

/// The flow log at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// Open flows, oldest first.
    pub live: Vec<FlowRecord>,
    /// Flows that ended, oldest first.
    pub recent: Vec<FlowRecord>,
}

/// The local API.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/flows", get(flows))
        .route("/v1/flows/follow", get(follow))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(admin)
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<Status> {
    Json(admin.status())
}

async fn flows(State(admin): State<Arc<Admin>>) -> Json<Flows> {
    Json(Flows {
        live: admin.flows.live(),
        recent: admin.flows.recent(),
    })
}

async fn follow(State(admin): State<Arc<Admin>>) -> Response {
    let events = admin.flows.subscribe();
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

async fn ready(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    let blockers = admin.readiness.blockers();
    if blockers.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for {}\n", blockers.join(", ")),
        )
    }
}
