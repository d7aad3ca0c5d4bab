//! A Report stream: what the agent of a node says of it, and which released addresses it has let
//! go of.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use clusterlink_proto::{LEADER_METADATA, NodeReport, parts, wire};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tonic::{Status, Streaming};
use wire::{report_request::Message as Request, report_response::Message as Response};

use super::{
    Leadership, auth::Identity, guard::Guard, metrics::Metrics, owners::Owned, service::Shared,
};
use crate::agents::{AgentStatus, Question};

type Inbound = Streaming<wire::ReportRequest>;
type Out = mpsc::Sender<Result<wire::ReportResponse, Status>>;

/// Whether reports are taken here; if not, where.
///
/// # Errors
/// When they are not.
pub(super) fn check_leadership(leadership: &Leadership) -> Result<(), Status> {
    match leadership {
        Leadership::Leading => Ok(()),
        Leadership::Following(leader) => {
            let mut status = Status::failed_precondition(format!(
                "another controller takes reports: connect to {leader}"
            ));
            if let Ok(leader) = leader.to_string().parse() {
                status.metadata_mut().insert(LEADER_METADATA, leader);
            }
            Err(status)
        }
        Leadership::Unknown => Err(Status::failed_precondition(
            "it is not known yet which controller takes reports: try again",
        )),
    }
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
    let mut leadership = shared.server.leadership.clone();
    let mut questions = shared.server.agents.question();
    let mut session = Session {
        identity,
        metrics: &shared.server.metrics,
        owned: shared.owners.own(&identity.node),
        report: None,
        asks: 0,
        asked: Arc::default(),
        still_steered: None,
    };
    tracing::info!(node = %identity.node, software = greeting.software, "an agent reports");
    let mut welcome = Some(shared.welcome());
    // What is asked about now is asked of everybody who comes.
    let mut question = questions.borrow().clone();
    let mut heartbeat = interval(config.heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut read_from = Instant::now();
    loop {
        tokio::select! {
            status = guard.over() => return Err(status),
            () = session.owned.taken_over() => {
                return Err(Status::aborted("another stream speaks for this node"));
            }
            leads = leads_no_more(&mut leadership) => leads?,
            message = next(&mut inbound, read_from) => match message? {
                Some(message) => {
                    read_from = Instant::now() + config.report;
                    session.handle(message)?;
                }
                None => return Ok(()),
            },
            slot = out.reserve(), if welcome.is_some() || question.is_some() => {
                let Ok(slot) = slot else { return Ok(()) };
                let message = welcome.take().map(Response::Welcome).or_else(|| {
                    let newest = questions.borrow_and_update().clone();
                    question.take().and(newest).map(|newest| Response::Ask(session.ask(newest)))
                });
                slot.send(Ok(wire::ReportResponse { message }));
            }
            changed = questions.changed(), if question.is_none() => {
                if changed.is_err() {
                    return Err(Status::unavailable("the controller stops: connect again"));
                }
                question = questions.borrow().clone();
            }
            _ = heartbeat.tick() => {
                // An agent that does not read needs no sign of life.
                let message = Some(Response::Heartbeat(wire::Heartbeat {}));
                let _ = out.try_send(Ok(wire::ReportResponse { message }));
            }
        }
    }
}

struct Session<'a> {
    identity: &'a Identity,
    metrics: &'a Metrics,
    owned: Owned,
    /// Nothing is known of an agent that has not reported yet.
    report: Option<Arc<NodeReport>>,
    asks: u64,
    asked: Arc<Question>,
    /// The answer to the last question.
    still_steered: Option<BTreeSet<IpAddr>>,
}

impl Session<'_> {
    fn ask(&mut self, question: Arc<Question>) -> wire::Ask {
        self.asked = question;
        self.asks += 1;
        self.still_steered = None;
        wire::Ask {
            ask: self.asks,
            addresses: (self.asked.addresses.iter())
                .map(parts::address_bytes)
                .collect(),
            adds: self.asked.adds,
        }
    }

    fn handle(&mut self, request: wire::ReportRequest) -> Result<(), Status> {
        match request.message {
            Some(Request::Report(report)) => {
                self.metrics.report();
                let (report, invalid) = NodeReport::from_wire(report);
                if let Some(problem) = invalid.first() {
                    tracing::debug!(
                        node = %self.identity.node,
                        %problem,
                        left_out = invalid.len(),
                        "parts of a report cannot be used"
                    );
                }
                self.report = Some(Arc::new(report));
            }
            Some(Request::StillSteered(answer)) => {
                // The answer to an earlier question says nothing of this one.
                if answer.ask == self.asks {
                    let addresses = answer.addresses.iter();
                    let addresses = addresses.map(|bytes| parts::address("addresses", bytes));
                    let addresses: Result<_, _> = addresses.collect();
                    let addresses =
                        addresses.map_err(|e| Status::invalid_argument(e.to_string()))?;
                    self.still_steered = Some(addresses);
                }
            }
            Some(Request::Greeting(_)) => {
                return Err(Status::invalid_argument("a greeting comes first, once"));
            }
            Some(Request::Heartbeat(_)) | None => return Ok(()),
        }
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let Some(report) = &self.report else { return };
        let let_go = match &self.still_steered {
            Some(steered) => self.asked.addresses.difference(steered).copied().collect(),
            None => BTreeSet::new(),
        };
        self.owned.set(AgentStatus {
            pod: self.identity.pod.clone(),
            report: Arc::clone(report),
            let_go,
        });
    }
}

/// The next message, but not before a time: an agent that says too much waits.
async fn next(inbound: &mut Inbound, from: Instant) -> Result<Option<wire::ReportRequest>, Status> {
    sleep_until(from).await;
    inbound.message().await
}

/// Waits until another controller takes reports.
async fn leads_no_more(leadership: &mut watch::Receiver<Leadership>) -> Result<(), Status> {
    loop {
        check_leadership(&leadership.borrow_and_update())?;
        if leadership.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
