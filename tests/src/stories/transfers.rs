//! Checksummed transfers that go on while something happens to what carries them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{PATIENCE, Share, Side, Stage};
use crate::pod::Pod;
use crate::process::Process;
use crate::report::{Amount, Exchange};
use crate::traffic::Client;
use crate::wait::{always, wait_for};
use crate::world::{Verdict, wait_verdict};

/// What is written ten times a second in a transfer that takes its time.
const CHUNK: u64 = 5_000;

/// A workload of `west`, and a sink of `east` that answers with the checksum of what it got.
#[derive(Debug)]
pub struct Sender {
    /// The workload.
    pub client: Pod,
    /// The sink.
    pub sink: Share,
}

impl Sender {
    /// Shares a sink, and waits until it works.
    pub fn new(stage: &impl Stage) -> Result<Self> {
        let client = stage.workload("sender", |pod| pod)?;
        let sink = stage.share("sent", "sink", &[])?;
        let served = [Verdict::Served];
        wait_verdict("it works", PATIENCE, &client, sink.address, &served)?;
        Ok(Self { client, sink })
    }

    /// Sends once, on a new connection.
    pub fn once(&self) -> Result<()> {
        let seen = Client::to(self.sink.address).send(10_000);
        whole(&[seen.once(&self.client)?])
    }

    /// Sends on one new connection after the other, until [`Busy::end`].
    pub fn busy(&self) -> Result<Busy> {
        let client = Client::to(self.sink.address).send(20_000).set("--count", 0);
        let client = client.parallel(4).set("--interval-ms", 5);
        Ok(Busy(client.start(&self.client)?))
    }

    /// Starts so many transfers at once, each of so many seconds, and waits until all run.
    pub fn transfers(&self, west: &dyn Side, count: u64, seconds: u64) -> Result<Transfers> {
        let process = Client::to(self.sink.address)
            .send(CHUNK * 10 * seconds)
            .set("--chunk", CHUNK)
            .set("--pace-ms", 100)
            .count(count)
            .parallel(count)
            .start(&self.client)?;
        let name = self.sink.name.as_str();
        wait_for(&format!("{count} transfers run"), PATIENCE, || {
            let flows = west.flows()?;
            let live = flows["live"].as_array().context("no live flows")?;
            let ours = live.iter().filter(|one| one["import"]["name"] == name);
            Ok(ours.count() as u64 == count)
        })?;
        Ok(Transfers { process, count })
    }
}

/// A client that goes on and on.
#[derive(Debug)]
pub struct Busy(Process);

impl Busy {
    /// Ends it, and gives how many transfers there were: each has to have arrived whole.
    pub fn end(mut self) -> Result<usize> {
        let lost = self.0.ended()?;
        ensure!(lost.is_none(), "the client has ended by itself: {lost:?}");
        self.0.kill9()?;
        let all: Vec<Exchange> = self.0.reports()?;
        whole(&all)?;
        Ok(all.len())
    }
}

/// Transfers that run.
#[derive(Debug)]
pub struct Transfers {
    process: Process,
    count: u64,
}

impl Transfers {
    /// Fails if they are over already.
    pub fn run_still(&mut self) -> Result<()> {
        let ended = self.process.ended()?;
        ensure!(ended.is_none(), "the transfers were too short: {ended:?}");
        Ok(())
    }

    /// Waits for their end; each has to have arrived whole.
    pub fn arrive_whole(mut self, deadline: Duration) -> Result<()> {
        self.process.wait(deadline)?;
        let all: Vec<Exchange> = self.process.reports()?;
        let count = self.count;
        ensure!(all.len() as u64 == count, "{} of {count} told", all.len());
        whole(&all)
    }
}

/// Fails unless every transfer arrived whole, by the checksum that the sink answered.
pub fn whole(all: &[Exchange]) -> Result<()> {
    for one in all {
        ensure!(one.succeeded(), "a transfer failed: {one:?}");
        let answer: Amount = serde_json::from_str(&one.text)
            .with_context(|| format!("the sink answered {:?}", one.text))?;
        always(
            answer == one.sent,
            format_args!("{answer:?} arrived of {:?}", one.sent),
        )?;
    }
    Ok(())
}
