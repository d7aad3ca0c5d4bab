//! The client of the API server: kube's own layers, over connections that notice silence.
//!
//! kube leaves connections as TCP has them. Without any sign of a failure (a network that drops, an
//! API server whose machine is gone) a watch would be taken for a quiet one for five minutes, and
//! what a leader had sent could still arrive after half a minute, when another one leads.

use std::time::Duration;

use anyhow::Context as _;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt as _, retry::RetryPolicy},
};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

use crate::leader::Timing;

/// The shortest time after which an idle connection is asked for a sign of life; TCP counts seconds.
const SHORTEST: Duration = Duration::from_secs(1);

/// A client whose connections end with what was not acknowledged in time: nothing that a leader has
/// sent arrives after its lease has run out.
pub(super) fn client(config: Config, timing: Timing) -> anyhow::Result<Client> {
    const CANNOT: &str = "cannot make a client of the API server";
    if config.proxy_url.is_some() {
        // The connections are the proxy's then.
        return Client::try_from(config).context(CANNOT);
    }
    let connector = config
        .rustls_https_connector_with_connector(connector(&config, timing))
        .context(CANNOT)?;
    let http: legacy::Client<_, Body> =
        legacy::Client::builder(TokioExecutor::new()).build(connector);
    let retry = config.default_retry;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer().context(CANNOT)?)
        .layer(config.extra_headers_layer().context(CANNOT)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

fn connector(config: &Config, timing: Timing) -> HttpConnector {
    let silence = timing.duration.saturating_sub(timing.renew_deadline);
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_tcp_user_timeout(Some(silence));
    connector.set_keepalive(Some(silence.max(SHORTEST)));
    connector.set_keepalive_interval(Some(SHORTEST));
    connector
}
