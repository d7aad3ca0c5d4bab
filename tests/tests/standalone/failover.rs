//! A source that cannot serve is followed by the next one within the same connection: the first one
//! that is made after the cause is known to be there.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use clusterlink_tests::manifests::{endpoint_slice, export, import, service, source};
use clusterlink_tests::stories::failover;
use clusterlink_tests::traffic::Server;
use clusterlink_tests::wait::wait_until;
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, wait_verdict};
use clusterlink_tests::{Peer, Pod, Scene, story};
use serde_json::Value;

/// Two exporting peers; `east` is tried first and cannot serve, `north` can.
struct Two {
    world: World,
    client: Pod,
    _server: Server,
}

fn two(scene: &Scene) -> Result<Two> {
    let world = World::new(scene, &["east", "north"])?;
    world.allow_all()?;
    let north = &world.exporters[1];
    let server = Server::named(north.host(), "north")?;
    let backend = SocketAddr::new(north.host().ipv4(), server.address.port());
    world.export(north, "web", 80, backend)?;
    exports(north, |web| web["backends"] == 1)?;
    for peer in [&world.exporters[0], north] {
        peer.wait_status("it lets everybody in", SOON, |status| in_force(status) == 1)?;
    }
    let client = world.workload("client", |pod| pod)?;
    Ok(Two {
        world,
        client,
        _server: server,
    })
}

/// How many policies are in force.
fn in_force(status: &Value) -> usize {
    let policies = status["policies"].as_array();
    policies.map_or(0, |all| {
        all.iter()
            .filter(|one| one["inForce"] != Value::Null)
            .count()
    })
}

/// Waits until a peer's Export `web` is as wanted.
fn exports(peer: &Peer, holds: impl Fn(&Value) -> bool) -> Result<()> {
    let web = |one: &&Value| one["name"]["name"] == "web";
    peer.wait_status("the export is in force", SOON, |status| {
        let all = status["exports"].as_array();
        all.and_then(|all| all.iter().find(web)).is_some_and(&holds)
    })
    .map(drop)
}

impl Two {
    /// Imports `web`, and waits until it is in force with its sources in these states.
    fn import(&self, sources: [(&str, &str); 2]) -> Result<SocketAddr> {
        let address = self
            .world
            .import("web", 80, "static", &sources.map(|(peer, _)| peer))?;
        self.world
            .west
            .wait_status("the import is in force", SOON, |status| {
                let known = status["workloads"].as_array();
                let known =
                    known.is_some_and(|all| all.iter().any(|one| one["name"]["name"] == "client"));
                known
                    && sources.iter().enumerate().all(|(place, (_, state))| {
                        status["imports"][0]["sources"][place]["state"] == *state
                    })
            })?;
        Ok(address)
    }

    /// What the first connection tried before it was served by `north`.
    fn served_by_north(&self, address: SocketAddr) -> Result<Vec<String>> {
        let west = &self.world.west;
        failover::the_first_connection_is_served_by("north", west, &self.client, ("web", address))
    }

    /// East is tried within the first connection, to no avail, for this cause.
    fn fails_at_east(&self, cause: &str) -> Result<()> {
        let address = self.import([("east", "reachable"), ("north", "reachable")])?;
        let tried = self.served_by_north(address)?;
        ensure!(tried == [format!("east: {cause}")], "{tried:?}");
        Ok(())
    }
}

#[test]
fn the_export_is_missing_at_the_first() -> Result<()> {
    story("no-export", |scene| {
        two(scene)?.fails_at_east("remote: denied: no export shop/web")
    })
}

#[test]
fn the_first_denies() -> Result<()> {
    story("remote-denies", |scene| {
        let two = two(scene)?;
        let east = two.world.east();
        // It could serve, and is not asked to.
        let server = Server::named(east.host(), "east")?;
        let backend = SocketAddr::new(east.host().ipv4(), server.address.port());
        two.world.export(east, "web", 80, backend)?;
        exports(east, |web| web["backends"] == 1)?;
        east.delete("allow-all.yaml")?;
        east.wait_status("nobody is let in", SOON, |status| in_force(status) == 0)?;
        two.fails_at_east("remote: denied")?;
        ensure!(server.accepted()? == 0, "{:?}", server.events()?);
        Ok(())
    })
}

#[test]
fn the_process_of_the_first_was_killed() -> Result<()> {
    story("remote-killed", |scene| {
        let mut two = two(scene)?;
        let address = two.import([("east", "reachable"), ("north", "reachable")])?;
        two.world.exporters[0].kill9()?;
        two.world
            .west
            .wait_status("the session is gone", SOON, |status| {
                status["imports"][0]["sources"][0]["state"] == "unreachable"
            })?;
        // Where a dial of west's own has failed meanwhile, east comes last and is not tried at all.
        let tried = two.served_by_north(address)?;
        let cause = "east: cannot connect to 10.77.0.2:4443";
        ensure!(tried.iter().all(|one| one.starts_with(cause)), "{tried:?}");
        Ok(())
    })
}

#[test]
fn the_backend_of_the_first_refuses() -> Result<()> {
    story("backend-refuses", |scene| {
        let two = two(scene)?;
        let east = two.world.east();
        // Nothing listens at the discard port of a host that the scene has made.
        let backend = SocketAddr::new(east.host().ipv4(), 9);
        two.world.export(east, "web", 80, backend)?;
        exports(east, |web| web["backends"] == 1)?;
        two.fails_at_east("remote: backend-refused")
    })
}

#[test]
fn the_first_has_no_backend() -> Result<()> {
    story("backend-list-empty", |scene| {
        let two = two(scene)?;
        let east = two.world.east();
        east.apply(
            "web.yaml",
            &[
                service(NAMESPACE, "web", 80),
                endpoint_slice(NAMESPACE, "web", &[], 8080),
                export(NAMESPACE, "web", 80),
            ],
        )?;
        exports(east, |web| web["backends"] == 0)?;
        two.fails_at_east("remote: no-backend")
    })
}

#[test]
fn the_first_has_no_peer_object() -> Result<()> {
    story("no-peer-object", |scene| {
        let two = two(scene)?;
        let address = two.import([("nowhere", "no-peer"), ("north", "reachable")])?;
        // Such a source is none: it is not even tried.
        let tried = two.served_by_north(address)?;
        ensure!(tried.is_empty(), "{tried:?}");
        let west = &two.world.west;
        let import = import(
            NAMESPACE,
            "lost",
            80,
            &[source("nowhere", NAMESPACE, "web")],
        );
        west.apply("lost.yaml", &[import])?;
        let address = west.import_address(NAMESPACE, "lost", false)?;
        let (client, refused) = (&two.client, [Verdict::Refused]);
        wait_verdict("nothing is left", SOON, client, address, &refused)?;
        let patience = Duration::from_secs(5);
        wait_until("the cause is in the flow log", patience, || {
            let tried = failover::tried(&failover::first_flow(west, client, "lost")?);
            ensure!(tried == ["nowhere: no Peer object nowhere"], "{tried:?}");
            Ok(Some(()))
        })
    })
}
