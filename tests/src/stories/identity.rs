//! Who is let in by the exporting side's gateway, and certificates that roll under load.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::Side;
use super::transfers::Sender;
use crate::caller::{Answer, Caller, garbage};
use crate::fabric::Fabric;
use crate::host::Host;
use crate::pki::{Authority, Leaf, Terms};
use crate::scene::Scene;
use crate::wait::wait_until;

const PROTOCOL: &str = "clusterlink/1";

const PATIENCE: Duration = Duration::from_secs(10);

/// The number of handshakes that a gateway has refused for a reason, from its metrics.
pub fn refused(side: &dyn Side, dialled: bool, reason: &str) -> Result<u64> {
    let direction = if dialled { "egress" } else { "ingress" };
    let url = "http://127.0.0.1:9477/metrics";
    let text = side.host().run("curl", &["--silent", "--fail", url])?;
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

/// Waits until exactly one more handshake of a caller was refused for the reason.
fn counted(side: &dyn Side, reason: &str, before: u64) -> Result<()> {
    let what = format!("{} counts a refusal for {reason}", side.peer());
    wait_until(&what, PATIENCE, || {
        let now = refused(side, false, reason)?;
        if now == before + 1 {
            Ok(Some(()))
        } else {
            bail!("{now} after {before}")
        }
    })
}

/// A certificate that its authority issues to somebody who is no peer.
fn leaf(authority: &Authority, names: &[&str], expired: bool) -> Result<Leaf> {
    authority.leaf(Terms { names, expired })
}

/// Callers from outside without a good certificate are refused and counted, and so is garbage; those
/// who belong here go on all the time, on the sessions that they have and on new connections.
pub fn strangers_are_refused_and_counted_and_harm_nobody(
    scene: &Scene,
    fabric: &Fabric,
    outside: &Host,
    east: &dyn Side,
    senders: &[Sender],
) -> Result<()> {
    let ours = Authority::of(fabric)?;
    let foreign = Authority::of(&Fabric::create(scene, "foreign")?)?;
    let busy: Vec<_> = senders.iter().map(Sender::busy).collect::<Result<_>>()?;

    let good = leaf(&ours, &["outside"], false)?;
    let alien = leaf(&foreign, &["outside"], false)?;
    let expired = leaf(&ours, &["outside"], true)?;
    let of_two = leaf(&ours, &["outside", "west"], false)?;
    let of_none = leaf(&ours, &[], false)?;
    let rows = [
        (
            "of another fabric",
            Some(&alien),
            PROTOCOL,
            "unknown_issuer",
        ),
        ("that expired", Some(&expired), PROTOCOL, "expired"),
        ("of two names", Some(&of_two), PROTOCOL, "names"),
        ("of no name", Some(&of_none), PROTOCOL, "names"),
        ("that is missing", None, PROTOCOL, "no_certificate"),
        ("for another protocol", Some(&good), "h2", "alpn"),
    ];
    for (what, leaf, protocol, reason) in rows {
        let before = refused(east, false, reason)?;
        let caller = Caller::new(leaf, &[ours.pem()], protocol)?;
        let answer = caller.call(outside, east.address(), "east")?;
        ensure!(
            matches!(answer, Answer::Refused(_)),
            "a certificate {what}: {answer:?}"
        );
        counted(east, reason, before).with_context(|| format!("a certificate {what}"))?;
        eprintln!("a certificate {what}: {answer:?}");
    }
    // The same caller with a good certificate is let in: it was the certificate.
    let caller = Caller::new(Some(&good), &[ours.pem()], PROTOCOL)?;
    let answer = caller.call(outside, east.address(), "east")?;
    ensure!(answer == Answer::LetIn { resumed: false }, "{answer:?}");

    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: east\r\n\r\n"[..],
        &[0; 70_000],
        &[0x16, 3, 1, 0xff, 0xff],
    ] {
        let before = refused(east, false, "protocol")?;
        garbage(outside, east.address(), bytes)?;
        counted(east, "protocol", before).context("garbage on the port")?;
    }
    for busy in busy {
        let served = busy.end()?;
        eprintln!("{served} transfers of others ran beside it");
        ensure!(served > 50, "only {served} transfers ran beside it");
    }
    Ok(())
}

/// Leaf and authority of both sides are replaced while so many transfers of each sender run, for so
/// many seconds, and none is lost; afterwards the authority before is trusted no more, not by a
/// ticket either.
pub fn certificates_roll_under_transfers_and_the_old_leaf_is_then_refused(
    scene: &Scene,
    fabric: &Fabric,
    outside: &Host,
    [west, east]: [&dyn Side; 2],
    senders: &[Sender],
    (count, seconds): (u64, u64),
) -> Result<()> {
    let next = Fabric::create(scene, "next")?;
    let (old, fresh) = (Authority::of(fabric)?, Authority::of(&next)?);
    let leaf_old = leaf(&old, &["outside"], false)?;
    let leaf_new = leaf(&fresh, &["outside"], false)?;
    let caller = Caller::new(Some(&leaf_old), &[old.pem(), fresh.pem()], PROTOCOL)?;
    let call = |caller: &Caller| caller.call(outside, east.address(), "east");
    // Its ticket is good as long as nothing changes.
    let first = call(&caller)?;
    ensure!(first == Answer::LetIn { resumed: false }, "{first:?}");
    let second = call(&caller)?;
    ensure!(second == Answer::LetIn { resumed: true }, "{second:?}");

    let mut running = Vec::new();
    for sender in senders {
        running.push(sender.transfers(west, count, seconds)?);
    }
    roll([west, east], &old, &fresh, &next)?;
    for transfers in &mut running {
        transfers.run_still()?;
    }

    let before = refused(east, false, "unknown_issuer")?;
    let third = call(&caller)?;
    ensure!(
        matches!(third, Answer::Refused(_)),
        "the old leaf, by its ticket: {third:?}"
    );
    counted(east, "unknown_issuer", before)?;
    let without_ticket = Caller::new(Some(&leaf_old), &[fresh.pem()], PROTOCOL)?;
    let fourth = call(&without_ticket)?;
    ensure!(
        matches!(fourth, Answer::Refused(_)),
        "the old leaf in a full handshake: {fourth:?}"
    );
    counted(east, "unknown_issuer", before + 1)?;
    let fifth = call(&Caller::new(Some(&leaf_new), &[fresh.pem()], PROTOCOL)?)?;
    ensure!(
        fifth == Answer::LetIn { resumed: false },
        "the new leaf: {fifth:?}"
    );

    for transfers in running {
        transfers.arrive_whole(Duration::from_secs(60))?;
    }
    senders.iter().try_for_each(Sender::once)
}

/// Both authorities are trusted first, then the leaves are those of the new one, then the old one goes.
fn roll(sides: [&dyn Side; 2], old: &Authority, fresh: &Authority, next: &Fabric) -> Result<()> {
    let both = format!("{}{}", old.pem(), fresh.pem());
    renewed(sides, |side| side.renew(&[("ca.pem", &both)]))?;
    renewed(sides, |side| {
        let issued = next.peer_cert(side.peer())?;
        let read = |file: &str| fs::read_to_string(issued.join(file));
        let (cert, key) = (read("cert.pem")?, read("key.pem")?);
        side.renew(&[("cert.pem", &cert), ("key.pem", &key)])
    })?;
    renewed(sides, |side| side.renew(&[("ca.pem", fresh.pem())]))
}

/// Renews files of both sides, and waits until both have taken them over.
fn renewed(sides: [&dyn Side; 2], renew: impl Fn(&dyn Side) -> Result<()>) -> Result<()> {
    let generation = |side: &dyn Side| {
        let status = side.status()?;
        let generation = status["peer"]["certificate"]["generation"].as_u64();
        generation.context("the status does not tell of the certificate")
    };
    let before = [generation(sides[0])?, generation(sides[1])?];
    sides.into_iter().try_for_each(&renew)?;
    for (side, before) in sides.into_iter().zip(before) {
        let what = format!("{} has loaded its new certificates", side.peer());
        wait_until(&what, PATIENCE, || {
            Ok((generation(side)? > before).then_some(()))
        })?;
    }
    Ok(())
}
