//! The Subscribe stream, again and again.

use std::sync::Arc;

use clusterlink_proto::wire;
use futures::stream::{self, StreamExt as _};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use wire::subscribe_request::Message as Request;

use super::{
    Config,
    backoff::Backoff,
    connect::{Connection, StreamError, greeting},
    shared::Shared,
};

/// Keeps a subscription for as long as the process lives.
pub(super) async fn run(config: Arc<Config>, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(config.backoff);
    loop {
        let start = Instant::now();
        let error = match subscribe(&config, &shared).await {
            Ok(()) => StreamError::Ended,
            Err(error) => error,
        };
        shared.end(&error);
        // A controller that lets us in and throws us out at once is no better than none.
        if start.elapsed() > config.backoff.longest {
            backoff.reset();
        }
        let wait = backoff.wait();
        warn!(
            error = crate::chain(&error),
            ?wait,
            "no subscription: what was known last stays in force"
        );
        sleep(wait).await;
    }
}

async fn subscribe(config: &Config, shared: &Shared) -> Result<(), StreamError> {
    let mut connection = Connection::open(config, &config.controller).await?;
    let mut beginning = shared.begin();
    let held: usize = beginning.held.iter().map(|held| held.resources.len()).sum();
    let first = std::iter::once(Request::Greeting(greeting(config)))
        .chain(beginning.held.into_iter().map(Request::Held))
        .map(|message| wire::SubscribeRequest {
            message: Some(message),
        });
    let first: Vec<_> = first.collect();
    let later = stream::poll_fn(move |context| beginning.outgoing.poll_recv(context));
    let request = connection.request(stream::iter(first).chain(later));
    let opening = timeout(config.silence, connection.client.subscribe(request)).await;
    let silent = || StreamError::Silent(config.silence);
    let mut responses = opening.map_err(|_| silent())??.into_inner();
    info!(controller = config.controller, held, "subscribed");
    loop {
        let response = timeout(config.silence, responses.message()).await;
        match response.map_err(|_| silent())?? {
            Some(response) => shared.receive(response)?,
            None => return Ok(()),
        }
    }
}
