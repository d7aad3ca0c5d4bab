//! An agent that says what it likes.

use clusterlink_proto::{PROTOCOL, wire};
use futures::stream;
use tokio::{sync::mpsc, time::timeout};
use tonic::{
    Request, Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use wire::{
    push_client::PushClient, report_request::Message as ReportMessage,
    subscribe_request::Message as SubscribeMessage,
};

use super::scene::{NAMESPACE, SOON, Server};
use crate::push::Authority;

pub(super) struct Raw {
    client: PushClient<Channel>,
}

/// A Subscribe stream of such an agent.
#[derive(Debug)]
pub(super) struct RawStream {
    pub(super) out: mpsc::Sender<wire::SubscribeRequest>,
    pub(super) inbound: Streaming<wire::SubscribeResponse>,
}

pub(super) fn greeting(node: &str) -> wire::Greeting {
    wire::Greeting {
        protocol: PROTOCOL,
        node: node.to_owned(),
        software: "raw".to_owned(),
        boot_id: String::new(),
    }
}

impl Raw {
    pub(super) async fn connect(server: &Server) -> Self {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(server.authority.certificate_pem()))
            .domain_name(Authority::server_name(NAMESPACE));
        let channel = Endpoint::from_shared(format!("https://{}", server.address))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self {
            client: PushClient::new(channel).max_encoding_message_size(64 * 1024 * 1024),
        }
    }

    /// Opens a stream with a greeting, or with something else.
    pub(super) async fn subscribe(
        &mut self,
        token: Option<&str>,
        first: Option<wire::Greeting>,
    ) -> Result<RawStream, Status> {
        let (out, mut requests) = mpsc::channel(16);
        let first = match first {
            Some(greeting) => SubscribeMessage::Greeting(greeting),
            None => SubscribeMessage::Ack(wire::Ack::default()),
        };
        let message = Some(first);
        out.try_send(wire::SubscribeRequest { message }).unwrap();
        let requests = stream::poll_fn(move |context| requests.poll_recv(context));
        let opened = self.client.subscribe(with(token, requests));
        let inbound = timeout(SOON, opened).await.unwrap()?.into_inner();
        Ok(RawStream { out, inbound })
    }

    pub(super) async fn report(
        &mut self,
        token: Option<&str>,
        first: Option<wire::Greeting>,
    ) -> Result<Streaming<wire::ReportResponse>, Status> {
        let first = match first {
            Some(greeting) => ReportMessage::Greeting(greeting),
            None => ReportMessage::Heartbeat(wire::Heartbeat {}),
        };
        let message = Some(first);
        let requests = stream::iter([wire::ReportRequest { message }]);
        let opened = self.client.report(with(token, requests));
        Ok(timeout(SOON, opened).await.unwrap()?.into_inner())
    }
}

impl RawStream {
    pub(super) async fn say(&self, message: SubscribeMessage) {
        let message = Some(message);
        // A stream that has ended is seen by who reads.
        let _ = self.out.send(wire::SubscribeRequest { message }).await;
    }

    /// Says that nothing is held.
    pub(super) async fn hold_nothing(&self) {
        let last = true;
        let resources = Vec::new();
        self.say(SubscribeMessage::Held(wire::Held { resources, last }))
            .await;
    }

    pub(super) async fn update(&mut self) -> Result<wire::Update, Status> {
        loop {
            let response = timeout(SOON, self.inbound.message()).await.unwrap()?;
            let response = response.expect("the stream goes on");
            if let Some(wire::subscribe_response::Message::Update(update)) = response.message {
                return Ok(update);
            }
        }
    }

    pub(super) async fn acknowledge(&self, nonce: u64, rejected: Vec<wire::Reject>) {
        self.say(SubscribeMessage::Ack(wire::Ack { nonce, rejected }))
            .await;
    }
}

fn with<T>(token: Option<&str>, requests: T) -> Request<T> {
    let mut request = Request::new(requests);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}
