//! Gateways of two clusters are called by strangers, have a certificate revoked, get new ones, lose the
//! link between them and are killed, while pods of one send to pods of the other: steered and by kube-proxy.

mod astray;
mod revoked;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clusterlink_tests::cluster::{AgentOptions, Node, PATIENCE, Pair, SYSTEM, Site};
use clusterlink_tests::report::Exchange;
use clusterlink_tests::stories::bodies::{Bodies, Flowing};
use clusterlink_tests::stories::transfers::Sender;
use clusterlink_tests::stories::{Clusters, identity};
use clusterlink_tests::traffic::Client;
use clusterlink_tests::wait::wait_for;
use clusterlink_tests::world::Verdict;
use clusterlink_tests::{Fabric, story};

#[test]
fn gateways_of_clusters_are_called_by_strangers_renewed_cut_off_and_killed() -> Result<()> {
    story("kubernetes-gateways", |scene| {
        let fabric = Fabric::create(scene, "fabric")?;
        let mut pair = Pair::new(scene, &fabric)?;
        pair.allow_all()?;
        let mut bare = Node::join(&pair.west.cluster, &scene.host("bare")?)?;
        bare.start_proxy(&pair.west.cluster)?;
        pair.wait_connected()?;
        let senders = [
            Sender::new(&Clusters::steered(&pair))?,
            Sender::new(&Clusters::by_the_service_path(&pair, &bare))?,
        ];
        let outside = scene.host("outside")?;
        step("strangers", || {
            let east = &pair.east;
            identity::strangers_are_refused_and_counted_and_harm_nobody(
                scene, &fabric, &outside, east, &senders,
            )
        })?;
        step("a revoked certificate", || {
            revoked::told(scene, &fabric, &pair, &bare)
        })?;
        step("new certificates", || {
            identity::certificates_roll_under_transfers_and_the_old_leaf_is_then_refused(
                scene,
                &fabric,
                &outside,
                [&pair.west, &pair.east],
                &senders,
                (20, 8),
            )
        })?;
        step("a link that is away", || away(&pair, &senders))?;
        step("killed gateways", || killed(&mut pair, &bare))?;
        step("a dead agent's pods", || {
            astray::told(scene, &mut pair, &mut bare)
        })
    })
}

/// The link of `east` is away until its Peer object says so: what is under way waits for it and
/// arrives whole, and nobody else waits.
fn away(pair: &Pair, senders: &[Sender]) -> Result<()> {
    /// How long a client may wait for the only source there is: it is dialled once more.
    const WAIT: Duration = Duration::from_secs(6);
    let Pair { east, west } = pair;
    let mut running = Vec::new();
    for sender in senders {
        running.push(sender.transfers(west, 4, 5)?);
    }
    east.node.host().cut_off()?;
    let cut = Instant::now();
    let mut refused = Vec::new();
    for sender in senders {
        refused.push(Client::to(sender.sink.address).start(&sender.client)?);
    }
    for mut client in refused {
        client.wait_success(WAIT)?;
        let all: Vec<Exchange> = client.reports()?;
        let seen = all.first().context("the client tells nothing")?;
        ensure!(Verdict::of(seen)? == Verdict::Reset, "{seen:?}");
        eprintln!("refused after {:.2} s", seen.total_us as f64 / 1e6);
    }
    // The sessions are still there, for what is under way.
    let (plane, peer) = (&west.cluster, "PeerReachable");
    let told = plane.wait_condition("peer", SYSTEM, "east", peer, "False")?;
    ensure!(told.to_string().contains("no sign of life"), "{told}");
    eprintln!("told after {:.1} s", cut.elapsed().as_secs_f32());
    for transfers in &mut running {
        transfers.run_still()?;
    }
    east.node.host().reconnect()?;
    let back = Instant::now();
    for transfers in running {
        transfers.arrive_whole(PATIENCE)?;
    }
    for sender in senders {
        wait_for("new connections are served", PATIENCE, || {
            sender.once().map(|()| true)
        })?;
    }
    eprintln!(
        "all is well {:.1} s after the link is back",
        back.elapsed().as_secs_f32()
    );
    plane.wait_condition("peer", SYSTEM, "east", peer, "True")?;
    Ok(())
}

/// The agent of either side is killed in the middle of bodies.
fn killed(pair: &mut Pair, bare: &Node) -> Result<()> {
    let bodies = [
        Bodies::new(&Clusters::steered(pair))?,
        Bodies::new(&Clusters::by_the_service_path(pair, bare))?,
    ];
    for side in ["east", "west"] {
        let mut flowing = Vec::new();
        for one in &bodies {
            flowing.extend(one.flow(&pair.west, 4)?);
        }
        let killed = if side == "east" {
            &mut pair.east
        } else {
            &mut pair.west
        };
        let Site { cluster, node } = killed;
        node.kill_agent()?;
        let reset = flowing.into_iter().try_for_each(Flowing::are_reset);
        reset.with_context(|| format!("the agent of {side} is killed"))?;
        node.run_agent(cluster, &AgentOptions::default())?;
        node.wait_ready()?;
    }
    Ok(())
}

fn step(what: &str, tell: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    tell().with_context(|| what.to_owned())?;
    eprintln!("{what}: {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}
