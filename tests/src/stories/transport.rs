//! Bytes go through the tunnel and arrive, for every kind of client.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;

use super::Stage;
use crate::report::{Amount, Exchange, ServerEvent};
use crate::traffic::{Client, datagram};
use crate::world::{NAMESPACE, Verdict};

const SERVED: [Verdict; 1] = [Verdict::Served];

/// `curl` reaches a web server of the other peer by every name that its service has.
pub fn a_web_server_is_reached_by_name(stage: &impl Stage) -> Result<()> {
    let client = stage.workload("by-name", |pod| pod)?;
    let web = stage.share("web", "http", &["--name", "hello from east"])?;
    stage.sees("the import works", &client, web.address, &SERVED)?;
    let name = web.name;
    let long = format!("{name}.{NAMESPACE}");
    for name in [&name, &long, &format!("{long}.svc.cluster.local")] {
        let url = format!("http://{name}/");
        let answer = client.run("curl", &["-sS", "--max-time", "5", &url])?;
        ensure!(answer == "hello from east\n", "{name} answered {answer:?}");
    }
    Ok(())
}

/// So many bytes arrive intact each way.
pub fn bulk_arrives_intact_each_way(stage: &impl Stage, bytes: u64) -> Result<()> {
    let client = stage.workload("bulk", |pod| pod)?;
    let up = stage.share("sink", "sink", &[])?;
    let flags = ["--bytes", &bytes.to_string(), "--seed", "7"];
    let mut down = stage.share("source", "source", &flags)?;
    stage.sees("the import works", &client, up.address, &SERVED)?;

    let sent = Client::to(up.address).send(bytes).once(&client)?;
    ensure!(sent.succeeded() && sent.sent.bytes == bytes, "{sent:?}");
    let arrived: Amount = serde_json::from_str(&sent.text)?;
    ensure!(
        arrived == sent.sent,
        "{arrived:?} arrived of {:?}",
        sent.sent
    );

    let received = Client::to(down.address).once(&client)?;
    ensure!(
        received.succeeded() && received.received.bytes == bytes,
        "{received:?}"
    );
    let ServerEvent::Closed { sent, .. } = down.server.wait_closed(0, Duration::from_secs(5))?
    else {
        bail!("the server did not report the end");
    };
    ensure!(
        sent == received.received,
        "{:?} arrived of {sent:?}",
        received.received
    );
    Ok(())
}

/// Eight transfers of so many bytes at once, there and back, arrive intact.
pub fn eight_transfers_at_once_arrive_intact(stage: &impl Stage, bytes: u64) -> Result<()> {
    let client = stage.workload("eight", |pod| pod)?;
    let echo = stage.share("echo", "echo", &[])?;
    stage.sees("the import works", &client, echo.address, &SERVED)?;
    let eight = Client::to(echo.address).send(bytes).count(8).parallel(8);
    let all = eight.run(&client)?;
    ensure!(all.len() == 8, "{all:?}");
    let intact =
        |one: &Exchange| one.succeeded() && one.sent.bytes == bytes && one.sent == one.received;
    ensure!(all.iter().all(intact), "{all:?}");
    Ok(())
}

/// Clients of IPv4, IPv6 and of IPv4 in IPv6 sockets are served, and see the imported address as
/// their peer's.
pub fn every_family_of_client_is_served(stage: &impl Stage) -> Result<()> {
    let client = stage.workload("families", |pod| pod)?;
    let web = stage.share("families", "name", &["--name", "east"])?;
    stage.sees("the import works", &client, web.address, &SERVED)?;
    for target in [web.address, web.ipv6, mapped(web.address)?] {
        stage.sees("the family works", &client, target, &SERVED)?;
        let one = Client::to(target).once(&client)?;
        ensure!(one.succeeded() && one.text == "east", "{target}: {one:?}");
        ensure!(
            one.peer_name == Some(target),
            "{target}: getpeername() said {:?}",
            one.peer_name
        );
    }
    Ok(())
}

/// UDP to an imported address is refused where the kernel steers, at whatever port.
pub fn datagrams_to_an_imported_address_are_refused(stage: &impl Stage) -> Result<()> {
    let client = stage.workload("datagrams", |pod| pod)?;
    let web = stage.share("datagrams", "name", &["--name", "east"])?;
    stage.sees("the import works", &client, web.address, &SERVED)?;
    let other_port = SocketAddr::new(web.address.ip(), 53);
    let refused = Some(Errno::ECONNREFUSED as i32);
    for target in [web.address, web.ipv6, mapped(web.address)?, other_port] {
        let connected = datagram(&client, target, true)?;
        ensure!(
            connected.connect_errno == refused,
            "{target}: {connected:?}"
        );
        let sent = datagram(&client, target, false)?;
        ensure!(sent.send_errno == refused, "{target}: {sent:?}");
    }
    Ok(())
}

fn mapped(address: SocketAddr) -> Result<SocketAddr> {
    let SocketAddr::V4(v4) = address else {
        bail!("{address} is not of IPv4")
    };
    Ok(SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()))
}
