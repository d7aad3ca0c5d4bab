//! The local API, and the endpoint for metrics and readiness.

use std::{os::unix::net::UnixListener, sync::Arc};

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tracing::{error, info};

use super::{AgentError, Config};
use crate::admin::{self, Admin, SocketError};

/// Listens; what is returned serves.
pub(super) async fn serve(
    config: &Config,
    admin: &Arc<Admin>,
    registry: Registry,
    listener: UnixListener,
) -> Result<impl Future<Output = &'static str> + Send + 'static, AgentError> {
    let failed = |source| {
        AgentError::Socket(SocketError::Io {
            path: config.admin.clone(),
            source,
        })
    };
    let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
    let routes = admin::router(admin.served());
    let metrics = match config.metrics {
        None => None,
        Some(address) => {
            let failed = |source| AgentError::Metrics { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            info!(%address, "metrics and readiness are here");
            let routes = admin::metrics::router(Arc::new(registry))
                .merge(admin::health(admin.readiness.clone()));
            Some((listener, routes))
        }
    };
    Ok(async move {
        let api = async {
            if let Err(error) = axum::serve(listener, routes).await {
                error!(%error, "the local API has ended");
            }
        };
        let metrics = async {
            match metrics {
                None => std::future::pending().await,
                Some((listener, routes)) => {
                    if let Err(error) = axum::serve(listener, routes).await {
                        error!(%error, "the metrics endpoint has ended");
                    }
                }
            }
        };
        tokio::select! { () = api => "the local API", () = metrics => "the metrics endpoint" }
    })
}
