//! What the stream and the state share.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clusterlink_model::{Snapshot, Update};
use clusterlink_proto::{MAX_LOOKUPS, Rejected, Replica, parts, replica, wire};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep},
};
use wire::{subscribe_request::Message as Request, subscribe_response::Message as Response};

use super::{
    PushStatus,
    connect::{self, StreamError},
    lookups::{Lookups, TooMany, Waiting},
};
use crate::control::Found;

/// Messages to the controller that wait to be sent: each question that may be asked, and
/// acknowledgements, of which the controller expects one at a time.
const OUTGOING: usize = MAX_LOOKUPS + 64;

/// How long to wait before one more question when there are too many.
const CROWDED: Duration = Duration::from_millis(50);

/// The replica, and who waits for it.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    whole: Notify,
    heard: watch::Sender<Instant>,
    status: watch::Sender<PushStatus>,
    rejected: watch::Sender<Arc<Vec<Rejected>>>,
}

#[derive(Debug)]
struct State {
    replica: Replica,
    lookups: Lookups,
    /// Which stream this is: what was due on an earlier one is not owed to this one.
    stream: u64,
    outgoing: Option<mpsc::Sender<wire::SubscribeRequest>>,
}

/// What is owed to a stream once an update is applied.
#[derive(Debug)]
pub(super) struct Due {
    stream: u64,
    acks: Vec<wire::Ack>,
}

/// A stream that begins: what to say first, and then.
pub(super) struct Beginning {
    pub(super) held: Vec<wire::Held>,
    pub(super) outgoing: mpsc::Receiver<wire::SubscribeRequest>,
}

impl Shared {
    pub(super) fn new(node: &Arc<str>, kept: Option<&Snapshot>) -> Self {
        let node = Arc::clone(node);
        let replica = match kept {
            Some(kept) => Replica::of(node, kept),
            None => Replica::new(node),
        };
        Self {
            state: Mutex::new(State {
                replica,
                lookups: Lookups::default(),
                stream: 0,
                outgoing: None,
            }),
            whole: Notify::new(),
            heard: watch::Sender::new(Instant::now()),
            status: watch::Sender::default(),
            rejected: watch::Sender::default(),
        }
    }

    pub(super) fn heard(&self) -> watch::Receiver<Instant> {
        self.heard.subscribe()
    }

    pub(super) fn status(&self) -> watch::Receiver<PushStatus> {
        self.status.subscribe()
    }

    pub(super) fn rejected(&self) -> watch::Receiver<Arc<Vec<Rejected>>> {
        self.rejected.subscribe()
    }

    /// Waits for something to apply.
    pub(super) async fn next(&self) -> (Update, Due) {
        loop {
            // A permit is kept for whoever comes later, so nothing is missed in between.
            if let Some(next) = self.take() {
                return next;
            }
            self.whole.notified().await;
        }
    }

    fn take(&self) -> Option<(Update, Due)> {
        let mut state = self.lock();
        let taken = state.replica.take()?;
        let stream = state.stream;
        let acks = taken.acks;
        Some((taken.update, Due { stream, acks }))
    }

    /// An update is applied.
    pub(super) fn applied(&self, due: Due) {
        let state = self.lock();
        if state.stream == due.stream {
            for ack in due.acks {
                state.send(Request::Ack(ack));
            }
        }
    }

    /// A stream begins.
    pub(super) fn begin(&self) -> Beginning {
        let (sender, outgoing) = mpsc::channel(OUTGOING);
        let mut state = self.lock();
        state.stream += 1;
        state.outgoing = Some(sender);
        let held = state.replica.begin();
        Beginning { held, outgoing }
    }

    /// A stream has ended.
    pub(super) fn end(&self, error: &StreamError) {
        let mut state = self.lock();
        state.stream += 1;
        state.outgoing = None;
        state.lookups.clear();
        drop(state);
        self.status.send_replace(PushStatus {
            controller: None,
            synced: false,
            error: Some(crate::chain(error)),
        });
    }

    /// Takes in what the controller says.
    pub(super) fn receive(&self, response: wire::SubscribeResponse) -> Result<(), StreamError> {
        match response.message {
            Some(Response::Welcome(welcome)) => {
                connect::check(&welcome)?;
                self.status.send_replace(PushStatus {
                    controller: Some(welcome.software),
                    synced: false,
                    error: None,
                });
            }
            Some(Response::Update(update)) => self.update(update),
            Some(Response::Answer(answer)) => self.answer(answer),
            // Of a newer controller, or just a sign of life.
            Some(Response::Heartbeat(_)) | None => {}
        }
        if self.lock().replica.is_synced() {
            self.heard.send_replace(Instant::now());
            self.status
                .send_if_modified(|status| !std::mem::replace(&mut status.synced, true));
        }
        Ok(())
    }

    /// Asks whose an address is, again if the controller goes before it has answered.
    pub(super) async fn look_up(&self, address: IpAddr) -> Found {
        let mut status = self.status();
        loop {
            status.borrow_and_update();
            match self.ask(address) {
                Some(Ok(waiting)) => {
                    if let Ok(found) = waiting.await {
                        return found;
                    }
                }
                Some(Err(TooMany)) => {
                    sleep(CROWDED).await;
                    continue;
                }
                None => {}
            }
            // No controller: the status changes when one is there.
            if status.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The answer to come, if there is a controller to ask.
    fn ask(&self, address: IpAddr) -> Option<Result<Waiting, TooMany>> {
        let mut state = self.lock();
        state.outgoing.as_ref()?;
        let asked = state.lookups.wait(address).map(|(waiting, ask)| {
            if ask {
                let addresses = vec![parts::address_bytes(&address)];
                state.send(Request::Lookup(wire::Lookup { addresses }));
            }
            waiting
        });
        Some(asked)
    }

    fn update(&self, update: wire::Update) {
        let mut state = self.lock();
        if let Some(ack) = state.replica.update(update) {
            state.send(Request::Ack(ack));
        }
        self.note(&state);
    }

    fn answer(&self, answer: wire::Answer) {
        let mut state = self.lock();
        let address = parts::address("address", &answer.address);
        match state.replica.answer(answer) {
            Ok((address, found)) => {
                let found = match found {
                    Some(replica::Found::Workload(workload)) => Found::Workload(workload),
                    Some(replica::Found::Node(_)) => Found::Node,
                    None => Found::Nothing,
                };
                state.lookups.answer(address, &found);
            }
            Err(error) => {
                tracing::warn!(%error, "the answer about an address cannot be used");
                if let Ok(address) = address {
                    state.lookups.answer(address, &Found::Nothing);
                }
            }
        }
        self.note(&state);
    }

    /// Wakes whoever waits for the replica.
    fn note(&self, state: &State) {
        self.whole.notify_one();
        let rejected = state.replica.rejected();
        self.rejected.send_if_modified(|before| {
            let changed = **before != rejected;
            if changed {
                for rejected in &rejected {
                    tracing::warn!(
                        resource = ?rejected.key,
                        reason = rejected.reason,
                        "a resource cannot be used; its last good content stays in force, but for a policy that allows"
                    );
                }
                *before = Arc::new(rejected);
            }
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn send(&self, request: Request) {
        let Some(outgoing) = &self.outgoing else {
            return;
        };
        let message = Some(request);
        if outgoing
            .try_send(wire::SubscribeRequest { message })
            .is_err()
        {
            // The stream is ending; a controller that did not read would end it for want of an
            // acknowledgement.
            tracing::debug!("a message to the controller was not sent");
        }
    }
}
