//! The link of a source is away for longer than TCP bears with, while everybody else goes on: new
//! connections go to the next source, what is under way ends with resets, and all is well afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clusterlink_tests::cluster::{PATIENCE, SYSTEM, imported};
use clusterlink_tests::stories::bodies::Bodies;
use clusterlink_tests::stories::outage::{self, the_next_source_serves};
use clusterlink_tests::stories::transfers::whole;
use clusterlink_tests::stories::{Share, Side};
use clusterlink_tests::traffic::{Client, Server, any};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::world::NAMESPACE;
use serde_json::Value;

use crate::sources::{Clients, Fleet, SOON, exports};

/// What `south` exports and, in its place, `north`.
const SPARE: &str = "spare";

/// How many bodies go each way on each path.
const BODIES: u64 = 2;

/// How long the new connections of a path are looked at.
const LOOKED_AT: Duration = Duration::from_millis(1500);

/// By when the last end has to be seen: TCP gives up after 30 s.
const LOST: Duration = Duration::from_secs(45);

pub(crate) fn told(
    fleet: &Fleet,
    clients: &Clients,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (south, west) = (&fleet.south, &fleet.pair.west);
    let server = Server::named(south.host(), "south")?;
    exports(south, SPARE, &server)?;
    exports(&fleet.north, SPARE, &fleet.north_server)?;
    west.import(SPARE, "static", &["south", "north"])?;
    let spare = west.cluster.import_address(NAMESPACE, SPARE)?;
    clients.hear("before an outage", PATIENCE, spare, "south")?;
    let shares = shared(fleet)?;
    let sinks = shares.each_ref().map(|[_, up]| up.address);
    let mut bodies = Vec::new();
    for ((_, client), shares) in clients.0.iter().zip(shares) {
        bodies.push(Bodies::slow(client.clone(), shares));
    }
    let mut flowing = Vec::new();
    for bodies in &bodies {
        flowing.extend(bodies.flow(west, BODIES)?);
    }

    south.host().cut_off()?;
    let cut = Instant::now();
    for ((path, client), until) in clients.0.iter().zip([LOOKED_AT, 2 * LOOKED_AT]) {
        the_next_source_serves("north", client, spare, (cut, until)).context(*path)?;
    }
    meanwhile()?;
    let went_on = cut.elapsed();
    let mut ends = Vec::new();
    for bodies in flowing {
        let left = LOST.saturating_sub(cut.elapsed()).max(SOON);
        ends.extend(bodies.are_reset_within(left)?);
    }
    let after: Vec<_> = ends.iter().map(|end| end.duration_since(cut)).collect();
    eprintln!("others went on for {went_on:.1?}, bodies were reset after {after:.1?}");
    let borne = after.iter().all(|after| *after > outage::PATIENCE / 2);
    ensure!(borne, "given up too early");
    lost(west, "south")?;
    lost(south, "west")?;
    let condition = "PeerReachable";
    let peer = (west.cluster).wait_condition("peer", SYSTEM, "south", condition, "False")?;
    ensure!(
        peer["status"]["conditions"][0]["reason"] == "Unreachable",
        "{}",
        peer["status"]
    );

    south.host().reconnect()?;
    let back = Instant::now();
    for ((_, client), sink) in clients.0.iter().zip(sinks) {
        wait_for("new transfers arrive", PATIENCE, || {
            let one = Client::to(sink).send(10_000).once(client)?;
            whole(&[one]).map(|()| true)
        })?;
    }
    clients.hear("after an outage", PATIENCE, spare, "south")?;
    (west.cluster).wait_condition("peer", SYSTEM, "south", condition, "True")?;
    eprintln!("all is well {:.1?} after the link is back", back.elapsed());
    Ok(())
}

/// What `south` alone exports: for each path a server that sends and one that receives.
fn shared(fleet: &Fleet) -> Result<[[Share; 2]; 2]> {
    let names = ["steered", "bare"].map(|path| ["down", "up"].map(|way| format!("{path}-{way}")));
    let west = &fleet.pair.west;
    let import = |name: &String| imported(name, &["south"]);
    let imports: Vec<Value> = names.as_flattened().iter().map(import).collect();
    west.apply("bodies.yaml", &imports)?;
    let share = |name: &str, mode: &str| -> Result<Share> {
        let server = Server::start(fleet.south.host(), mode, any(0), &[])?;
        exports(&fleet.south, name, &server)?;
        Ok(Share {
            name: name.to_owned(),
            server,
            address: west.cluster.import_address(NAMESPACE, name)?,
            ipv6: west.cluster.import_address_of(NAMESPACE, name, true)?,
        })
    };
    let both = |[down, up]: &[String; 2]| -> Result<[Share; 2]> {
        Ok([share(down, "trickle")?, share(up, "sink")?])
    };
    let [steered, bare] = &names;
    Ok([both(steered)?, both(bare)?])
}

/// Waits until the flow log of a side says of all bodies that the session with the other was lost.
fn lost(side: &dyn Side, other: &str) -> Result<()> {
    let what = format!("the flow log of {} tells of the lost session", side.peer());
    wait_until(&what, PATIENCE, || {
        let flows = side.flows()?;
        let recent = flows["recent"].as_array().context("no recent flows")?;
        let lost = |flow: &&Value| flow["peer"] == other && flow["reason"] == "session-lost";
        let count = recent.iter().filter(lost).count() as u64;
        ensure!(count == BODIES * 4, "it does so of {count}");
        Ok(Some(()))
    })
}
