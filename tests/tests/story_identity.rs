//! Who is let in: certificates, their roll under load, and their revocation.
#![forbid(unsafe_code)]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clusterlink_tests::caller::{Answer, Caller, garbage};
use clusterlink_tests::pki::{Authority, Leaf, Terms, put, put_leaf};
use clusterlink_tests::report::{Amount, Exchange};
use clusterlink_tests::traffic::{Client, Server, any};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, wait_verdict};
use clusterlink_tests::{Fabric, Host, Peer, PeerOptions, Pod, Scene, manifests, story};

const PROTOCOL: &str = "clusterlink/1";

const PATIENCE: Duration = Duration::from_secs(10);

/// A world with one shared sink, whose answers tell what it received.
struct Stage {
    world: World,
    client: Pod,
    address: SocketAddr,
    _server: Server,
}

fn stage(scene: &Scene) -> Result<Stage> {
    let world = World::new(scene, &["east"])?;
    world.allow_all()?;
    let client = world.workload("client", |pod| pod)?;
    let server = Server::start(world.east().host(), "sink", any(0), &[])?;
    let backend = SocketAddr::new(world.east().host().ipv4(), server.address.port());
    world.export(world.east(), "web", 80, backend)?;
    let address = world.import("web", 80, "static", &["east"])?;
    wait_verdict("it works", SOON, &client, address, &[Verdict::Served])?;
    Ok(Stage {
        world,
        client,
        address,
        _server: server,
    })
}

/// Fails unless every transfer arrived whole, by the checksum that the sink answered.
fn whole(all: &[Exchange]) -> Result<()> {
    for one in all {
        ensure!(one.succeeded(), "a transfer failed: {one:?}");
        let answer: Amount = serde_json::from_str(&one.text)
            .with_context(|| format!("the sink answered {:?}", one.text))?;
        ensure!(answer == one.sent, "{answer:?} arrived of {:?}", one.sent);
    }
    Ok(())
}

/// The number of handshakes that a gateway has refused for a reason, from its metrics.
fn refused(peer: &Peer, dialled: bool, reason: &str) -> Result<u64> {
    let direction = if dialled { "egress" } else { "ingress" };
    let url = "http://127.0.0.1:9477/metrics";
    let text = peer.host().run("curl", &["--silent", "--fail", url])?;
    let wanted = [
        format!("direction=\"{direction}\""),
        format!("reason=\"{reason}\""),
    ];
    let line = text.lines().find(|line| {
        line.starts_with("clusterlink_gateway_handshakes_refused_total{")
            && wanted.iter().all(|label| line.contains(label))
    });
    line.map_or(Ok(0), |line| {
        let value = line.rsplit(' ').next().unwrap_or_default();
        value.parse().with_context(|| format!("metrics say {line}"))
    })
}

/// Waits until exactly one more handshake was refused for the reason.
fn counted(peer: &Peer, dialled: bool, reason: &str, before: u64) -> Result<()> {
    let what = format!("{} counts a refusal for {reason}", peer.name());
    wait_until(&what, PATIENCE, || {
        let now = refused(peer, dialled, reason)?;
        if now == before + 1 {
            Ok(Some(()))
        } else {
            bail!("{now} after {before}")
        }
    })
}

#[test]
fn strangers_are_refused_and_counted_and_harm_nobody() -> Result<()> {
    story("identity-strangers", |scene| {
        let stage = stage(scene)?;
        let east = stage.world.east();
        let outside = scene.host("outside")?;
        let ours = Authority::of(&stage.world.fabric)?;
        let foreign = Authority::of(&Fabric::create(scene, "foreign")?)?;
        // Those who belong here go on all the time, on the sessions that they have and on new ones.
        let mut busy = Client::to(stage.address)
            .send(20_000)
            .set("--count", 0)
            .parallel(4)
            .set("--interval-ms", 5)
            .start(&stage.client)?;

        let leaf = |authority: &Authority, names: &[&str], expired| {
            authority.leaf(Terms {
                names,
                serial: 7,
                expired,
            })
        };
        let good = leaf(&ours, &["outside"], false)?;
        let rows = [
            (
                "of another fabric",
                Some(leaf(&foreign, &["outside"], false)?),
                PROTOCOL,
                "unknown_issuer",
            ),
            (
                "that expired",
                Some(leaf(&ours, &["outside"], true)?),
                PROTOCOL,
                "expired",
            ),
            (
                "of two names",
                Some(leaf(&ours, &["outside", "west"], false)?),
                PROTOCOL,
                "names",
            ),
            (
                "of no name",
                Some(leaf(&ours, &[], false)?),
                PROTOCOL,
                "names",
            ),
            ("that is missing", None, PROTOCOL, "no_certificate"),
            ("for another protocol", Some(good.clone()), "h2", "alpn"),
        ];
        for (what, leaf, protocol, reason) in rows {
            let before = refused(east, false, reason)?;
            let caller = Caller::new(leaf.as_ref(), &[ours.pem()], protocol)?;
            let answer = caller.call(&outside, east.address(), "east")?;
            ensure!(
                matches!(answer, Answer::Refused(_)),
                "a certificate {what}: {answer:?}"
            );
            counted(east, false, reason, before)
                .with_context(|| format!("a certificate {what}"))?;
            eprintln!("a certificate {what}: {answer:?}");
        }
        // The same caller with a good certificate is let in: it was the certificate.
        let caller = Caller::new(Some(&good), &[ours.pem()], PROTOCOL)?;
        let answer = caller.call(&outside, east.address(), "east")?;
        ensure!(answer == Answer::LetIn { resumed: false }, "{answer:?}");

        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: east\r\n\r\n"[..],
            &[0; 70_000],
            &[0x16, 3, 1, 0xff, 0xff],
        ] {
            let before = refused(east, false, "protocol")?;
            garbage(&outside, east.address(), bytes)?;
            counted(east, false, "protocol", before).context("garbage on the port")?;
        }

        let lost = busy.ended()?;
        ensure!(lost.is_none(), "the others' client ended: {lost:?}");
        busy.kill9()?;
        let served: Vec<Exchange> = busy.reports()?;
        ensure!(
            served.len() > 50,
            "only {} transfers ran beside",
            served.len()
        );
        whole(&served)?;
        eprintln!("{} transfers of others ran beside it", served.len());
        Ok(())
    })
}

#[test]
fn a_gateway_of_another_name_or_fabric_is_not_believed() -> Result<()> {
    story("identity-called", |scene| {
        let stage = stage(scene)?;
        let west = &stage.world.west;
        let foreign = Fabric::create(scene, "foreign")?;
        let impostor = Peer::start(&scene.host("impostor")?, &foreign)?;
        let known = manifests::peer("east", &[stage.world.east().address()]);
        // Each name leads to a gateway that has another one, or an authority of its own.
        let rows = [
            ("elsewhere", stage.world.east().address(), "name_mismatch"),
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
        let seen = Client::to(stage.address).send(10_000).once(&stage.client)?;
        whole(&[seen])
    })
}

/// Certificate directories of all peers.
fn directories(world: &World) -> [PathBuf; 2] {
    [world.west.certs(), world.east().certs()]
}

/// Waits until both peers have loaded their files so often.
fn loaded(world: &World, generation: u64) -> Result<()> {
    for peer in [&world.west, world.east()] {
        peer.wait_status("new certificates are in force", PATIENCE, |status| {
            status["peer"]["certificate"]["generation"].as_u64() >= Some(generation)
        })?;
    }
    Ok(())
}

#[test]
fn leaf_and_authority_roll_under_a_hundred_transfers_and_the_old_leaf_is_then_refused() -> Result<()>
{
    story("identity-roll", |scene| {
        let stage = stage(scene)?;
        let world = &stage.world;
        let outside: Host = scene.host("outside")?;
        let (old, new) = (
            Authority::of(&world.fabric)?,
            Fabric::create(scene, "next")?,
        );
        let fresh = Authority::of(&new)?;
        let leaf = |authority: &Authority| {
            authority.leaf(Terms {
                names: &["outside"],
                serial: 9,
                expired: false,
            })
        };
        let (leaf_old, leaf_new): (Leaf, Leaf) = (leaf(&old)?, leaf(&fresh)?);
        let caller = Caller::new(Some(&leaf_old), &[old.pem(), fresh.pem()], PROTOCOL)?;
        let call = |caller: &Caller| caller.call(&outside, world.east().address(), "east");
        // Its ticket is good as long as nothing changes.
        let first = call(&caller)?;
        ensure!(first == Answer::LetIn { resumed: false }, "{first:?}");
        let second = call(&caller)?;
        ensure!(second == Answer::LetIn { resumed: true }, "{second:?}");

        let mut transfers = Client::to(stage.address)
            .send(300_000)
            .set("--chunk", 5_000)
            .set("--pace-ms", 100)
            .count(100)
            .parallel(100)
            .start(&stage.client)?;
        wait_for("a hundred transfers run", PATIENCE, || {
            let flows = world.west.flows()?;
            Ok(flows["live"]
                .as_array()
                .is_some_and(|live| live.len() == 100))
        })?;
        let both = format!("{}{}", old.pem(), fresh.pem());
        for directory in directories(world) {
            put(&directory, "ca.pem", &both)?;
        }
        loaded(world, 2)?;
        for (peer, directory) in ["west", "east"].into_iter().zip(directories(world)) {
            let issued = new.peer_cert(peer)?;
            let read = |file: &str| fs::read_to_string(issued.join(file));
            let leaf = Leaf {
                cert: read("cert.pem")?,
                key: read("key.pem")?,
            };
            put_leaf(&directory, &leaf)?;
        }
        loaded(world, 3)?;
        for directory in directories(world) {
            put(&directory, "ca.pem", fresh.pem())?;
        }
        loaded(world, 4)?;
        ensure!(transfers.ended()?.is_none(), "the transfers were too short");

        let before = refused(world.east(), false, "unknown_issuer")?;
        let third = call(&caller)?;
        ensure!(
            matches!(third, Answer::Refused(_)),
            "the old leaf, by its ticket: {third:?}"
        );
        counted(world.east(), false, "unknown_issuer", before)?;
        let without_ticket = Caller::new(Some(&leaf_old), &[fresh.pem()], PROTOCOL)?;
        let fourth = call(&without_ticket)?;
        ensure!(
            matches!(fourth, Answer::Refused(_)),
            "the old leaf in a full handshake: {fourth:?}"
        );
        counted(world.east(), false, "unknown_issuer", before + 1)?;
        let fifth = call(&Caller::new(Some(&leaf_new), &[fresh.pem()], PROTOCOL)?)?;
        ensure!(
            fifth == Answer::LetIn { resumed: false },
            "the new leaf: {fifth:?}"
        );

        transfers.wait(Duration::from_secs(60))?;
        let all: Vec<Exchange> = transfers.reports()?;
        ensure!(all.len() == 100, "{} transfers reported", all.len());
        whole(&all)?;
        let after = Client::to(stage.address).send(10_000).once(&stage.client)?;
        whole(&[after])
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
