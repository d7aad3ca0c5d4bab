//! The Report stream: found by asking any controller, kept with the one that takes reports.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use clusterlink_proto::{LEADER_METADATA, NodeReport, Rejected, parts, wire};
use futures::stream::{self, StreamExt as _};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tracing::{debug, info};
use wire::{report_request::Message as Request, report_response::Message as Response};

use super::{
    Config,
    backoff::Backoff,
    connect::{self, Connection, StreamError, greeting},
};
use crate::{released::Released, state::SteeredAddresses};

/// How often controllers may send us on before we begin anew.
const REDIRECTS: u32 = 3;
/// Messages that wait to be sent; more are made when these are on their way.
const OUTGOING: usize = 2;

type Steered = watch::Receiver<SteeredAddresses>;

/// What is reported, and from where.
struct Reporter {
    report: watch::Receiver<Arc<NodeReport>>,
    rejected: watch::Receiver<Arc<Vec<Rejected>>>,
    steered: Steered,
    released: Released,
    in_force: watch::Receiver<u64>,
}

/// A question, and the answer that was given to it.
#[derive(Default)]
struct Question {
    ask: u64,
    /// Its number among those of all streams.
    number: u64,
    addresses: BTreeSet<IpAddr>,
    answered: Option<BTreeSet<IpAddr>>,
}

/// Reports for as long as the process lives.
pub(super) async fn run(
    config: Arc<Config>,
    report: watch::Receiver<Arc<NodeReport>>,
    (steered, released): (Steered, Released),
    rejected: watch::Receiver<Arc<Vec<Rejected>>>,
) {
    let mut backoff = Backoff::new(config.backoff);
    let mut reporter = Reporter {
        report,
        rejected,
        steered,
        in_force: released.in_force(),
        released,
    };
    let mut at = config.controller.clone();
    let mut redirects = 0;
    loop {
        let start = Instant::now();
        let error = match reporter.stream(&config, &at).await {
            Ok(()) => StreamError::Ended,
            Err(error) => error,
        };
        if start.elapsed() > config.backoff.longest {
            backoff.reset();
            redirects = 0;
        }
        if let Some(leader) = leader(&error)
            && leader != at
            && redirects < REDIRECTS
        {
            debug!(leader, "another controller takes reports");
            redirects += 1;
            at = leader;
            continue;
        }
        redirects = 0;
        at.clone_from(&config.controller);
        let wait = backoff.wait();
        info!(
            error = crate::chain(&error),
            ?wait,
            "this node cannot report"
        );
        sleep(wait).await;
    }
}

/// Where a refusal says that reports are taken.
fn leader(error: &StreamError) -> Option<String> {
    let StreamError::Status { status } = error else {
        return None;
    };
    let leader = status.metadata().get(LEADER_METADATA)?.to_str().ok()?;
    // Nothing but an address is connected to.
    leader.parse::<std::net::SocketAddr>().ok()?;
    Some(leader.to_owned())
}

impl Reporter {
    async fn stream(&mut self, config: &Config, at: &str) -> Result<(), StreamError> {
        let mut connection = Connection::open(config, at).await?;
        let (outgoing, mut later) = mpsc::channel(OUTGOING);
        let first = wire::ReportRequest {
            message: Some(Request::Greeting(greeting(config))),
        };
        let later = stream::poll_fn(move |context| later.poll_recv(context));
        let request = connection.request(stream::iter([first]).chain(later));
        let silent = || StreamError::Silent(config.silence);
        let opening = timeout(config.silence, connection.client.report(request)).await;
        let mut responses = opening.map_err(|_| silent())??.into_inner();
        let mut question = Question::default();
        let mut report_due = true;
        let mut report_from = Instant::now();
        let mut heard = Instant::now();
        let mut heartbeat = interval(config.silence / 3);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // In this order: what is steered is read when the question is in force already.
            let in_force = *self.in_force.borrow_and_update();
            let answer = question.due(in_force, self.steered.borrow_and_update().as_deref());
            tokio::select! {
                response = responses.message() => match response? {
                    Some(response) => {
                        heard = Instant::now();
                        question.receive(response, at, &self.released)?;
                    }
                    None => return Ok(()),
                },
                () = sleep_until(heard + config.silence) => return Err(silent()),
                slot = outgoing.reserve(), if answer.is_some() => {
                    let (Ok(slot), Some(answer)) = (slot, answer) else { return Ok(()) };
                    slot.send(question.answer(answer));
                }
                () = ready(&outgoing, report_from), if report_due => {
                    report_due = false;
                    report_from = Instant::now() + config.report_interval;
                    let message = Some(Request::Report((&self.whole()).into()));
                    // There was room, and nobody else sends.
                    let _ = outgoing.try_send(wire::ReportRequest { message });
                }
                // Senders that are gone leave the last state in force.
                Ok(()) = self.report.changed() => report_due = true,
                Ok(()) = self.rejected.changed() => report_due = true,
                Ok(()) = self.steered.changed() => {}
                Ok(()) = self.in_force.changed() => {}
                _ = heartbeat.tick() => {
                    let message = Some(Request::Heartbeat(wire::Heartbeat {}));
                    let _ = outgoing.try_send(wire::ReportRequest { message });
                }
            }
        }
    }

    fn whole(&mut self) -> NodeReport {
        let mut report = NodeReport::clone(&self.report.borrow_and_update());
        (report.rejected).extend(self.rejected.borrow_and_update().iter().cloned());
        report
    }
}

impl Question {
    /// What to answer, if the question is in force, and it is known what is steered, and that is not what
    /// was answered last.
    fn due(&self, in_force: u64, steered: Option<&BTreeSet<IpAddr>>) -> Option<BTreeSet<IpAddr>> {
        let steered = steered.filter(|_| self.ask != 0 && in_force >= self.number)?;
        let answer = self.addresses.intersection(steered).copied().collect();
        (self.answered.as_ref() != Some(&answer)).then_some(answer)
    }

    fn answer(&mut self, answer: BTreeSet<IpAddr>) -> wire::ReportRequest {
        let addresses = answer.iter().map(parts::address_bytes).collect();
        self.answered = Some(answer);
        let ask = self.ask;
        let message = Some(Request::StillSteered(wire::StillSteered { ask, addresses }));
        wire::ReportRequest { message }
    }

    fn receive(
        &mut self,
        response: wire::ReportResponse,
        at: &str,
        released: &Released,
    ) -> Result<(), StreamError> {
        match response.message {
            Some(Response::Welcome(welcome)) => {
                info!(
                    controller = at,
                    software = welcome.software,
                    "this node reports"
                );
                connect::check(&welcome)
            }
            Some(Response::Ask(ask)) => {
                // An address that we cannot read we do not steer either.
                let addresses = ask.addresses.iter();
                let addresses = addresses.filter_map(|bytes| parts::address("address", bytes).ok());
                let addresses: BTreeSet<IpAddr> = addresses.collect();
                *self = Self {
                    ask: ask.ask,
                    number: released.ask(addresses.clone(), ask.adds),
                    addresses,
                    answered: None,
                };
                Ok(())
            }
            Some(Response::Heartbeat(_)) | None => Ok(()),
        }
    }
}

/// Waits for a time and for room.
async fn ready(outgoing: &mpsc::Sender<wire::ReportRequest>, from: Instant) {
    sleep_until(from).await;
    // The room is free again at once: nobody else sends.
    let _ = outgoing.reserve().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: &[u8]) -> BTreeSet<IpAddr> {
        last.iter().map(|&last| [10, 96, 0, last].into()).collect()
    }

    #[test]
    fn a_question_is_answered_once_it_is_in_force_and_when_what_is_steered_changes() {
        let mut question = Question::default();
        let released = Released::default();
        released.ask(addresses(&[9]), false);
        assert_eq!(
            question.due(1, Some(&addresses(&[1]))),
            None,
            "none was asked"
        );
        let ask = wire::Ask {
            ask: 1,
            addresses: addresses(&[1, 2])
                .iter()
                .map(parts::address_bytes)
                .collect(),
            adds: false,
        };
        let message = Some(Response::Ask(ask));
        question
            .receive(wire::ReportResponse { message }, "there", &released)
            .unwrap();
        let asked = released.asked().borrow().addresses.clone();
        assert_eq!(asked.as_deref(), Some(&addresses(&[1, 2])));
        assert_eq!(
            question.due(1, Some(&addresses(&[]))),
            None,
            "an earlier question is in force: what is not steered yet may be in a moment"
        );
        assert_eq!(question.due(2, None), None, "nobody knows yet");
        let none = Some(addresses(&[]));
        assert_eq!(question.due(2, Some(&addresses(&[]))), none);
        let due = question.due(2, Some(&addresses(&[1, 7])));
        assert_eq!(due, Some(addresses(&[1])));
        question.answer(addresses(&[1]));
        assert_eq!(question.due(2, Some(&addresses(&[1, 8]))), None, "the same");
        assert_eq!(question.due(2, None), None);
        assert_eq!(question.due(2, Some(&addresses(&[8]))), none);
    }
}
