//! Streams of other peers to backends of this one.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use rand::Rng as _;
use tokio::net::{TcpListener, TcpStream};

use crate::{
    backend,
    flow::{Direction, EndReason},
    judge::{self, Live, Side as LiveSide, ingress_client},
    link::{Link, Opened},
    relay::{Stop, relay},
    socket,
    stream::{Ended, Stream},
    tls,
    tunnel::{MAX_HOPS, RejectCode, ResetCode, Side},
    worker::{OpenFlow, Worker},
};

/// Handshakes that one worker has under way at most, and how many of them from one address.
const HANDSHAKES: usize = 256;
const HANDSHAKES_PER_SOURCE: usize = 64;

/// Accepts sessions of other peers.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((socket, source)) => {
                let Some(slot) = Slot::take(&worker, source.ip()) else {
                    worker.shared.metrics.half_open_refused.inc();
                    continue;
                };
                tokio::task::spawn_local(session(worker.clone(), socket, source, slot));
            }
            Err(error) => crate::accept_failed(&error).await,
        }
    }
}

/// A place among the handshakes under way.
struct Slot {
    worker: Rc<Worker>,
    source: IpAddr,
}

impl Slot {
    fn take(worker: &Rc<Worker>, source: IpAddr) -> Option<Self> {
        let mut all = worker.handshakes.borrow_mut();
        let total: usize = all.values().sum();
        let of_source = all.entry(source).or_default();
        if total >= HANDSHAKES || *of_source >= HANDSHAKES_PER_SOURCE {
            return None;
        }
        *of_source += 1;
        drop(all);
        Some(Self {
            worker: worker.clone(),
            source,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut all = self.worker.handshakes.borrow_mut();
        if let Some(n) = all.get_mut(&self.source) {
            *n -= 1;
            if *n == 0 {
                all.remove(&self.source);
            }
        }
    }
}

async fn session(worker: Rc<Worker>, socket: TcpStream, source: SocketAddr, slot: Slot) {
    let established = match Box::pin(handshake(&worker, &socket)).await {
        Ok(established) => established,
        Err(error) => {
            tracing::warn!(%source, %error, "session refused");
            return;
        }
    };
    drop(slot);
    let peer = established.peer.name.clone();
    let (link, leftover, early) = worker.link(established, socket, Side::Acceptor);
    worker.shared.peers.up(&peer, None, &link.stats);
    worker.inbound.borrow_mut().push(link.clone());
    tracing::info!(%peer, %source, "session accepted");
    let over = worker.drive(&link, leftover, early).await;
    tracing::info!(%peer, %source, reason = over.reason, "session ended");
    worker
        .inbound
        .borrow_mut()
        .retain(|other| !Rc::ptr_eq(other, &link));
}

async fn handshake(worker: &Worker, socket: &TcpStream) -> Result<tls::Established, String> {
    socket::prepare_session(socket).map_err(|error| error.to_string())?;
    let credentials = worker.shared.credentials.borrow().clone();
    let established = tls::accept(socket, &credentials).await.map_err(|error| {
        worker
            .shared
            .metrics
            .handshake_refused(false, error.reason());
        crate::chain(&error)
    })?;
    worker.admit(&established.peer, false)?;
    Ok(established)
}

/// Takes a stream that a peer opened; what follows is done by a task of its own.
pub(crate) fn opened(worker: &Rc<Worker>, link: &Rc<Link>, opened: Opened) {
    let open = OpenFlow::new(&worker.shared, Direction::Ingress);
    let stream = Rc::new(Stream::new(
        opened.id,
        Direction::Ingress,
        open.flow.clone(),
    ));
    link.adopt(stream.clone());
    tokio::task::spawn_local(serve(worker.clone(), link.clone(), stream, opened, open));
}

async fn serve(
    worker: Rc<Worker>,
    link: Rc<Link>,
    stream: Rc<Stream>,
    opened: Opened,
    mut open: OpenFlow,
) {
    let view = worker.view();
    open.flow.update(|record| {
        record.client = ingress_client(opened.workload.as_deref());
        record.peer = Some(link.identity.name.clone());
        record.export = Some(opened.export.clone());
    });
    let judged = judge::ingress(&view, &link, opened.workload.as_deref(), &opened.export);
    let refusal = match judged {
        _ if opened.hops > MAX_HOPS => {
            let text = format!("passed more than {MAX_HOPS} gateways");
            Some((RejectCode::Loop, text, EndReason::NoSource))
        }
        Ok(decision) => {
            let allowed = decision.allowed;
            open.flow.update(|record| record.decision = Some(decision));
            (!allowed).then(|| (RejectCode::Denied, "denied".to_owned(), EndReason::Denied))
        }
        Err(EndReason::Removed) => {
            let text = format!("no export {}", opened.export);
            Some((RejectCode::Denied, text, EndReason::NoSource))
        }
        Err(reason) => Some((RejectCode::Overloaded, reason.as_str().to_owned(), reason)),
    };
    if let Some((code, text, reason)) = refusal {
        link.reject(opened.id, code, &text);
        link.forget(opened.id);
        open.ends(reason, Some(text));
        return;
    }
    if opened.probe {
        link.accept(opened.id);
        link.reset(opened.id, ResetCode::Application);
        link.forget(opened.id);
        open.ends(EndReason::Completed, Some("probe".to_owned()));
        return;
    }
    let side = LiveSide::Ingress {
        export: opened.export.clone(),
        workload: RefCell::new(opened.workload.clone()),
    };
    let live = Live {
        link: link.clone(),
        stream: stream.clone(),
        side,
    };
    let _watched = worker.watch(Rc::new(live));
    let (reason, detail) = match Box::pin(connect(&worker, &link, &stream, &opened)).await {
        Ok(()) => outcome(relay(&link, &stream, false).await),
        Err(ended) => ended,
    };
    open.ends(reason, detail);
}

/// Dials the backend and accepts the stream, or says no.
async fn connect(
    worker: &Worker,
    link: &Rc<Link>,
    stream: &Rc<Stream>,
    opened: &Opened,
) -> Result<(), (EndReason, Option<String>)> {
    let view = worker.view();
    let Some(export) = view.snapshot.exports.get(&opened.export) else {
        link.reject(stream.id, RejectCode::Denied, "no such export");
        link.forget(stream.id);
        return Err((EndReason::Removed, None));
    };
    let dialled = tokio::select! {
        dialled = backend::dial(export, &view, rand::rng().next_u64()) => dialled,
        ended = ended(stream) => {
            // The client went away, or the flow was cut, while the backend was dialled.
            link.reset(stream.id, ResetCode::Denied);
            link.forget(stream.id);
            return Err(match ended {
                Ended::Aborted(reason) => (reason, None),
                Ended::Reset(_) | Ended::Lost | Ended::Application => (EndReason::ClientReset, None),
            });
        }
    };
    match dialled {
        Ok((socket, address)) => {
            stream.flow.update(|record| record.backend = Some(address));
            if let Err(error) = socket::prepare_application(&socket) {
                link.reject(stream.id, RejectCode::BackendRefused, "backend vanished");
                link.forget(stream.id);
                return Err((EndReason::BackendReset, Some(error.to_string())));
            }
            stream.set_application(Rc::new(socket));
            link.accept(stream.id);
            Ok(())
        }
        Err(error) => {
            let code = if error.is_dial() {
                RejectCode::BackendRefused
            } else {
                RejectCode::NoBackend
            };
            let text = crate::chain(&error);
            tracing::debug!(export = %opened.export, error = %text, "backend not reached");
            // The caller is told the kind of failure; addresses stay here.
            link.reject(stream.id, code, code.as_str());
            link.forget(stream.id);
            Err((EndReason::NoSource, Some(text)))
        }
    }
}

async fn ended(stream: &Stream) -> Ended {
    loop {
        if let Some(ended) = stream.ended() {
            return ended;
        }
        stream.wake_up.notified().await;
    }
}

fn outcome(relayed: Result<(), Stop>) -> (EndReason, Option<String>) {
    match relayed {
        Ok(()) => (EndReason::Completed, None),
        Err(Stop::Application) => (EndReason::BackendReset, None),
        Err(Stop::Stream(ended)) => ended_reason(ended),
    }
}

/// How the end of a stream is logged.
pub(crate) fn ended_reason(ended: Ended) -> (EndReason, Option<String>) {
    match ended {
        Ended::Reset(code) => (EndReason::PeerReset, Some(code.as_str().to_owned())),
        Ended::Lost => (EndReason::SessionLost, None),
        Ended::Application => (EndReason::ClientReset, None),
        Ended::Aborted(reason) => (reason, None),
    }
}

/// How long a failing accept waits before the next one.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
