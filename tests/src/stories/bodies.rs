//! Bodies without an end, for gateways that are killed in the middle of them.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Share, Side, Stage};
use crate::pod::Pod;
use crate::process::Process;
use crate::report::{End, Exchange, ServerEvent};
use crate::traffic::Client;
use crate::wait::{wait_for, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);

/// What of a body has to have arrived before it counts as being in its middle.
const SOME: u64 = 100_000;

/// A client with two servers: one that sends without end, and one that receives without end. Each
/// direction has a server of its own, because a socket reports its reset once: to whoever reads or
/// writes next.
#[derive(Debug)]
pub struct Bodies {
    client: Pod,
    down: Share,
    up: Share,
}

/// Bodies that flow.
#[derive(Debug)]
pub struct Flowing<'a> {
    share: &'a Share,
    down: bool,
    client: Process,
    count: u64,
    /// Their numbers at the server are at least this.
    from: u64,
}

impl Bodies {
    /// Shares both servers.
    pub fn new(stage: &impl Stage) -> Result<Self> {
        let client = stage.workload("bodies", |pod| pod)?;
        let down = stage.share("down", "flood", &[])?;
        let up = stage.share("up", "sink", &[])?;
        Ok(Self { client, down, up })
    }

    /// Starts so many bodies in each direction, once the servers are reached, and waits until all
    /// are in their middle.
    pub fn flow(&self, west: &dyn Side, count: u64) -> Result<[Flowing<'_>; 2]> {
        self.down.wait_open(&self.client)?;
        self.up.wait_open(&self.client)?;
        let start = |share, down| Flowing::start(share, down, &self.client, count);
        let both = [start(&self.down, true)?, start(&self.up, false)?];
        for one in &both {
            one.wait_middle(west)?;
        }
        Ok(both)
    }
}

impl<'a> Flowing<'a> {
    fn start(share: &'a Share, down: bool, client: &Pod, count: u64) -> Result<Self> {
        let from = share.server.accepted()? as u64;
        let bodies = Client::to(share.address).count(count).parallel(count);
        let bodies = if down {
            bodies.flag("--keep-open")
        } else {
            bodies.flag("--forever").flag("--single")
        };
        Ok(Self {
            share,
            down,
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
        let what = format!("{count} bodies of {name} are in their middle");
        wait_for(&what, PATIENCE, || {
            let flows = west.flows()?;
            let live = flows["live"].as_array().context("no live flows")?;
            let flowing = live
                .iter()
                .filter(|one| one["import"]["name"] == name && one[counter].as_u64() > Some(SOME));
            Ok(flowing.count() as u64 == count)
        })
    }

    /// Fails unless each ends at both its ends with a reset: nobody may take that for an end.
    pub fn are_reset(mut self) -> Result<()> {
        let (name, count) = (&self.share.name, self.count);
        self.client.wait(PATIENCE)?;
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
        let ends = wait_until(&what, PATIENCE, || {
            let ends = self.ends_at_server()?;
            if ends.len() as u64 == count {
                return Ok(Some(ends));
            }
            bail!("{ends:?}")
        })?;
        ensure!(
            ends.iter().all(|end| end.is_reset()),
            "the server of {name} saw {ends:?}"
        );
        Ok(())
    }

    /// How those that are over have ended for the server.
    fn ends_at_server(&self) -> Result<Vec<End>> {
        let end = |event| match event {
            ServerEvent::Closed {
                connection,
                receive_end,
                send_end,
                ..
            } if connection >= self.from => {
                // Of a flood the server has received nothing, and waited for nothing.
                Some(if self.down { send_end } else { receive_end })
            }
            _ => None,
        };
        Ok(self
            .share
            .server
            .events()?
            .into_iter()
            .filter_map(end)
            .collect())
    }
}
