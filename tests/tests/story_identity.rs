//! Who is let in: certificates, their roll under load, and their revocation.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clusterlink_tests::pki::{Authority, Terms, put, put_leaf};
use clusterlink_tests::report::Exchange;
use clusterlink_tests::stories::identity::{self, refused};
use clusterlink_tests::stories::transfers::Sender;
use clusterlink_tests::traffic::{Client, Server, any};
use clusterlink_tests::wait::wait_for;
use clusterlink_tests::world::{NAMESPACE, SOON, World};
use clusterlink_tests::{Fabric, Peer, PeerOptions, Scene, manifests, story};

const PATIENCE: Duration = Duration::from_secs(10);

fn world(scene: &Scene) -> Result<World> {
    let world = World::new(scene, &["east"])?;
    world.allow_all()?;
    Ok(world)
}

#[test]
fn strangers_are_refused_and_counted_and_harm_nobody() -> Result<()> {
    story("identity-strangers", |scene| {
        let world = world(scene)?;
        let outside = scene.host("outside")?;
        let senders = [Sender::new(&world)?];
        identity::strangers_are_refused_and_counted_and_harm_nobody(
            scene,
            &world.fabric,
            &outside,
            world.east(),
            &senders,
        )
    })
}

#[test]
fn a_gateway_of_another_name_or_fabric_is_not_believed() -> Result<()> {
    story("identity-called", |scene| {
        let world = world(scene)?;
        let sender = Sender::new(&world)?;
        let west = &world.west;
        let foreign = Fabric::create(scene, "foreign")?;
        let impostor = Peer::start(&scene.host("impostor")?, &foreign)?;
        let known = manifests::peer("east", &[world.east().address()]);
        // Each name leads to a gateway that has another one, or an authority of its own.
        let rows = [
            ("elsewhere", world.east().address(), "name_mismatch"),
            ("impostor", impostor.address(), "unknown_issuer"),
        ];
        for (name, address, reason) in rows {
            ensure!(
                refused(west, true, reason)? == 0,
                "refused for {reason} before"
            );
            let peers = [known.clone(), manifests::peer(name, &[address])];
            west.apply("peers.yaml", &peers)?;
            wait_for(
                &format!("west refuses {name} for {reason}"),
                PATIENCE,
                || Ok(refused(west, true, reason)? > 0),
            )?;
            let status =
                west.wait_status("the peer is unreachable, and why", PATIENCE, |status| {
                    status["peers"].as_array().is_some_and(|peers| {
                        peers
                            .iter()
                            .any(|peer| peer["name"] == name && peer["reachable"] == false)
                    })
                })?;
            eprintln!("{name}: {}", status["peers"]);
            ensure!(
                status["peers"].to_string().contains("certificate"),
                "the status does not say why: {}",
                status["peers"]
            );
        }
        sender.once()
    })
}

#[test]
fn leaf_and_authority_roll_under_a_hundred_transfers_and_the_old_leaf_is_then_refused() -> Result<()>
{
    story("identity-roll", |scene| {
        let world = world(scene)?;
        let outside = scene.host("outside")?;
        let senders = [Sender::new(&world)?];
        identity::certificates_roll_under_transfers_and_the_old_leaf_is_then_refused(
            scene,
            &world.fabric,
            &outside,
            [&world.west, world.east()],
            &senders,
            (100, 6),
        )
    })
}

#[test]
fn a_revocation_list_cuts_its_peer_within_a_second_and_no_other() -> Result<()> {
    story("identity-revoked", |scene| {
        let fabric = Fabric::create(scene, "fabric")?;
        let authority = Authority::of(&fabric)?;
        let mut callers = Vec::new();
        for (name, serial) in [("west", 11), ("north", 12)] {
            let mut peer = Peer::prepare(&scene.host(name)?, &fabric, PeerOptions::default())?;
            let terms = Terms {
                names: &[name],
                serial,
                expired: false,
            };
            put_leaf(&peer.certs(), &authority.leaf(terms)?)?;
            peer.run()?;
            callers.push(peer);
        }
        let east = Peer::start(&scene.host("east")?, &fabric)?;
        let server = Server::start(east.host(), "trickle", any(0), &[])?;
        let backend = SocketAddr::new(east.host().ipv4(), server.address.port());
        east.apply(
            "web.yaml",
            &manifests::shared(NAMESPACE, "web", 80, backend),
        )?;
        east.apply("allow.yaml", &[manifests::allow_all(NAMESPACE)])?;
        let mut live = Vec::new();
        for peer in &callers {
            let source = manifests::source("east", NAMESPACE, "web");
            peer.apply(
                "all.yaml",
                &[
                    manifests::allow_all(NAMESPACE),
                    manifests::peer("east", &[east.address()]),
                    manifests::import(NAMESPACE, "web", 80, &[source]),
                ],
            )?;
            peer.wait_connected("east")?;
            let address = peer.import_address(NAMESPACE, "web", false)?;
            let some = Client::to(address).set("--receive", 1).flag("--keep-open");
            wait_for("the import works", SOON, || {
                Ok(some.once(peer.host())?.received.bytes > 0)
            })?;
            live.push(Client::to(address).flag("--keep-open").start(peer.host())?);
            wait_for("bytes flow", PATIENCE, || {
                let flows = peer.flows()?;
                Ok(flows["live"].as_array().is_some_and(|live| {
                    live.iter()
                        .any(|one| one["bytesReceived"].as_u64() > Some(0))
                }))
            })?;
        }
        let start = Instant::now();
        put(&east.certs(), "crl.pem", &authority.revocation_list(11)?)?;
        let [cut, stays] = live.as_mut_slice() else {
            bail!("two callers")
        };
        cut.wait(SOON).context("the revoked peer's client")?;
        let took = start.elapsed();
        let ends: Vec<Exchange> = cut.reports()?;
        ensure!(
            ends.iter().all(|end| end.receive_end.is_reset()) && ends.len() == 1,
            "{ends:?}"
        );
        eprintln!(
            "a revocation cut its peer after {:.2} s",
            took.as_secs_f32()
        );
        wait_for("the revoked peer's next call is refused", PATIENCE, || {
            Ok(refused(&east, false, "revoked")? > 0)
        })?;
        ensure!(stays.ended()?.is_none(), "another peer's client was cut");
        stays.kill9()
    })
}
