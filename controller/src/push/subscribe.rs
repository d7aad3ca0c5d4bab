//! A Subscribe stream: what an agent holds, what it lacks, and then what changes.

use std::future;

use clusterlink_model::ResourceKey;
use clusterlink_proto::{MAX_HELD, MAX_LOOKUPS, Version, describe, parts, wire};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tonic::{Status, Streaming};
use wire::{subscribe_request::Message as Request, subscribe_response::Message as Response};

use super::{
    auth::Identity,
    guard::Guard,
    metrics::Metrics,
    outbox::{Outbox, WrongNonce},
    service::Shared,
};
use crate::publish::{Held, HeldVersion, NodeView, Owner};

type Inbound = Streaming<wire::SubscribeRequest>;
type Out = mpsc::Sender<Result<wire::SubscribeResponse, Status>>;

/// How many rejected resources of one answer are logged.
const LOGGED: usize = 10;

/// What an agent has said that it holds.
#[derive(Debug, Default)]
struct Said {
    held: Held,
    /// Of kinds that are not known here.
    others: Vec<wire::ResourceName>,
}

/// Serves one agent until it leaves, or has to.
pub(super) async fn run<A>(
    shared: &Shared<A>,
    identity: &Identity,
    greeting: &wire::Greeting,
    mut guard: Guard,
    mut inbound: Inbound,
    out: &Out,
) -> Result<(), Status> {
    let config = &shared.server.config;
    let metrics = &shared.server.metrics;
    tracing::info!(
        node = %identity.node,
        pod = %identity.pod,
        software = greeting.software,
        "an agent subscribes"
    );
    send(out, Response::Welcome(shared.welcome())).await;
    let mut view = shared.server.resources.node_view(identity.node.clone());
    let admitted = async {
        if !view.changed().await {
            return Err(Status::unavailable("the controller stops: connect again"));
        }
        let permit = shared.admission.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Status::unavailable("the controller stops"))?;
        let said = timeout(config.greeting, said(&mut inbound)).await;
        let said = said.map_err(|_| {
            Status::deadline_exceeded("naming what is held took too long: connect again")
        })??;
        Ok((permit, said))
    };
    let (permit, said) = tokio::select! {
        status = guard.over() => return Err(status),
        () = out.closed() => return Ok(()),
        admitted = admitted => admitted?,
    };
    let batch = view.first(&said.held);
    tracing::debug!(
        node = %identity.node,
        held = said.held.len(),
        upserts = batch.upserts.len(),
        removals = batch.removals.len(),
        "an agent is brought up to date"
    );
    let mut outbox = Outbox::new(config.acknowledge, metrics.clone());
    outbox.begin(batch, said.others);
    let session = Session {
        identity,
        metrics,
        view,
        outbox,
        permit: Some((permit, Instant::now() + config.admission)),
    };
    session.run(guard, inbound, out, config.heartbeat).await
}

struct Session<'a> {
    identity: &'a Identity,
    metrics: &'a Metrics,
    view: NodeView,
    outbox: Outbox,
    /// Held until the agent is up to date, or has taken too long.
    permit: Option<(OwnedSemaphorePermit, Instant)>,
}

impl Session<'_> {
    async fn run(
        mut self,
        mut guard: Guard,
        mut inbound: Inbound,
        out: &Out,
        heartbeat: std::time::Duration,
    ) -> Result<(), Status> {
        let mut heartbeat = interval(heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let lapse = self.permit.as_ref().map(|(_, lapse)| *lapse);
            tokio::select! {
                status = guard.over() => return Err(status),
                message = inbound.message() => match message? {
                    Some(message) => self.handle(message)?,
                    None => return Ok(()),
                },
                slot = out.reserve(), if self.outbox.has_something() => {
                    let Ok(slot) = slot else { return Ok(()) };
                    if let Some(response) = self.outbox.pop() {
                        slot.send(Ok(response));
                    }
                }
                goes_on = self.view.changed(), if self.outbox.is_idle() => {
                    if !goes_on {
                        return Err(Status::unavailable("the controller stops: connect again"));
                    }
                    self.next_batch()?;
                }
                () = at(self.outbox.deadline()) => {
                    return Err(Status::deadline_exceeded(
                        "an update was not acknowledged in time: connect again",
                    ));
                }
                () = at(lapse) => self.permit = None,
                _ = heartbeat.tick() => self.outbox.heartbeat(),
            }
        }
    }

    fn next_batch(&mut self) -> Result<(), Status> {
        let batch = self.view.next().map_err(|_| {
            Status::aborted(
                "too much changed since the last update: connect again, naming what is held",
            )
        })?;
        if !batch.is_empty() {
            self.outbox.begin(batch, Vec::new());
        }
        Ok(())
    }

    fn handle(&mut self, request: wire::SubscribeRequest) -> Result<(), Status> {
        match request.message {
            Some(Request::Ack(ack)) => self.acknowledged(&ack),
            Some(Request::Lookup(lookup)) => self.look_up(&lookup),
            Some(Request::Greeting(_) | Request::Held(_)) => Err(Status::invalid_argument(
                "a greeting and what is held come first, once",
            )),
            // A newer agent.
            None => Ok(()),
        }
    }

    fn acknowledged(&mut self, ack: &wire::Ack) -> Result<(), Status> {
        (self.outbox.acknowledged(ack.nonce)).map_err(|WrongNonce { nonce }| {
            Status::invalid_argument(format!(
                "update {nonce} was not sent, or is acknowledged already"
            ))
        })?;
        self.metrics.rejected(ack.rejected.len());
        for reject in ack.rejected.iter().take(LOGGED) {
            tracing::warn!(
                node = %self.identity.node,
                resource = reject.name.as_ref().map(describe),
                reason = parts::reason(&reject.reason),
                "an agent rejects a resource"
            );
        }
        if self.permit.is_some() && self.outbox.is_synced() {
            self.permit = None;
            self.metrics.snapshot();
        }
        Ok(())
    }

    fn look_up(&mut self, lookup: &wire::Lookup) -> Result<(), Status> {
        if self.outbox.answers() + lookup.addresses.len() > MAX_LOOKUPS {
            return Err(Status::resource_exhausted(
                "too many addresses are asked about at once",
            ));
        }
        for bytes in &lookup.addresses {
            let address = parts::address("address", bytes)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            self.metrics.lookup();
            let found = self.view.find(address).map(|owner| match owner {
                Owner::Workload(entry) => {
                    wire::answer::Found::Workload(entry.encoded().upsert().clone())
                }
                Owner::Node(name) => wire::answer::Found::Node(name.as_ref().to_owned()),
            });
            let address = parts::address_bytes(&address);
            self.outbox.answer(wire::Answer { address, found });
        }
        Ok(())
    }
}

/// Reads what the agent holds.
async fn said(inbound: &mut Inbound) -> Result<Said, Status> {
    let mut said = Said::default();
    loop {
        let message = inbound.message().await?.and_then(|request| request.message);
        let Some(Request::Held(held)) = message else {
            return Err(Status::invalid_argument("what is held was not named"));
        };
        for resource in held.resources {
            let name = (resource.name)
                .ok_or_else(|| Status::invalid_argument("a held resource has no name"))?;
            match ResourceKey::try_from(&name) {
                Ok(key) => {
                    let version = Version::from_bytes(resource.version);
                    let on_demand = resource.on_demand;
                    said.held.insert(key, HeldVersion { version, on_demand });
                }
                Err(_) => said.others.push(name),
            }
        }
        if said.held.len() + said.others.len() > MAX_HELD {
            return Err(Status::resource_exhausted("too many resources are held"));
        }
        if held.last {
            return Ok(said);
        }
    }
}

async fn send(out: &Out, message: Response) {
    let message = Some(message);
    // Whoever is gone is noticed by the loop that follows.
    let _ = out.send(Ok(wire::SubscribeResponse { message })).await;
}

/// Waits for a time, if there is one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => future::pending().await,
    }
}
