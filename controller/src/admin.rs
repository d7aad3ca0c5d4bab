//! What Kubernetes and Prometheus ask the process for: is it alive, is it ready, its metrics.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use clusterlink_process::readiness::Readiness;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::sync::watch;

/// What the routes serve. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// What is waited for.
    pub(crate) readiness: Readiness,
    /// The kinds that were not read completely yet.
    pub(crate) missing: watch::Receiver<Vec<&'static str>>,
    /// All metrics.
    pub(crate) registry: Arc<Registry>,
}

impl Served {
    /// What the process still waits for; nothing means ready.
    pub(crate) fn blockers(&self) -> Vec<String> {
        let named = self.readiness.blockers().into_iter().map(str::to_owned);
        let missing = self.missing.borrow();
        let kinds = missing
            .iter()
            .map(|kind| format!("the first complete read of {kind}"));
        named.chain(kinds).collect()
    }
}

/// The routes.
pub(crate) fn router(served: Served) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(served)
}

async fn ready(State(served): State<Served>) -> (StatusCode, String) {
    let blockers = served.blockers();
    if blockers.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        let text = format!("waiting for {}\n", blockers.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

async fn scrape(State(served): State<Served>) -> impl IntoResponse {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, &served.registry);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_the_kinds_that_are_not_read_yet() {
        let (kinds, missing) = watch::channel(vec!["Pod", "Import"]);
        let served = Served {
            readiness: Readiness::default(),
            missing,
            registry: Arc::default(),
        };
        let blocker = served.readiness.block("the moon");
        let all = [
            "the moon",
            "the first complete read of Pod",
            "the first complete read of Import",
        ];
        assert_eq!(served.blockers(), all);
        drop(blocker);
        kinds.send_replace(Vec::new());
        assert!(served.blockers().is_empty());
    }
}
