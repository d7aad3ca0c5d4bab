//! The push server in this process: its certificates, who may connect, and who leads.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use clusterlink_model::ObjectName;
use kube::Client;
use tokio::sync::watch;
use tracing::warn;

use super::parts::Parts;
use crate::{
    agents::AGENT,
    authority::{CA_CONFIG_MAP, publish_ca},
    leader::Leadership,
    push::{self, Authority, Metrics, PushConfig, PushServer, TokenReviewer, live_pods},
};

/// How long to wait before the authority is published again after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the authority is published again, in case that somebody has removed it.
const REFRESH: Duration = Duration::from_secs(300);

/// Starts the push server on the listener of `parts`.
pub(super) fn start(parts: Parts<'_>) -> anyhow::Result<()> {
    let Parts {
        settings,
        client,
        controller,
        agents,
        leadership,
        listener,
        readiness,
        registry,
        tasks,
        background,
        stop,
    } = parts;
    let namespace = settings.namespace.as_str();
    let authority = Authority::new(namespace).context("the push server has no certificate")?;
    let authority = Arc::new(authority);
    let published = readiness.block("the publication of the certificate that agents trust");
    background.spawn(publish(
        client.clone(),
        settings.namespace.clone(),
        settings.identity.clone(),
        authority.certificate_pem().to_owned(),
        move || drop(published),
    ));
    let (live_pods, watching) = live_pods(client.clone(), namespace);
    background.spawn(async move {
        watching.await;
        "the watch of the agents' pods"
    });
    let (leads, leading) = watch::channel(push::Leadership::Unknown);
    background.spawn(follow(leadership, leads));
    let metrics = Metrics::default();
    metrics.register(registry);
    let account = ObjectName::new(namespace, AGENT);
    let server = PushServer {
        config: PushConfig::default(),
        resources: controller.subscriber(),
        authenticator: TokenReviewer::new(client.clone(), account),
        agents: agents.clone(),
        leadership: leading,
        live_pods,
        authority,
        metrics,
    };
    let stop = stop.clone();
    tasks.spawn(async move {
        push::serve(listener, server, stop).await;
        "the push server"
    });
    Ok(())
}

/// Keeps this replica's certificate where agents find it. Each write is the same as the last one, so
/// that it changes nothing unless somebody else did.
async fn publish(
    client: Client,
    namespace: String,
    identity: String,
    pem: String,
    published: impl FnOnce(),
) -> &'static str {
    let mut published = Some(published);
    loop {
        let done = publish_ca(client.clone(), &namespace, CA_CONFIG_MAP, &identity, &pem).await;
        let pause = match done {
            Ok(()) => {
                if let Some(published) = published.take() {
                    published();
                }
                REFRESH
            }
            Err(error) => {
                warn!(
                    %error,
                    "cannot publish the certificate that agents trust in ConfigMap {namespace}/{CA_CONFIG_MAP}"
                );
                AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Tells the push server who leads.
async fn follow(
    mut leadership: watch::Receiver<Leadership>,
    leads: watch::Sender<push::Leadership>,
) -> &'static str {
    loop {
        let now = push::Leadership::from(&*leadership.borrow_and_update());
        leads.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        if leadership.changed().await.is_err() {
            return "the election";
        }
    }
}
