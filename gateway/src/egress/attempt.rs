//! One attempt to serve a connection by one source.
//!
//! Nothing is ever delivered twice. What the client has sent is kept until the remote accepts; it
//! goes along with OPEN only on a session that was heard from within the last second. As long as
//! nothing was sent, or the remote said no, the next source gets the same bytes.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use clusterlink_model::{
    Client, Import, Source, WorkloadAttributes,
    select::failover::{self, Failure, Payload},
};
use tokio::net::TcpStream;

use crate::{
    arrival::Arrival,
    flow::{Direction, EndReason, Flow, now_ms},
    ingress::ended_reason,
    judge::{self, Live, Side},
    link::Link,
    relay::{Stop, relay},
    socket,
    stream::{Ended, Phase, Stream},
    tunnel::{EARLY_DATA, RejectCode, ResetCode},
    view::View,
    worker::Worker,
};

/// What is kept for the next source at most: what may be under way before ACCEPT.
const KEEP: usize = EARLY_DATA as usize;

/// What the client has sent so far.
#[derive(Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    /// The client's direction has ended.
    fin: bool,
}

impl Kept {
    fn wants_more(&self) -> bool {
        !self.fin && self.bytes.len() < KEEP
    }

    /// Takes what the client has sent; false if that is nothing now.
    fn take(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<bool> {
        let held = self.bytes.len();
        self.bytes.resize(KEEP, 0);
        let read = read(&mut self.bytes[held..]);
        self.bytes.truncate(held + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(n) => {
                self.fin = n == 0;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What became of an attempt.
pub(super) enum Attempted {
    /// The connection is over.
    Ended(EndReason, Option<String>),
    /// Nothing was delivered: the next source may be tried.
    Next {
        /// Why this one did not serve.
        failure: Failure,
        /// The same in a few words.
        outcome: String,
    },
}

/// An attempt that failed before anything was sent.
fn unsent(failure: Failure, outcome: impl Into<String>) -> Attempted {
    Attempted::Next {
        failure,
        outcome: outcome.into(),
    }
}

/// The parts of one attempt.
pub(super) struct Attempt<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) view: &'a Arc<View>,
    pub(super) socket: &'a Rc<TcpStream>,
    pub(super) address: SocketAddr,
    pub(super) arrival: &'a Arrival,
    pub(super) import: &'a Arc<Import>,
    pub(super) source: &'a Source,
}

impl Attempt<'_> {
    pub(super) async fn run(
        &self,
        flow: &Arc<Flow>,
        client: &Client,
        kept: &mut Kept,
    ) -> Attempted {
        let Some(peer) = self.view.snapshot.peers.get(&self.source.peer) else {
            return unsent(Failure::Unreachable, "no Peer object of this name");
        };
        // The way to a session that is up is short; waiting for a dial is rare and boxed.
        let link = match Box::pin(self.worker.pool.get(self.worker, peer)).await {
            Ok(link) => link,
            Err(error) => return unsent(Failure::Unreachable, error),
        };
        let client = &match self.judge_again(client, flow) {
            Ok(client) => client,
            Err(reason) => return Attempted::Ended(reason, None),
        };
        let workload = match client {
            Client::Pod { attributes, .. } => Some(attributes),
            Client::Host | Client::Outside | Client::Unknown => None,
        };
        if kept.wants_more()
            && kept
                .take(|buffer| socket::read_now(self.socket, buffer))
                .is_err()
        {
            return Attempted::Ended(EndReason::ClientReset, None);
        }
        let stream = match self.open(&link, workload, flow) {
            Ok(stream) => stream,
            Err(outcome) => return unsent(Failure::TunnelFailed, outcome),
        };
        let live = Live {
            link: link.clone(),
            stream: stream.clone(),
            side: Side::Egress {
                arrival: Box::new(self.arrival.clone()),
                address: self.address,
                import: self.import.name.clone(),
                source: self.source.clone(),
                client: RefCell::new(client.clone()),
                is_forgotten: Cell::default(),
            },
        };
        let _watched = self.worker.watch(Rc::new(live));
        let early = link.is_fresh(Instant::now());
        let sent = match self.wait(&link, &stream, kept, early).await {
            Ok(sent) => sent,
            Err(attempted) => {
                link.forget(stream.id);
                return attempted;
            }
        };
        let outcomes = &self.worker.shared.outcomes;
        outcomes.accepted(&self.import.name, self.source, now_ms());
        if let Err(stop) = send_rest(&link, &stream, kept, sent).await {
            let (reason, detail) = ended_reason(stop);
            if let Ended::Aborted(_) = stop {
                link.reset(stream.id, ResetCode::Denied);
            }
            link.forget(stream.id);
            return Attempted::Ended(reason, detail);
        }
        match relay(&link, &stream, kept.fin).await {
            Ok(()) => Attempted::Ended(EndReason::Completed, None),
            Err(Stop::Application) => Attempted::Ended(EndReason::ClientReset, None),
            Err(Stop::Stream(ended)) => {
                let (reason, detail) = ended_reason(ended);
                Attempted::Ended(reason, detail)
            }
        }
    }

    /// What has changed during the wait for a session applies to this flow too, which is not among the
    /// live ones yet. Gives the client as it is now.
    fn judge_again(&self, client: &Client, flow: &Flow) -> Result<Client, EndReason> {
        let view = self.worker.view();
        if Arc::ptr_eq(&view, self.view) {
            return Ok(client.clone());
        }
        let origins = &*self.worker.shared.origins;
        let now = self.arrival.client(origins, self.address);
        let now = self.arrival.client_after(client, now);
        let import = &self.import.name;
        let decision = judge::egress(&view, &now, self.address.ip(), import, self.source)?;
        if decision.allowed {
            return Ok(now);
        }
        flow.update(|record| record.decision = Some(decision));
        Err(EndReason::Denied)
    }

    fn open(
        &self,
        link: &Rc<Link>,
        workload: Option<&Arc<WorkloadAttributes>>,
        flow: &Arc<Flow>,
    ) -> Result<Rc<Stream>, String> {
        link.open(workload, &self.source.export, 0, |id| {
            let stream = Stream::new(id, Direction::Egress, flow.clone());
            stream.set_application(self.socket.clone());
            Rc::new(stream)
        })
        .map_err(|error| error.to_string())
    }

    /// Waits for the remote's answer, sending what the client sends if `early` allows it. Returns
    /// how many of the kept bytes were sent.
    async fn wait(
        &self,
        link: &Rc<Link>,
        stream: &Rc<Stream>,
        kept: &mut Kept,
        early: bool,
    ) -> Result<usize, Attempted> {
        let mut sent = 0;
        loop {
            match stream.phase() {
                Phase::Open => return Ok(sent),
                Phase::Rejected(code, text) => return Err(rejected(code, &text)),
                Phase::Ended(ended) => return Err(lost(link, stream, ended, sent)),
                Phase::Opening => {}
            }
            if sent == 0 && link.is_suspect() {
                // Nothing was sent, so nothing can have been delivered.
                link.reset(stream.id, ResetCode::ConnectionLost);
                let outcome = "the peer's gateway gives no sign of life";
                return Err(unsent(Failure::Unreachable, outcome));
            }
            if early && sent < kept.bytes.len() {
                let room = link.room(stream);
                let chunk = room.min(kept.bytes.len() - sent);
                link.send(stream, &kept.bytes[sent..sent + chunk]);
                sent += chunk;
            }
            tokio::select! {
                biased;
                () = stream.wake_up.notified() => {}
                () = link.changed.notified() => {}
                ready = self.socket.readable(), if kept.wants_more() => {
                    let read = ready
                        .and_then(|()| kept.take(|buffer| socket::read(self.socket, buffer)));
                    if read.is_err() {
                        link.reset(stream.id, ResetCode::Application);
                        return Err(Attempted::Ended(EndReason::ClientReset, None));
                    }
                }
            }
        }
    }
}

/// The remote said no: whatever was sent along has reached no backend.
fn rejected(code: RejectCode, text: &str) -> Attempted {
    let failure = match code {
        RejectCode::Denied => Failure::DeniedThere,
        _ => Failure::Declined,
    };
    let outcome = if text.is_empty() || text == code.as_str() {
        format!("remote: {}", code.as_str())
    } else {
        format!("remote: {}: {text}", code.as_str())
    };
    Attempted::Next { failure, outcome }
}

/// The stream ended before it was accepted.
fn lost(link: &Link, stream: &Stream, ended: Ended, sent: usize) -> Attempted {
    let (reason, detail) = ended_reason(ended);
    let outcome = match ended {
        Ended::Aborted(reason) => {
            link.reset(stream.id, ResetCode::Denied);
            return Attempted::Ended(reason, None);
        }
        Ended::Application => return Attempted::Ended(reason, detail),
        Ended::Lost => "the session was lost".to_owned(),
        Ended::Reset(code) => format!("remote reset: {}", code.as_str()),
    };
    let payload = if sent == 0 {
        Payload::Unsent
    } else {
        Payload::Sent
    };
    let failure = Failure::TunnelFailed;
    match failover::after(failure, payload) {
        failover::Next::TryNext => Attempted::Next { failure, outcome },
        failover::Next::Reset => Attempted::Ended(reason, detail),
    }
}

/// Sends what is kept and was not sent yet, then lets go of it.
async fn send_rest(
    link: &Rc<Link>,
    stream: &Rc<Stream>,
    kept: &mut Kept,
    mut sent: usize,
) -> Result<(), Ended> {
    while sent < kept.bytes.len() {
        if let Some(ended) = stream.ended() {
            return Err(ended);
        }
        let chunk = link.room(stream).min(kept.bytes.len() - sent);
        if chunk == 0 {
            stream.wake_up.notified().await;
            continue;
        }
        link.send(stream, &kept.bytes[sent..sent + chunk]);
        sent += chunk;
    }
    kept.bytes = Vec::new();
    if kept.fin {
        link.fin(stream.id);
    }
    Ok(())
}
