//! Gateways that are killed: what applications see, and what nobody else may see.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use clusterlink_tests::report::{End, Exchange, ServerEvent};
use clusterlink_tests::traffic::{Client, Decoys, Server, any};
use clusterlink_tests::wait::wait_for;
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, verdict, wait_verdict};
use clusterlink_tests::{Pod, Scene, story};

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
                transfers.flag("--forever")
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
                let end = if mode == "flood" {
                    one.receive_end
                } else {
                    one.send_end
                };
                ensure!(end.is_reset(), "the client saw {end:?} and no reset");
            }
            if mode == "flood" {
                return Ok(());
            }
            wait_for("the server sees 8 resets", PATIENCE, || {
                let ends = server
                    .events()?
                    .into_iter()
                    .filter_map(|event| match event {
                        ServerEvent::Closed {
                            connection,
                            receive_end,
                            ..
                        } if connection >= before => Some(receive_end),
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

#[test]
fn after_a_kill_nothing_goes_astray_and_a_restart_brings_all_back() -> Result<()> {
    story("killed-decoys", |scene| {
        let (mut world, client, _server, address) = shared(scene, "name")?;
        let v6 = world.west.import_address(NAMESPACE, "web", true)?;
        world.west.kill9()?;
        // Whoever listens now where the gateway did, or at the imported addresses themselves,
        // must not be reached.
        let host = world.west.host().clone();
        for ip in [address.ip(), v6.ip()] {
            let length = if ip.is_ipv4() { 32 } else { 128 };
            let no_dad = if ip.is_ipv4() { "" } else { " nodad" };
            host.ip(&format!("addr add {ip}/{length} dev lo{no_dad}"))?;
        }
        let gateway4: IpAddr = [169, 254, 77, 1].into();
        let gateway6: IpAddr = "fd77:636c::1".parse()?;
        let decoys = Decoys::start(
            &host,
            &[
                SocketAddr::new(gateway4, STEERING),
                SocketAddr::new(gateway6, STEERING),
                address,
                v6,
            ],
        )?;
        for target in [address, v6] {
            for place in [&*client, &*host] {
                for _ in 0..20 {
                    let seen = verdict(place, target)?;
                    ensure!(seen == Verdict::Refused, "{seen:?} from {}", place.name());
                }
            }
        }
        decoys.assert_untouched()?;
        drop(decoys);
        for ip in [address.ip(), v6.ip()] {
            let length = if ip.is_ipv4() { 32 } else { 128 };
            host.ip(&format!("addr del {ip}/{length} dev lo"))?;
        }
        world.west.run()?;
        for (ipv6, before) in [(false, address), (true, v6)] {
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
