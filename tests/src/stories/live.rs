//! A connection that holds, until a change makes an end of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Share, Side};
use crate::pod::Pod;
use crate::process::Process;
use crate::report::{Exchange, ServerEvent};
use crate::traffic::Client;
use crate::wait::{wait_for, wait_until};

/// What it says, by which the server's report of it is known.
const GREETING: &str = "hello";

/// How soon a connection that may no longer be has to end, at both ends.
pub const CUT: Duration = Duration::from_secs(2);

/// A connection to an echo server.
#[derive(Debug)]
pub struct Live {
    client: Process,
    /// Its number at the server is at least this.
    from: u64,
}

impl Live {
    /// Connects from a workload of `west` to a shared echo server, and waits for the echo.
    pub fn connect(west: &dyn Side, client: &Pod, echo: &Share) -> Result<Self> {
        let from = echo.server.accepted()? as u64;
        let held = Client::to(echo.address).say(GREETING).flag("--keep-open");
        let client = held.start(client)?;
        wait_for("the echo is back", Duration::from_secs(5), || {
            let flows = west.flows()?;
            let live = flows["live"].as_array().context("no live flows")?;
            let ours = live.iter().any(|one| {
                one["import"]["name"] == echo.name.as_str() && one["bytesReceived"] == 5
            });
            if ours {
                return Ok(true);
            }
            bail!("{flows:#}")
        })?;
        Ok(Self { client, from })
    }

    /// Waits for its end, which has to be a reset at both ends within [`CUT`] of `start`, and gives
    /// how soon each end saw it.
    pub fn cut(mut self, echo: &mut Share, start: Instant) -> Result<[Duration; 2]> {
        let left = || CUT.saturating_sub(start.elapsed());
        self.client.wait(left()).context("the client's end")?;
        let at_client = start.elapsed();
        let from = self.from;
        let ours = |event| match event {
            ServerEvent::Closed {
                connection,
                received,
                receive_end,
                ..
            } if connection >= from && received.bytes == GREETING.len() as u64 => Some(receive_end),
            _ => None,
        };
        let server = &mut echo.server.process;
        let seen = server
            .wait_report("the live connection's end", left(), ours)
            .context("the server's end")?;
        let at_server = start.elapsed();
        let ends: Vec<Exchange> = self.client.reports()?;
        let [end] = ends.as_slice() else {
            bail!("{ends:?}")
        };
        ensure!(end.receive_end.is_reset(), "the client saw {end:?}");
        ensure!(seen.is_reset(), "the server saw {seen:?}");
        Ok([at_client, at_server])
    }
}

/// Waits until the flow log of a side gives this reason for the end of the last [`Live`] connection
/// to a shared echo server.
pub fn logged(side: &dyn Side, echo: &Share, reason: &str) -> Result<()> {
    let what = format!("the log of {} says {reason}", side.peer());
    wait_until(&what, CUT, || {
        let flows = side.flows()?;
        let recent = flows["recent"].as_array().context("no recent flows")?;
        let bytes = GREETING.len();
        let carried = |flow: &&Value| {
            flow["export"]["name"] == echo.name.as_str()
                && flow["bytesSent"] == bytes
                && flow["bytesReceived"] == bytes
        };
        let last = recent.iter().rfind(carried);
        let last = last.context("the flow is not among the recent ones")?;
        if last["reason"] == reason {
            return Ok(Some(()));
        }
        bail!("{last:#}")
    })
}
