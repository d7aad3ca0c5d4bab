//! Bodies without an end, for gateways that are killed or cut off in the middle of them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Share, Side, Stage};
use crate::payload::Payload;
use crate::pod::Pod;
use crate::process::Process;
use crate::report::{Amount, End, Exchange, ServerEvent};
use crate::traffic::Client;
use crate::wait::{wait_for, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);

/// What of a body has to have arrived before it counts as being in its middle.
const SOME: u64 = 100_000;

/// The same of a slow one.
const LITTLE: u64 = 1_000;

/// The seed of the bytes that clients and servers send.
const SEED: u64 = 1;

/// A client with two servers: one that sends without end, and one that receives without end. Each
/// direction has a server of its own, because a socket reports its reset once: to whoever reads or
/// writes next.
#[derive(Debug)]
pub struct Bodies {
    client: Pod,
    down: Share,
    up: Share,
    slow: bool,
}

/// Bodies that flow.
#[derive(Debug)]
pub struct Flowing<'a> {
    share: &'a Share,
    down: bool,
    slow: bool,
    client: Process,
    started: Instant,
    count: u64,
    /// Their numbers at the server are at least this.
    from: u64,
}

impl Bodies {
    /// Shares both servers.
    pub fn new(stage: &impl Stage) -> Result<Self> {
        Ok(Self {
            client: stage.workload("bodies", |pod| pod)?,
            down: stage.share("down", "flood", &[])?,
            up: stage.share("up", "sink", &[])?,
            slow: false,
        })
    }

    /// Bodies that take their time, and of which every byte is known: `down` is shared by a server of
    /// mode `trickle`, and `up` by a `sink`.
    pub fn slow(client: Pod, [down, up]: [Share; 2]) -> Self {
        Self {
            client,
            down,
            up,
            slow: true,
        }
    }

    /// Starts so many bodies in each direction, once the servers are reached, and waits until all
    /// are in their middle.
    pub fn flow(&self, west: &dyn Side, count: u64) -> Result<[Flowing<'_>; 2]> {
        self.down.wait_open(&self.client)?;
        self.up.wait_open(&self.client)?;
        let start = |share, down| Flowing::start(share, (down, self.slow), &self.client, count);
        let both = [start(&self.down, true)?, start(&self.up, false)?];
        for one in &both {
            one.wait_middle(west)?;
        }
        Ok(both)
    }
}

impl<'a> Flowing<'a> {
    fn start(
        share: &'a Share,
        (down, slow): (bool, bool),
        client: &Pod,
        count: u64,
    ) -> Result<Self> {
        let from = share.server.accepted()? as u64;
        let bodies = Client::to(share.address).count(count).parallel(count);
        let bodies = bodies.set("--seed", SEED);
        let bodies = match (down, slow) {
            // It bears with a silence for longer than anything that is waited for.
            (true, _) => bodies
                .flag("--keep-open")
                .patience(Duration::from_secs(300)),
            (false, false) => bodies.flag("--forever").flag("--single"),
            (false, true) => bodies
                .flag("--forever")
                .flag("--single")
                .set("--chunk", 800),
        };
        Ok(Self {
            share,
            down,
            slow,
            started: Instant::now(),
            client: bodies.start(client)?,
            count,
            from,
        })
    }

    fn wait_middle(&self, west: &dyn Side) -> Result<()> {
        let (name, count) = (self.share.name.as_str(), self.count);
        let counter = if self.down {
            "bytesReceived"
        } else {
            "bytesSent"
        };
        let some = if self.slow { LITTLE } else { SOME };
        let what = format!("{count} bodies of {name} are in their middle");
        wait_for(&what, PATIENCE, || {
            let flows = west.flows()?;
            let live = flows["live"].as_array().context("no live flows")?;
            let flowing = live
                .iter()
                .filter(|one| one["import"]["name"] == name && one[counter].as_u64() > Some(some));
            Ok(flowing.count() as u64 == count)
        })
    }

    /// Fails unless each ends at both its ends with a reset: nobody may take that for an end.
    pub fn are_reset(self) -> Result<()> {
        self.are_reset_within(PATIENCE).map(drop)
    }

    /// [`Flowing::are_reset`] with other patience. Of slow ones what has arrived until then has to be
    /// what was sent first, without anything twice. Gives when each client has seen its end.
    pub fn are_reset_within(mut self, patience: Duration) -> Result<Vec<Instant>> {
        let (name, count) = (&self.share.name, self.count);
        self.client.wait(patience)?;
        let all: Vec<Exchange> = self.client.reports()?;
        ensure!(
            all.len() as u64 == count,
            "{} of {count} clients of {name} told",
            all.len()
        );
        for one in &all {
            // Of a flood the client has sent nothing, and ended nothing.
            let sent = (!self.down).then_some(one.send_end);
            let mut ends = sent.into_iter().chain([one.receive_end]);
            ensure!(
                ends.all(End::is_reset),
                "a client of {name} saw no reset: {one:?}"
            );
        }
        let what = format!("the server of {name} sees {count} resets");
        let closed = wait_until(&what, PATIENCE, || {
            let closed = self.closed_at_server()?;
            if closed.len() as u64 == count {
                return Ok(Some(closed));
            }
            bail!("{closed:?}")
        })?;
        ensure!(
            closed.iter().all(|(_, end)| end.is_reset()),
            "the server of {name} saw {closed:?}"
        );
        if self.slow {
            let arrived: Vec<Amount> = if self.down {
                all.iter().map(|one| one.received).collect()
            } else {
                closed.iter().map(|(received, _)| *received).collect()
            };
            is_a_beginning(&arrived).with_context(|| name.clone())?;
        }
        let end = |one: &Exchange| self.started + Duration::from_micros(one.total_us);
        Ok(all.iter().map(end).collect())
    }

    /// What of those that are over has come to the server, and how they have ended for it.
    fn closed_at_server(&self) -> Result<Vec<(Amount, End)>> {
        let end = |event| match event {
            ServerEvent::Closed {
                connection,
                received,
                receive_end,
                send_end,
                ..
            } if connection >= self.from => {
                // Of a flood the server has received nothing, and waited for nothing.
                let end = if self.down { send_end } else { receive_end };
                Some((received, end))
            }
            _ => None,
        };
        let events = self.share.server.events()?;
        Ok(events.into_iter().filter_map(end).collect())
    }
}

/// Fails if anything has arrived twice, or is missing in the middle.
fn is_a_beginning(arrived: &[Amount]) -> Result<()> {
    for amount in arrived {
        let sent_first = Payload::beginning(SEED, amount.bytes);
        ensure!(
            *amount == sent_first && amount.bytes > 0,
            "{amount:?} arrived, and what was sent first is {sent_first:?}"
        );
    }
    Ok(())
}
