//! The two streams as gRPC offers them: who is calling is settled before anything else.

use std::{pin::Pin, sync::Arc};

use clusterlink_proto::{MAX_TO_CONTROLLER, PROTOCOL, wire};
use futures::{Stream, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use wire::push_server::{Push, PushServer as Tower};

use super::{
    PushServer,
    auth::{Authenticator, Identity, Refusal},
    guard::Guard,
    owners::Owners,
    report, subscribe,
};

/// Messages of one stream that wait for the connection to take them: an agent that does not read
/// costs no more than these.
const WAITING: usize = 2;

/// What both streams work with.
#[derive(Debug)]
pub(super) struct Shared<A> {
    pub(super) server: PushServer<A>,
    pub(super) admission: Arc<Semaphore>,
    pub(super) owners: Owners,
    stop: CancellationToken,
}

/// The service.
#[derive(Debug)]
pub(super) struct Service<A> {
    shared: Arc<Shared<A>>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The first message of a stream.
trait Greets {
    fn into_greeting(self) -> Option<wire::Greeting>;
}

impl Greets for wire::SubscribeRequest {
    fn into_greeting(self) -> Option<wire::Greeting> {
        match self.message {
            Some(wire::subscribe_request::Message::Greeting(greeting)) => Some(greeting),
            _ => None,
        }
    }
}

impl Greets for wire::ReportRequest {
    fn into_greeting(self) -> Option<wire::Greeting> {
        match self.message {
            Some(wire::report_request::Message::Greeting(greeting)) => Some(greeting),
            _ => None,
        }
    }
}

impl<A: Authenticator> Service<A> {
    pub(super) fn new(server: PushServer<A>, stop: CancellationToken) -> Self {
        let shared = Shared {
            admission: Arc::new(Semaphore::new(server.config.snapshots)),
            owners: Owners::new(server.agents.clone()),
            server,
            stop,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    pub(super) fn into_tower(self) -> Tower<Self> {
        Tower::new(self).max_decoding_message_size(MAX_TO_CONTROLLER)
    }
}

impl<A: Authenticator> Shared<A> {
    /// Who opens a stream, and what it says first.
    async fn admit<M: Greets>(
        &self,
        request: Request<Streaming<M>>,
    ) -> Result<(Identity, wire::Greeting, Streaming<M>), Status> {
        let peer = request.remote_addr();
        match self.check(request).await {
            Ok(admitted) => Ok(admitted),
            Err(refusal) => {
                self.server.metrics.refused(&refusal);
                tracing::warn!(?peer, reason = refusal.reason(), %refusal, "an agent was refused");
                Err((&refusal).into())
            }
        }
    }

    async fn check<M: Greets>(
        &self,
        request: Request<Streaming<M>>,
    ) -> Result<(Identity, wire::Greeting, Streaming<M>), Refusal> {
        let token = request.metadata().get("authorization");
        let token = token
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .ok_or(Refusal::NoToken)?;
        let identity = self.server.authenticator.authenticate(token).await?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(self.server.config.greeting, inbound.message()).await;
        let Ok(Ok(Some(first))) = first else {
            return Err(Refusal::NoGreeting);
        };
        let greeting = first.into_greeting().ok_or(Refusal::NoGreeting)?;
        if greeting.protocol != PROTOCOL {
            return Err(Refusal::Protocol(greeting.protocol));
        }
        if *greeting.node != *identity.node {
            return Err(Refusal::OtherNode {
                said: greeting.node,
                bound: identity.node,
            });
        }
        Ok((identity, greeting, inbound))
    }

    fn guard(&self, identity: &Identity) -> Guard {
        Guard::new(
            identity,
            self.server.live_pods.clone(),
            self.server.config.unseen_pod,
            self.stop.clone(),
        )
    }
}

impl<A> Shared<A> {
    pub(super) fn welcome(&self) -> wire::Welcome {
        wire::Welcome {
            protocol: PROTOCOL,
            software: self.server.config.software.clone(),
        }
    }
}

#[tonic::async_trait]
impl<A: Authenticator> Push for Service<A> {
    type SubscribeStream = Responses<wire::SubscribeResponse>;
    type ReportStream = Responses<wire::ReportResponse>;

    async fn subscribe(
        &self,
        request: Request<Streaming<wire::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (identity, greeting, inbound) = self.shared.admit(request).await?;
        let guard = self.shared.guard(&identity);
        let (out, responses) = responses();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let live = shared.server.metrics.stream("subscribe");
            let ended = subscribe::run(&shared, &identity, &greeting, guard, inbound, &out).await;
            drop(live);
            finish(&shared, &identity, "subscribe", ended, &out).await;
        });
        Ok(Response::new(responses))
    }

    async fn report(
        &self,
        request: Request<Streaming<wire::ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let (identity, greeting, inbound) = self.shared.admit(request).await?;
        let leadership = self.shared.server.leadership.clone();
        report::check_leadership(&leadership.borrow())?;
        let guard = self.shared.guard(&identity);
        let (out, responses) = responses();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let live = shared.server.metrics.stream("report");
            let ended = report::run(&shared, &identity, &greeting, guard, inbound, &out).await;
            drop(live);
            finish(&shared, &identity, "report", ended, &out).await;
        });
        Ok(Response::new(responses))
    }
}

/// The sending end of a stream, and the stream.
fn responses<T: Send + 'static>() -> (mpsc::Sender<Result<T, Status>>, Responses<T>) {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    let stream = stream::poll_fn(move |context| receiver.poll_recv(context));
    (sender, Box::pin(stream))
}

/// Tells the agent why its stream ended, if it is we who ended it.
async fn finish<A, T>(
    shared: &Shared<A>,
    identity: &Identity,
    kind: &'static str,
    ended: Result<(), Status>,
    out: &mpsc::Sender<Result<T, Status>>,
) {
    let node = &identity.node;
    let Err(status) = ended else {
        tracing::debug!(%node, kind, "an agent has left");
        return;
    };
    shared.server.metrics.ended(status.code().description());
    tracing::info!(%node, kind, reason = status.message(), "an agent's stream ends");
    // Dropping the sender ends the stream as well, for an agent that does not read.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), out.send(Err(status))).await;
}
