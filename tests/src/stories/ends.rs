//! How connections end, and that a reader which stops harms nobody else.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Share, Stage};
use crate::pod::Pod;
use crate::report::{End, ServerEvent};
use crate::traffic::Client;
use crate::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(10);

/// A client and the servers that it is to have to do with.
#[derive(Debug)]
pub struct Ends<'a, S> {
    pub(super) stage: &'a S,
    pub(super) client: Pod,
    pub(super) echo: Share,
    flood: Share,
    greet: Share,
    reset: Share,
    sink: Share,
    source: Share,
}

impl<'a, S: Stage> Ends<'a, S> {
    /// Shares the servers, and waits until the client reaches each.
    pub fn new(stage: &'a S) -> Result<Self> {
        let client = stage.workload("ends", |pod| pod)?;
        let share = |mode: &str, flags: &[&str]| -> Result<Share> {
            let share = stage.share(&format!("ends-{mode}"), mode, flags)?;
            share.wait_open(&client)?;
            Ok(share)
        };
        Ok(Self {
            stage,
            echo: share("echo", &[])?,
            flood: share("flood", &[])?,
            greet: share("greet", &["--name", "welcome"])?,
            reset: share("reset", &["--bytes", "1000"])?,
            sink: share("sink", &[])?,
            source: share("source", &["--bytes", "100000"])?,
            client,
        })
    }

    /// A half-closed connection goes on in the other direction.
    pub fn either_side_may_end_first_and_the_other_goes_on(&mut self) -> Result<()> {
        // The client ends first: the sink answers with what it has got until then.
        let seen = Client::to(self.sink.address).send(300_000);
        let seen = seen.once(&self.client)?;
        ensure!(seen.succeeded() && seen.text.contains("300000"), "{seen:?}");
        // The server ends first and goes on receiving.
        let seen = Client::to(self.source.address)
            .send(400_000)
            .set("--chunk", 20_000)
            .set("--pace-ms", 5)
            .once(&self.client)?;
        ensure!(
            seen.succeeded() && seen.received.bytes == 100_000,
            "{seen:?}"
        );
        ensure!(
            seen.receive_us + 20_000 < seen.send_us,
            "the end came only with the client's last bytes: {seen:?}"
        );
        let whole = |event| match event {
            ServerEvent::Closed {
                received,
                receive_end: End::Eof,
                ..
            } if received == seen.sent => Some(()),
            _ => None,
        };
        let source = &mut self.source.server.process;
        source.wait_report("that all has arrived", PATIENCE, whole)
    }

    /// A server's greeting needs no byte of the client.
    pub fn a_server_may_speak_first(&self) -> Result<()> {
        let seen = Client::to(self.greet.address)
            .set("--receive", 7)
            .flag("--keep-open")
            .once(&self.client)?;
        ensure!(seen.text.starts_with("welcome"), "{seen:?}");
        Ok(())
    }

    /// So many connections on which nothing is said end in order.
    pub fn connections_without_a_byte_end_in_order(&self, count: u64) -> Result<()> {
        let all = Client::to(self.echo.address).count(count).parallel(8);
        let all = all.run(&self.client)?;
        let bad = all
            .iter()
            .find(|one| !one.succeeded() || one.received.bytes > 0);
        ensure!(
            bad.is_none() && all.len() as u64 == count,
            "{} connections, one of them {bad:?}",
            all.len()
        );
        Ok(())
    }

    /// By whichever side a connection is reset, the other one sees that.
    pub fn a_reset_is_a_reset_at_the_other_end(&mut self) -> Result<()> {
        // By the server, in the middle of what the client sends. A socket reports its reset once,
        // to the thread that reads or to the one that writes.
        let seen = Client::to(self.reset.address).send(50_000_000);
        let seen = seen.once(&self.client)?;
        ensure!(
            seen.receive_end.is_reset() || seen.send_end.is_reset(),
            "{seen:?}"
        );
        // By the client, after the server has heard something.
        let echo = &mut self.echo.server;
        let before = echo.accepted()? as u64;
        Client::to(self.echo.address)
            .send(1_000)
            .flag("--keep-open")
            .set("--receive", 1_000)
            .set("--finish", "reset")
            .once(&self.client)?;
        let closed = echo.wait_closed(before, PATIENCE)?;
        ensure!(
            matches!(closed, ServerEvent::Closed { receive_end, .. } if receive_end.is_reset()),
            "{closed:?}"
        );
        Ok(())
    }

    /// Sixteen readers that stop do not slow echoes of so many bytes on the same session.
    pub fn readers_that_stop_do_not_slow_their_neighbours(&self, bytes: u64) -> Result<()> {
        // In turns, so that whatever else the machine does weighs on both.
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            self.wait_floods(0)?;
            alone.push(self.time_of_an_echo(bytes)?);
            // Each takes some bytes, which shows that it is connected, and then reads no more.
            let mut stalled = Vec::new();
            for _ in 0..16 {
                let client = Client::to(self.flood.address)
                    .set("--receive", 1)
                    .flag("--keep-open")
                    .set("--finish", "hold");
                stalled.push(client.start(&self.client)?);
            }
            self.wait_floods(16)?;
            beside.push(self.time_of_an_echo(bytes)?);
            for mut client in stalled {
                client.kill9()?;
            }
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let (alone, beside) = (median(&mut alone), median(&mut beside));
        eprintln!(
            "echo of {bytes} bytes: {alone:.0} µs alone, {beside:.0} µs beside 16 stalled readers"
        );
        ensure!(
            beside <= 3.0 * alone,
            "stalled readers slow their neighbours"
        );
        Ok(())
    }

    /// How many microseconds an echo takes on average, of sixteen by four at once.
    fn time_of_an_echo(&self, bytes: u64) -> Result<f64> {
        let all = Client::to(self.echo.address).send(bytes);
        let all = all.count(16).parallel(4).run(&self.client)?;
        let intact = all
            .iter()
            .all(|one| one.succeeded() && one.received == one.sent);
        ensure!(intact, "{all:?}");
        Ok(all.iter().map(|one| one.total_us as f64).sum::<f64>() / 16.0)
    }

    /// Waits until so many clients of the flood are connected.
    fn wait_floods(&self, wanted: usize) -> Result<()> {
        let what = "the flood's connections are as wanted";
        wait_for(what, PATIENCE, || {
            let flows = self.stage.west().flows()?;
            let live = flows["live"].as_array().context("no live flows")?;
            let name = self.flood.name.as_str();
            let live = live.iter().filter(|one| one["import"]["name"] == name);
            Ok(live.count() == wanted)
        })
    }
}
