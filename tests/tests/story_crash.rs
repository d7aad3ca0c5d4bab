//! Gateways that are killed: what applications see, and what nobody else may see.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use clusterlink_tests::peer::PORT;
use clusterlink_tests::report::{End, Exchange, ServerEvent};
use clusterlink_tests::traffic::{Client, Decoys, Server, any, datagram};
use clusterlink_tests::wait::wait_for;
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, verdict, wait_verdict};
use clusterlink_tests::{Place, Pod, Scene, story};
use nix::errno::Errno;

const PATIENCE: Duration = Duration::from_secs(10);

/// The port of the gateway's steering listener.
const STEERING: u16 = 4440;

fn shared(scene: &Scene, mode: &str) -> Result<(World, Pod, Server, SocketAddr)> {
    let world = World::new(scene, &["east"])?;
    world.allow_all()?;
    let client = world.workload("client", |pod| pod)?;
    let server = Server::start(world.east().host(), mode, any(0), &[])?;
    let backend = SocketAddr::new(world.east().host().ipv4(), server.address.port());
    world.export(world.east(), "web", 80, backend)?;
    let address = world.import("web", 80, "static", &["east"])?;
    if mode == "flood" {
        wait_for("the flood reaches the client", SOON, || {
            let some = Client::to(address).set("--receive", 1).flag("--keep-open");
            Ok(some.once(&client)?.received.bytes > 0)
        })?;
    } else {
        wait_verdict(
            "the import works",
            SOON,
            &client,
            address,
            &[Verdict::Served],
        )?;
    }
    Ok((world, client, server, address))
}

/// Kills a gateway in the middle of bodies; nobody may take that for an end. Each direction has a
/// server of its own, because a socket reports its reset once: to whoever reads or writes next.
fn killed(name: &str, importing: bool) -> Result<()> {
    for (mode, counter) in [("flood", "bytesReceived"), ("sink", "bytesSent")] {
        story(&format!("{name}-{mode}"), |scene| {
            let (mut world, client, server, address) = shared(scene, mode)?;
            let before = server.accepted()? as u64;
            let transfers = Client::to(address).count(8).parallel(8);
            let transfers = if mode == "flood" {
                transfers.flag("--keep-open")
            } else {
                transfers.flag("--forever").flag("--single")
            };
            let mut running = transfers.start(&client)?;
            wait_for("all 8 transfers flow", PATIENCE, || {
                let flows = world.west.flows()?;
                let live = flows["live"].as_array().map_or(0, |live| {
                    let flowing = live
                        .iter()
                        .filter(|one| one[counter].as_u64() > Some(100_000));
                    flowing.count()
                });
                Ok(live == 8)
            })?;
            if importing {
                world.west.kill9()?;
            } else {
                world.exporters[0].kill9()?;
            }
            running.wait(PATIENCE)?;
            let all: Vec<Exchange> = running.reports()?;
            ensure!(all.len() == 8, "{} of 8 clients reported", all.len());
            for one in &all {
                // Of a flood the client has sent nothing, and ended nothing.
                let ends = if mode == "flood" {
                    vec![one.receive_end]
                } else {
                    vec![one.receive_end, one.send_end]
                };
                ensure!(
                    ends.iter().all(|end| end.is_reset()),
                    "the client saw {ends:?} and no reset"
                );
            }
            wait_for("the server sees 8 resets", PATIENCE, || {
                let ends = server
                    .events()?
                    .into_iter()
                    .filter_map(|event| match event {
                        ServerEvent::Closed {
                            connection,
                            receive_end,
                            send_end,
                            ..
                        } if connection >= before => {
                            // Of a flood the server has received nothing, and waited for nothing.
                            Some(if mode == "flood" {
                                send_end
                            } else {
                                receive_end
                            })
                        }
                        _ => None,
                    });
                let ends: Vec<End> = ends.collect();
                ensure!(
                    ends.iter().all(|end| end.is_reset()),
                    "the server saw {ends:?}"
                );
                Ok(ends.len() == 8)
            })
        })?;
    }
    Ok(())
}

#[test]
fn a_killed_importing_gateway_is_a_reset_at_both_ends() -> Result<()> {
    killed("killed-importing", true)
}

#[test]
fn a_killed_exporting_gateway_is_a_reset_at_both_ends() -> Result<()> {
    killed("killed-exporting", false)
}

/// Every client that is there, refused at every imported address by every protocol.
fn all_are_refused(places: [&Place; 2], targets: &[SocketAddr]) -> Result<()> {
    for place in places {
        for &target in targets {
            for _ in 0..10 {
                let seen = verdict(place, target)?;
                ensure!(
                    seen == Verdict::Refused,
                    "{seen:?} at {target} from {}",
                    place.name()
                );
            }
            let refused = Some(Errno::ECONNREFUSED as i32);
            for port in [target.port(), 53] {
                let target = SocketAddr::new(target.ip(), port);
                let connected = datagram(place, target, true)?;
                let sent = datagram(place, target, false)?;
                ensure!(
                    connected.connect_errno == refused && sent.send_errno == refused,
                    "{connected:?} and {sent:?} at {target} from {}",
                    place.name()
                );
            }
        }
    }
    Ok(())
}

#[test]
fn after_a_kill_nothing_goes_astray_and_a_restart_brings_all_back() -> Result<()> {
    /// What clients, gateways and other peers connect to, and a port that is not imported.
    const PORTS: [u16; 4] = [80, 81, STEERING, PORT];
    story("killed-decoys", |scene| {
        let (mut world, client, server, v4) = shared(scene, "name")?;
        let v6 = world.west.import_address(NAMESPACE, "web", true)?;
        let (SocketAddr::V4(plain), served) = (v4, server.accepted()?) else {
            anyhow::bail!("{v4} is not of IPv4")
        };
        let mapped = SocketAddr::new(plain.ip().to_ipv6_mapped().into(), v4.port());
        world.west.kill9()?;
        let host = world.west.host().clone();
        // Whoever listens now where the gateway did, at the imported addresses themselves, or
        // where the default route leads, must not be reached. What listens on all addresses has
        // those of the gateway and the host too.
        let router = scene.router()?;
        let east = world.east().host();
        for place in [&*host, &router] {
            for (ip, rest) in [(v4.ip(), "/32 dev lo"), (v6.ip(), "/128 dev lo nodad")] {
                place.ip(&format!("addr add {ip}{rest}"))?;
            }
        }
        let everywhere = PORTS.map(any);
        let at_east: Vec<_> = [80, STEERING]
            .into_iter()
            .flat_map(|port| [east.ipv4(), east.ipv6()].map(|ip| SocketAddr::new(ip, port)))
            .collect();
        let decoys = [
            Decoys::start(&host, &everywhere)?,
            Decoys::start(&router, &everywhere)?,
            Decoys::start(east, &at_east)?,
        ];
        let untouched = || -> Result<()> {
            decoys.iter().try_for_each(Decoys::assert_untouched)?;
            ensure!(server.accepted()? == served, "{:?}", server.events()?);
            Ok(())
        };
        let targets = [v4, v6, mapped];
        all_are_refused([&client, &host], &targets)?;
        untouched()?;
        // By then the gateway has not been heard of for longer than the hooks bear with.
        thread::sleep(Duration::from_secs(3));
        all_are_refused([&client, &host], &targets)?;
        untouched()?;
        // The routes alone, without the addresses that the decoys needed here.
        for (ip, length) in [(v4.ip(), 32), (v6.ip(), 128)] {
            host.ip(&format!("addr del {ip}/{length} dev lo"))?;
        }
        all_are_refused([&client, &host], &targets)?;
        untouched()?;
        // And they would have noticed: this one is reached from the router itself.
        let one = Client::to(v4).once(&router)?;
        ensure!(one.connect_errno.is_none(), "{one:?}");
        wait_for("the decoy has noticed", PATIENCE, || {
            Ok(untouched().is_err())
        })?;
        drop(decoys);
        world.west.run()?;
        for (ipv6, before) in [(false, v4), (true, v6)] {
            let after = world.west.import_address(NAMESPACE, "web", ipv6)?;
            ensure!(after == before, "the address was {before} and is {after}");
            let wanted = [Verdict::Served];
            wait_verdict(
                "all works again",
                Duration::from_secs(5),
                &client,
                after,
                &wanted,
            )?;
        }
        Ok(())
    })
}
