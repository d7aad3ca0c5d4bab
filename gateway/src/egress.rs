//! Steered connections of local clients, carried to a source of the import.

mod attempt;

use std::{net::SocketAddr, os::fd::AsFd, rc::Rc, sync::Arc, time::Duration};

use clusterlink_model::{
    Client, Import, LbScheme, Source,
    select::{
        Order, SourceState,
        failover::{Failure, is_denied_everywhere},
    },
};
use tokio::net::{TcpListener, TcpStream};

use self::attempt::{Attempt, Attempted, Kept};
use crate::{
    flow::{self, Direction, EndReason},
    judge::{decide_egress, egress_client},
    socket,
    view::{Origin, View},
    worker::{OpenFlow, Worker},
};

/// How long a client that is not known yet is held.
const HOLD: Duration = Duration::from_secs(2);

type End = (EndReason, Option<String>);

/// Accepts steered connections.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((socket, source)) => {
                tokio::task::spawn_local(serve(worker.clone(), socket, source));
            }
            Err(error) => crate::accept_failed(&error).await,
        }
    }
}

async fn serve(worker: Rc<Worker>, socket: TcpStream, source: SocketAddr) {
    if socket::prepare_application(&socket).is_err() {
        // The client is gone already.
        return;
    }
    let origin = match worker.shared.origins.origin(socket.as_fd()) {
        Ok(Some(origin)) => origin,
        Ok(None) => {
            // Without the kernel's record nobody knows what was asked for, and by whom.
            worker.shared.metrics.unrecorded.inc();
            tracing::debug!(%source, "connection without a record is reset");
            return;
        }
        Err(error) => {
            worker.shared.metrics.unrecorded.inc();
            tracing::warn!(%source, %error, "cannot read the record of a connection");
            return;
        }
    };
    worker.shared.metrics.connections.inc();
    let mut open = OpenFlow::new(&worker.shared, Direction::Egress);
    open.flow
        .update(|record| record.client_address = Some(source));
    let (reason, detail) = carry(&worker, Rc::new(socket), source, &origin, &open).await;
    open.ends(reason, detail);
}

/// Finds out who the client is and serves it by the first source that takes it.
async fn carry(
    worker: &Rc<Worker>,
    socket: Rc<TcpStream>,
    address: SocketAddr,
    origin: &Origin,
    open: &OpenFlow,
) -> End {
    let mut client = worker.shared.origins.client(origin, address);
    if client == Client::Unknown {
        client = Box::pin(identify(worker, origin, address)).await;
    }
    let view = worker.view();
    let import = view.import(origin.import).cloned();
    open.flow.update(|record| {
        record.client = egress_client(&client);
        record.import = import.as_ref().map(|import| import.name.clone());
    });
    let Some(import) = import else {
        return (
            EndReason::Removed,
            Some(format!("no import has the number {}", origin.import)),
        );
    };
    match client {
        _ if !view.ready => return (EndReason::NotReady, None),
        Client::Unknown => {
            let detail = format!("cgroup {} is no workload of this peer", origin.cgroup);
            return (EndReason::IdentityUnknown, Some(detail));
        }
        Client::Outside => return (EndReason::Outside, None),
        Client::Pod { .. } | Client::Host => {}
    }
    try_sources(
        worker, &socket, address, origin, open, &view, &import, client,
    )
    .await
}

/// Waits for a client to become known.
async fn identify(worker: &Worker, origin: &Origin, address: SocketAddr) -> Client {
    let mut views = worker.shared.view.clone();
    let known = async {
        loop {
            views.mark_unchanged();
            let client = worker.shared.origins.client(origin, address);
            if client != Client::Unknown || views.changed().await.is_err() {
                return client;
            }
        }
    };
    tokio::time::timeout(HOLD, known)
        .await
        .unwrap_or(Client::Unknown)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one connection, used here only"
)]
async fn try_sources(
    worker: &Rc<Worker>,
    socket: &Rc<TcpStream>,
    address: SocketAddr,
    origin: &Origin,
    open: &OpenFlow,
    view: &Arc<View>,
    import: &Arc<Import>,
    client: Client,
) -> End {
    let ticket = match import.scheme {
        LbScheme::RoundRobin => worker.next_turn(&import.name),
        LbScheme::Random => worker.next_draw(),
        LbScheme::Static => 0,
    };
    let order = Order::of_import(import, ticket, |source| {
        let peer = view.snapshot.peers.get(&source.peer);
        let allowed = decide_egress(view, &client, import, source).allowed;
        let reachable = peer.is_some_and(|peer| !worker.pool.is_unreachable(peer));
        SourceState::new(peer.is_some(), allowed, reachable)
    });
    let mut kept = Kept::default();
    let mut failures = Vec::new();
    for (position, candidate) in order.candidates().iter().enumerate() {
        let source = &import.sources[candidate.index()];
        if position > 0 {
            worker.shared.metrics.failovers.inc();
        }
        let decision = decide_egress(view, &client, import, source);
        open.flow.update(|record| {
            record.peer = Some(source.peer.clone());
            record.export = Some(source.export.clone());
            record.decision = Some(decision);
        });
        let attempt = Attempt {
            worker,
            view,
            socket,
            address,
            origin,
            import,
            source,
        };
        match attempt.run(&open.flow, &client, &mut kept).await {
            Attempted::Ended(reason, detail) => return (reason, detail),
            Attempted::Next { failure, outcome } => {
                failures.push(failure);
                log_attempt(open, source, outcome);
            }
        }
    }
    for candidate in order.skipped() {
        let source = &import.sources[candidate.index()];
        let outcome = if candidate.state == SourceState::NoPeer {
            failures.push(Failure::Unreachable);
            "no Peer object of this name".to_owned()
        } else {
            failures.push(Failure::DeniedHere);
            let decision = decide_egress(view, &client, import, source);
            let outcome = match &decision.policy {
                Some(policy) => format!("denied here by {policy}"),
                None => "denied here: no policy allows it".to_owned(),
            };
            open.flow.update(|record| record.decision = Some(decision));
            outcome
        };
        log_attempt(open, source, outcome);
    }
    if is_denied_everywhere(failures.iter().copied()) {
        worker.shared.origins.denied_everywhere(&client, import);
    }
    if import.sources.is_empty() {
        (
            EndReason::NoSource,
            Some("the import names no valid source".to_owned()),
        )
    } else if failures.iter().copied().all(Failure::is_denial) {
        (EndReason::Denied, None)
    } else {
        (EndReason::NoSource, None)
    }
}

fn log_attempt(open: &OpenFlow, source: &Source, outcome: String) {
    let attempt = flow::Attempt {
        peer: source.peer.clone(),
        export: source.export.clone(),
        outcome,
    };
    open.flow.update(|record| record.attempts.push(attempt));
}
