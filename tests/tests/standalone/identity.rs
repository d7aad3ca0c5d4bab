//! Who is let in: certificates, their roll under load, and their revocation.

use std::time::Duration;

use anyhow::{Result, ensure};
use clusterlink_tests::stories::identity::{self, refused};
use clusterlink_tests::stories::transfers::Sender;
use clusterlink_tests::stories::{Stage as _, revocation};
use clusterlink_tests::wait::wait_for;
use clusterlink_tests::world::World;
use clusterlink_tests::{Fabric, Peer, Scene, manifests, story};

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
        let world = world(scene)?;
        let callers = vec![(
            world.workload("client", |pod| pod)?,
            world.share("echo", "echo", &[])?,
        )];
        revocation::a_revocation_cuts_its_peer_within_a_second_and_no_other(
            scene,
            &world.fabric,
            [&world.west, world.east()],
            callers,
        )
    })
}
