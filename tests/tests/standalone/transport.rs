//! Bytes go through the tunnel and arrive, for every kind of client.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::manifests;
use clusterlink_tests::report::ServerEvent;
use clusterlink_tests::stories::{Share, Stage as _, transport};
use clusterlink_tests::traffic::{Client, Decoys, Server};
use clusterlink_tests::wait::wait_until;
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, wait_verdict};
use clusterlink_tests::{Scene, story};
use nix::errno::Errno;

const GIBIBYTE: u64 = 1 << 30;

fn world(scene: &Scene) -> Result<World> {
    let world = World::new(scene, &["east"])?;
    world.allow_all()?;
    Ok(world)
}

#[test]
fn curl_reaches_an_http_server_of_another_peer_by_name() -> Result<()> {
    story("http-by-name", |scene| {
        transport::a_web_server_is_reached_by_name(&world(scene)?)
    })
}

#[test]
fn a_gibibyte_arrives_intact_each_way() -> Result<()> {
    story("gibibyte", |scene| {
        transport::bulk_arrives_intact_each_way(&world(scene)?, GIBIBYTE)
    })
}

#[test]
fn eight_transfers_at_once_arrive_intact() -> Result<()> {
    story("eight-at-once", |scene| {
        transport::eight_transfers_at_once_arrive_intact(&world(scene)?, 64 << 20)
    })
}

#[test]
fn every_family_of_client_is_served_and_sees_the_imported_address_as_its_peer() -> Result<()> {
    story("families", |scene| {
        transport::every_family_of_client_is_served(&world(scene)?)
    })
}

#[test]
fn a_connect_that_matches_no_import_is_untouched() -> Result<()> {
    story("untouched", |scene| {
        let world = world(scene)?;
        let client = world.workload("client", |pod| pod)?;
        let Share {
            server,
            address: import,
            ..
        } = world.share("web", "name", &["--name", "east"])?;
        wait_verdict(
            "the import works",
            SOON,
            &client,
            import,
            &[Verdict::Served],
        )?;
        for address in [world.east().host().ipv4(), world.east().host().ipv6()] {
            let direct = SocketAddr::new(address, server.address.port());
            let one = Client::to(direct).once(&client)?;
            ensure!(one.succeeded() && one.peer_name == Some(direct), "{one:?}");
            let seen = server
                .events()?
                .into_iter()
                .rev()
                .find_map(|event| match event {
                    ServerEvent::Accepted { remote, .. } => Some(remote),
                    _ => None,
                });
            let seen = seen.map(|seen| (seen.ip().to_canonical(), seen.port()));
            let own = one.local_name.map(|own| (own.ip(), own.port()));
            ensure!(
                seen == own,
                "the server saw {seen:?}, the client is {own:?}"
            );
        }
        let nobody = SocketAddr::new(world.east().host().ipv4(), 9);
        let one = Client::to(nobody).once(&client)?;
        ensure!(one.failed_with(Errno::ECONNREFUSED), "{one:?}");
        Ok(())
    })
}

#[test]
fn datagrams_to_an_imported_address_are_refused() -> Result<()> {
    story("datagrams", |scene| {
        transport::datagrams_to_an_imported_address_are_refused(&world(scene)?)
    })
}

/// Exports an ExternalName of `east`, with the port of its Service.
fn external(world: &World, service: &str, target: &str, port: u16) -> Result<SocketAddr> {
    let documents = [
        manifests::external_name(NAMESPACE, service, port, target),
        manifests::export(NAMESPACE, service, port),
    ];
    world.east().apply(&format!("{service}.yaml"), &documents)?;
    let what = format!("{service} is exported");
    world.east().wait_status(&what, SOON, |status| {
        let exports = status["exports"].as_array();
        exports.is_some_and(|all| all.iter().any(|one| one["name"]["name"] == service))
    })?;
    world.import(service, 80, "static", &["east"])
}

#[test]
fn a_name_outside_is_dialled_where_it_may_lead() -> Result<()> {
    story("external-name", |scene| {
        let world = world(scene)?;
        let client = world.workload("client", |pod| pod)?;
        let east = world.east().host();
        let server = Server::named(east, "outside")?;
        let named = external(&world, "named", "localhost", server.address.port())?;
        wait_verdict(
            "the name is dialled",
            SOON,
            &client,
            named,
            &[Verdict::Served],
        )?;
        let one = Client::to(named).once(&client)?;
        ensure!(one.text == "outside", "{one:?}");

        // What hands out credentials in a cloud listens there, and must not be lent the node's rights.
        east.ip("address add 169.254.169.254/32 dev lo")?;
        let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
        let decoys = Decoys::start(east, &[metadata])?;
        let direct = Client::to(metadata).once(east)?;
        ensure!(direct.connect_errno.is_none(), "nobody listens: {direct:?}");
        let before = decoys.events()?;
        // As an address, and as a name that only the resolver makes one of.
        for (service, target) in [("literal", "169.254.169.254"), ("spelled", "0xa9fea9fe")] {
            let address = external(&world, service, target, 80)?;
            wait_verdict("it is refused", SOON, &client, address, &[Verdict::Reset])?;
            wait_until("the refusal is in the flow log", SOON, || {
                let flows = world.east().flows()?;
                let recent = flows["recent"].as_array().context("no flows")?;
                let told = recent.iter().any(|flow| {
                    let detail = flow["detail"].as_str().unwrap_or_default();
                    flow["export"]["name"] == service
                        && flow["reason"] == "no-source"
                        && detail.contains("169.254.169.254 may not be a backend: it is link-local")
                });
                if told {
                    Ok(Some(()))
                } else {
                    bail!("{flows:#}")
                }
            })?;
        }
        ensure!(
            decoys.events()? == before,
            "it was reached: {:?}",
            decoys.events()?
        );
        Ok(())
    })
}
