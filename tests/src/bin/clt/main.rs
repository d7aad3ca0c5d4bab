//! `clt`: the helper that the harness starts inside hosts and pods.
//!
//! It enters places, serves, connects, measures, and prints what it saw as lines of JSON.
#![forbid(unsafe_code)]

mod bench;
mod enter;
mod exchange;
mod idle;
mod serve;
mod stream;

use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use clusterlink_tests::listing::Listing;
use clusterlink_tests::report::Datagram;
use clusterlink_tests::traffic::Server;
use clusterlink_tests::{Scene, scene};
use serde::Serialize;

#[derive(Debug, Parser)]
#[command(
    name = "clt",
    about = "Clients, servers and places of the end-to-end harness"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Becomes another program in a network namespace and a cgroup.
    Enter(enter::Enter),
    /// Waits for the death of a scene's owner and removes what it left.
    WatchOwner {
        /// The scene's ledger.
        ledger: PathBuf,
    },
    /// Removes what dead scenes left.
    Reap,
    /// Sets a scene with one host and one pod that serves, prints its name and holds it until killed.
    Scene,
    /// Prints a listing of all that a scene or a peer could leave behind.
    Listing,
    /// Serves connections until it is killed.
    Serve(serve::Serve),
    /// Makes connections and reports each.
    Exchange(exchange::Arguments),
    /// Opens connections and holds them; each line on its input makes it check them.
    Idle(idle::Idle),
    /// Sends one datagram.
    Udp {
        /// Where to.
        target: String,
        /// Connects the socket first.
        #[arg(long)]
        connect: bool,
    },
    /// Measures short connections.
    Rate(bench::Rate),
    /// Measures bulk transfer.
    Throughput(bench::Throughput),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Enter(enter) => enter.run(),
        Command::WatchOwner { ledger } => {
            // A session of its own, so that the Ctrl-C that ends the owner does not end it.
            rustix::process::setsid().context("cannot start a session")?;
            scene::watch_owner(&ledger)
        }
        Command::Reap => {
            println!("{} scenes of dead owners removed", scene::reap()?);
            Ok(())
        }
        Command::Scene => hold_scene(),
        Command::Listing => print(&Listing::take()?),
        Command::Serve(serve) => serve.run(),
        Command::Exchange(exchange) => exchange.run(),
        Command::Idle(idle) => idle.run(),
        Command::Udp { target, connect } => print(&send_datagram(resolve(&target)?, connect)?),
        Command::Rate(rate) => rate.run(),
        Command::Throughput(throughput) => throughput.run(),
    }
}

fn hold_scene() -> Result<()> {
    let scene = Scene::new("held")?;
    let pod = scene.host("host")?.pod_with_network("pod")?;
    let _server = Server::echo(&pod)?;
    eprint!("{}", scene.explain());
    println!("{}", scene.id());
    io::stdout().flush().context("cannot print")?;
    loop {
        std::thread::park();
    }
}

/// Prints one report as one line, whole even if several threads print.
fn print<T: Serialize>(report: &T) -> Result<()> {
    let mut line = serde_json::to_string(report).context("cannot encode a report")?;
    line.push('\n');
    let mut output = io::stdout().lock();
    output
        .write_all(line.as_bytes())
        .and_then(|()| output.flush())
        .context("cannot print a report")
}

fn resolve(target: &str) -> Result<SocketAddr> {
    let mut addresses = target
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {target}"))?;
    addresses
        .next()
        .with_context(|| format!("{target} has no address"))
}

fn send_datagram(target: SocketAddr, connect: bool) -> Result<Datagram> {
    let local = if target.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(local).context("cannot bind a datagram socket")?;
    let errno =
        |result: io::Result<()>| result.err().map(|error| error.raw_os_error().unwrap_or(-1));
    let connect_errno = if connect {
        errno(socket.connect(target))
    } else {
        None
    };
    let payload = b"datagram";
    let send_errno = match (connect, connect_errno) {
        (true, Some(_)) => None,
        (true, None) => errno(socket.send(payload).map(drop)),
        (false, _) => errno(socket.send_to(payload, target).map(drop)),
    };
    Ok(Datagram {
        connect_errno,
        send_errno,
    })
}
