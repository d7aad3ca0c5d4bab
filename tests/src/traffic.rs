//! Clients and servers, run by the helper `clt` in a place of the scene.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;

use crate::place::Place;
use crate::process::Process;
use crate::report::{Datagram, Exchange, RateReport, ServerEvent, ThroughputReport};

/// A server of `clt` that runs in a place.
#[derive(Debug)]
pub struct Server {
    /// The running process.
    pub process: Process,
    /// The address that it listens at.
    pub address: SocketAddr,
}

impl Server {
    /// Starts `clt serve MODE` at an address (port 0 takes any), with further flags, and waits until it listens.
    pub fn start(place: &Place, mode: &str, address: SocketAddr, flags: &[&str]) -> Result<Self> {
        let mut command = place.clt(["serve", mode, "--listen", &address.to_string()]);
        command.args(flags);
        let mut process = place.spawn(&format!("serve-{mode}"), command)?;
        let deadline = Duration::from_secs(10);
        let address = process.wait_report("that it listens", deadline, |event| match event {
            ServerEvent::Listening { address } => Some(address),
            _ => None,
        })?;
        Ok(Self { process, address })
    }

    /// A server on all addresses of both families that answers each connection with its name.
    pub fn named(place: &Place, name: &str) -> Result<Self> {
        Self::start(place, "name", any(0), &["--name", name])
    }

    /// An echo server on all addresses of both families.
    pub fn echo(place: &Place) -> Result<Self> {
        Self::start(place, "echo", any(0), &[])
    }

    /// All that it has reported so far.
    pub fn events(&self) -> Result<Vec<ServerEvent>> {
        self.process.reports()
    }

    /// How many connections have come in so far.
    pub fn accepted(&self) -> Result<usize> {
        Ok(self
            .events()?
            .iter()
            .filter(|event| matches!(event, ServerEvent::Accepted { .. }))
            .count())
    }

    /// Waits until a connection is over, and gives that event.
    pub fn wait_closed(&mut self, connection: u64, deadline: Duration) -> Result<ServerEvent> {
        let what = format!("the end of connection {connection}");
        self.process
            .wait_report(&what, deadline, |event| match event {
                ServerEvent::Closed {
                    connection: number, ..
                } if number == connection => Some(event),
                _ => None,
            })
    }
}

/// Listeners that nobody should ever reach.
#[derive(Debug)]
pub struct Decoys {
    servers: Vec<Server>,
}

impl Decoys {
    /// Puts a listener at each address, for TCP and for UDP.
    pub fn start(place: &Place, addresses: &[SocketAddr]) -> Result<Self> {
        let start = |address: &SocketAddr| {
            Ok([
                Server::start(place, "decoy", *address, &[])?,
                Server::start(place, "datagrams", *address, &[])?,
            ])
        };
        let servers: Result<Vec<_>> = addresses.iter().map(start).collect();
        Ok(Self {
            servers: servers?.into_iter().flatten().collect(),
        })
    }

    /// All that they have seen, with the address of each.
    pub fn events(&self) -> Result<Vec<(SocketAddr, ServerEvent)>> {
        let mut all = Vec::new();
        for server in &self.servers {
            let seen = server.events()?.into_iter();
            let seen = seen.filter(|event| !matches!(event, ServerEvent::Listening { .. }));
            all.extend(seen.map(|event| (server.address, event)));
        }
        Ok(all)
    }

    /// Fails if any of them has seen a connection, a datagram or a byte.
    pub fn assert_untouched(&self) -> Result<()> {
        let events = self.events()?;
        ensure!(events.is_empty(), "decoys were reached: {events:?}");
        Ok(())
    }
}

/// The wildcard address of both families at a port.
pub fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([0_u16; 8]), port)
}

/// What a client is to do; see `clt exchange --help` for each flag.
#[derive(Clone, Debug)]
pub struct Client {
    target: String,
    flags: Vec<String>,
}

impl Client {
    /// A client that connects, ends its side at once and reads until the other side's end.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers pass addresses, numbers and literals alike"
    )]
    pub fn to(target: impl ToString) -> Self {
        Self {
            target: target.to_string(),
            flags: Vec::new(),
        }
    }

    /// Adds a flag without a value.
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Adds a flag with a value.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers pass addresses, numbers and literals alike"
    )]
    pub fn set(mut self, flag: &str, value: impl ToString) -> Self {
        self.flags.push(flag.to_owned());
        self.flags.push(value.to_string());
        self
    }

    /// Sends so many pseudo-random bytes.
    pub fn send(self, bytes: u64) -> Self {
        self.set("--send", bytes)
    }

    /// Sends this text.
    pub fn say(self, text: &str) -> Self {
        self.set("--text", text)
    }

    /// Makes so many connections, one after the other unless [`Client::parallel`] says otherwise.
    pub fn count(self, count: u64) -> Self {
        self.set("--count", count)
    }

    /// Makes so many connections at once.
    pub fn parallel(self, threads: u64) -> Self {
        self.set("--parallel", threads)
    }

    /// Gives up a connection on which nothing happens for so long.
    pub fn patience(self, patience: Duration) -> Self {
        self.set("--timeout-ms", patience.as_millis())
    }

    /// The command, to be started with [`Place::spawn`].
    pub fn command(&self, place: &Place) -> Command {
        let mut command = place.clt(["exchange", &self.target]);
        command.args(&self.flags);
        command
    }

    /// Starts it in the background.
    pub fn start(&self, place: &Place) -> Result<Process> {
        place.spawn("client", self.command(place))
    }

    /// Runs all connections to their end.
    pub fn run(&self, place: &Place) -> Result<Vec<Exchange>> {
        reports(self.command(place))
    }

    /// Runs one connection to its end.
    pub fn once(&self, place: &Place) -> Result<Exchange> {
        let mut all = self.run(place)?;
        let one = all.pop().context("the client reported nothing")?;
        ensure!(
            all.is_empty(),
            "the client reported more than one connection"
        );
        Ok(one)
    }
}

/// Sends a datagram from a place; `connected` says whether the socket is connected first.
pub fn datagram(place: &Place, target: SocketAddr, connected: bool) -> Result<Datagram> {
    let mut command = place.clt(["udp", &target.to_string()]);
    if connected {
        command.arg("--connect");
    }
    one(command)
}

/// Measures short connections to a server in mode `name`.
pub fn rate(
    place: &Place,
    target: SocketAddr,
    threads: u32,
    length: Duration,
) -> Result<RateReport> {
    let milliseconds = length.as_millis().to_string();
    one(place.clt([
        "rate",
        &target.to_string(),
        "--parallel",
        &threads.to_string(),
        "--for-ms",
        &milliseconds,
    ]))
}

/// Measures bulk transfer: `down` from a server in mode `flood`, else up to one in mode `drain`.
pub fn throughput(
    place: &Place,
    target: SocketAddr,
    down: bool,
    length: Duration,
) -> Result<ThroughputReport> {
    let milliseconds = length.as_millis().to_string();
    let direction = if down { "down" } else { "up" };
    one(place.clt([
        "throughput",
        &target.to_string(),
        "--direction",
        direction,
        "--for-ms",
        &milliseconds,
    ]))
}

fn one<T: DeserializeOwned>(command: Command) -> Result<T> {
    let mut all = reports(command)?;
    all.pop().context("clt reported nothing")
}

fn reports<T: DeserializeOwned>(mut command: Command) -> Result<Vec<T>> {
    let output = command.output().context("cannot run clt")?;
    if !output.status.success() {
        bail!(
            "clt failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("clt printed {line}")))
        .collect()
}
