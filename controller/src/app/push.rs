//! The push server in this process: its certificates, who may connect, and who leads.

use std::sync::Arc;

use clusterlink_model::ObjectName;
use tokio::sync::watch;

use super::parts::Parts;
use crate::{
    agents::AGENT,
    authority::Keeper,
    leader::Leadership,
    push::{self, Authority, Metrics, PushConfig, PushServer, TokenReviewer, live_pods},
};

/// What agents trust this replica by.
const AUTHORITY: &str = "the certificate authority in Secret and ConfigMap clusterlink-controller-ca (the log says more)";

/// Starts the push server on the listener of `parts`.
pub(super) fn start(parts: Parts<'_>) {
    let Parts {
        settings,
        client,
        controller,
        agents,
        teller,
        leadership,
        listener,
        readiness,
        registry,
        tasks,
        background,
        stop,
    } = parts;
    let namespace = settings.namespace.as_str();
    let authority = Arc::new(Authority::pending(namespace));
    let keeper = Keeper::new(client.clone(), namespace, Arc::clone(&authority)).telling(teller);
    let published = readiness.block(AUTHORITY);
    background.spawn(async move {
        keeper.run(move || drop(published)).await;
        "the keeper of the certificate authority"
    });
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
