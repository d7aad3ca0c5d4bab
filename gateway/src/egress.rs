//! Connections of local clients, steered or by the Service path, carried to a source of the import.

mod attempt;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

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
    arrival::{Arrival, Way},
    flow::{self, Direction, EndReason},
    judge::{decide_egress, egress_client},
    socket,
    view::{Found, View},
    worker::{OpenFlow, Worker},
};

/// How long a client that is not known yet is held.
pub(crate) const HOLD: Duration = Duration::from_secs(2);

/// How many clients of the Service path a worker holds at once: whoever reaches the node reaches its
/// leased ports.
const HELD: usize = 1024;

type End = (EndReason, Option<String>);

/// Accepts the connections that come this way.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener, way: Way) {
    loop {
        match listener.accept().await {
            Ok((socket, source)) => {
                tokio::task::spawn_local(serve(worker.clone(), socket, source, way));
            }
            Err(error) => crate::accept_failed(&error).await,
        }
    }
}

async fn serve(worker: Rc<Worker>, socket: TcpStream, source: SocketAddr, way: Way) {
    if socket::prepare_application(&socket).is_err() {
        // The client is gone already.
        return;
    }
    let Some(mut arrival) = Arrival::of(&worker, way, &socket, source) else {
        return;
    };
    worker.shared.metrics.connections.inc();
    let mut open = OpenFlow::new(&worker.shared, Direction::Egress);
    open.flow
        .update(|record| record.client_address = Some(source));
    let (reason, detail) = carry(&worker, Rc::new(socket), source, &mut arrival, &open).await;
    open.ends(reason, detail);
}

/// Finds out who the client is and serves it by the first source that takes it.
async fn carry(
    worker: &Rc<Worker>,
    socket: Rc<TcpStream>,
    address: SocketAddr,
    arrival: &mut Arrival,
    open: &OpenFlow,
) -> End {
    let mut client = arrival.client(&*worker.shared.origins, address);
    if client == Client::Unknown {
        client = match Box::pin(identify(worker, arrival, address)).await {
            Ok(found) => arrival.found(found),
            Err(overloaded) => return overloaded,
        };
    }
    let view = worker.view();
    let import = view.import(arrival.import()).cloned();
    open.flow.update(|record| {
        record.client = egress_client(&client);
        record.import = import.as_ref().map(|import| import.name.clone());
    });
    let Some(import) = import else {
        return (
            EndReason::Removed,
            Some(format!("no import has the number {}", arrival.import())),
        );
    };
    match client {
        _ if !view.ready => return (EndReason::NotReady, None),
        Client::Unknown => {
            return (EndReason::IdentityUnknown, Some(arrival.unknown(address)));
        }
        Client::Outside if !view.admits_outside(address.ip()) => {
            let detail = format!(
                "{} is neither a pod nor a node, and in no range that is opened to the outside",
                address.ip().to_canonical()
            );
            return (EndReason::Outside, Some(detail));
        }
        Client::Pod { .. } | Client::Host | Client::Outside => {}
    }
    try_sources(
        worker, &socket, address, arrival, open, &view, &import, client,
    )
    .await
}

/// Waits for a client to become known, or finds out who it is.
async fn identify(worker: &Worker, arrival: &Arrival, address: SocketAddr) -> Result<Found, End> {
    let _held = match arrival {
        Arrival::Steered(_) => None,
        Arrival::Service { .. } => Some(Held::take(worker)?),
    };
    let origins = &*worker.shared.origins;
    let mut views = worker.shared.view.clone();
    let told = async {
        loop {
            views.mark_unchanged();
            let client = arrival.client(origins, address);
            if client != Client::Unknown || views.changed().await.is_err() {
                return client;
            }
        }
    };
    let known = async {
        tokio::select! {
            client = told => client.into(),
            found = arrival.look_up(origins, address) => found,
        }
    };
    let known = tokio::time::timeout(HOLD, known).await;
    Ok(known.unwrap_or(Client::Unknown.into()))
}

/// A place among the clients that are held.
struct Held<'a>(&'a Worker);

impl<'a> Held<'a> {
    fn take(worker: &'a Worker) -> Result<Self, End> {
        let held = worker.held.get();
        if held >= HELD {
            let detail = format!("{held} other clients of the Service path are not known either");
            return Err((EndReason::Overloaded, Some(detail)));
        }
        worker.held.set(held + 1);
        Ok(Self(worker))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.set(self.0.held.get() - 1);
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one connection, used here only"
)]
async fn try_sources(
    worker: &Rc<Worker>,
    socket: &Rc<TcpStream>,
    address: SocketAddr,
    arrival: &Arrival,
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
            arrival,
            import,
            source,
        };
        match attempt.run(&open.flow, &client, &mut kept).await {
            Attempted::Ended(reason, detail) => return (reason, detail),
            Attempted::Next { failure, outcome } => {
                failures.push(failure);
                let (outcomes, denied) = (&worker.shared.outcomes, failure.is_denial());
                outcomes.failed(&import.name, source, denied, &outcome, flow::now_ms());
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
