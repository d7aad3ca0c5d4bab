//! Gateways that are killed: what applications see, and what nobody else may see.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use clusterlink_tests::peer::PORT;
use clusterlink_tests::stories::Stage as _;
use clusterlink_tests::stories::bodies::{Bodies, Flowing};
use clusterlink_tests::traffic::{Client, Decoys, any, datagram};
use clusterlink_tests::wait::wait_for;
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, verdict, wait_verdict};
use clusterlink_tests::{Place, story};
use nix::errno::Errno;

const PATIENCE: Duration = Duration::from_secs(10);

/// The port of the gateway's steering listener.
const STEERING: u16 = 4440;

/// Kills a gateway in the middle of bodies.
fn killed(name: &str, importing: bool) -> Result<()> {
    story(name, |scene| {
        let mut world = World::new(scene, &["east"])?;
        world.allow_all()?;
        let bodies = Bodies::new(&world)?;
        let flowing = bodies.flow(&world.west, 8)?;
        let killed = if importing {
            &mut world.west
        } else {
            &mut world.exporters[0]
        };
        killed.kill9()?;
        flowing.into_iter().try_for_each(Flowing::are_reset)
    })
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
        let mut world = World::new(scene, &["east"])?;
        world.allow_all()?;
        let client = world.workload("client", |pod| pod)?;
        let web = world.share("web", "name", &[])?;
        let (v4, v6, server) = (web.address, web.ipv6, &web.server);
        let what = "the import works";
        wait_verdict(what, SOON, &client, v4, &[Verdict::Served])?;
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
