//! Who may reach what, decided by the manifests of both sides.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::manifests::{allow_all, everything, privileged_policy, with_label};
use clusterlink_tests::stories::{Share, Stage as _, policy};
use clusterlink_tests::traffic::Client;
use clusterlink_tests::wait::wait_until;
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, verdict, wait_verdict};
use clusterlink_tests::{PeerOptions, Pod, Scene, story};
use serde_json::Value;

/// A world without policies, with one shared service.
fn world(scene: &Scene) -> Result<(World, Share)> {
    let options = PeerOptions {
        labels: vec!["zone=north".to_owned()],
        ..PeerOptions::default()
    };
    let world = World::with(scene, &["east"], &options)?;
    let web = world.share("web", "name", &["--name", "east"])?;
    Ok((world, web))
}

#[test]
fn the_first_connect_without_a_policy_says_connection_refused() -> Result<()> {
    story("default-deny", |scene| {
        let (world, web) = world(scene)?;
        let (server, address) = (&web.server, web.address);
        let client = world.workload("client", |pod| pod)?;
        let workloads = |status: &Value| status.pointer("/imports/0").is_some();
        world
            .west
            .wait_status("the import is known", SOON, workloads)?;
        let first = verdict(&client, address)?;
        ensure!(first == Verdict::Refused, "the first connect saw {first:?}");
        ensure!(server.accepted()? == 0, "the backend was reached");
        Ok(())
    })
}

#[test]
fn both_sides_have_to_allow() -> Result<()> {
    story("both-sides", |scene| {
        let (world, web) = world(scene)?;
        policy::both_sides_have_to_allow(&world, web.address)
    })
}

#[test]
fn each_tier_beats_the_next() -> Result<()> {
    story("tiers", |scene| {
        let (world, web) = world(scene)?;
        policy::each_tier_beats_the_next(&world, web.address)
    })
}

#[test]
fn a_deny_selects_by_every_attribute_of_the_client() -> Result<()> {
    story("attributes", |scene| {
        let (world, web) = world(scene)?;
        policy::a_deny_selects_by_every_attribute_of_the_client(&world, web.address)
    })
}

#[test]
fn two_workloads_of_one_host_have_verdicts_of_their_own() -> Result<()> {
    story("two-workloads", |scene| {
        let (world, web) = world(scene)?;
        policy::two_workloads_of_one_host_have_verdicts_of_their_own(&world, web.address)
    })
}

#[test]
fn the_hosts_own_process_has_the_peers_attributes_only() -> Result<()> {
    story("host-process", |scene| {
        let (world, web) = world(scene)?;
        let host = world.west.host();
        policy::the_hosts_own_process_has_the_peers_attributes_only(&world, host, web.address)
    })
}

#[test]
fn a_client_that_nobody_knows_is_refused_even_where_everything_is_allowed() -> Result<()> {
    story("unknown", |scene| {
        let (world, web) = world(scene)?;
        policy::a_client_that_nobody_knows_is_refused(&world, &web)
    })
}

fn recent_flows(world: &World) -> Result<Vec<Value>> {
    let flows = world.west.flows()?;
    let recent = flows["recent"].as_array().context("no recent flows")?;
    Ok(recent.clone())
}

#[test]
fn a_refusal_is_explained_by_the_policy_that_held_then() -> Result<()> {
    const ROUNDS: usize = 8;
    story("explained", |scene| {
        let (world, web) = world(scene)?;
        let address = web.address;
        world.allow_all()?;
        let client = world.workload("client", |pod| pod)?;
        let see = |wanted| wait_verdict("as applied", SOON, &client, address, &[wanted]);
        let deny = privileged_policy("lockdown", "deny", &everything(), &everything());
        see(Verdict::Served)?;
        let before = recent_flows(&world)?.len();
        for _ in 0..ROUNDS {
            world
                .west
                .apply("lockdown.yaml", std::slice::from_ref(&deny))?;
            see(Verdict::Refused)?;
            // Its end comes before the refusal is fetched from the kernel.
            world.west.delete("lockdown.yaml")?;
            see(Verdict::Served)?;
        }
        let denied = wait_until("all refusals are in the flow log", SOON, || {
            let recent = recent_flows(&world)?;
            let denied = recent.into_iter().skip(before);
            // Before the Pod document was read the client was the host.
            let denied: Vec<_> = denied
                .filter(|flow| flow["reason"] == "denied" && flow["client"] == "pod shop/client")
                .collect();
            Ok((denied.len() >= ROUNDS).then_some(denied))
        })?;
        for flow in denied {
            let policy = flow["decision"]["policy"].to_string();
            ensure!(policy.contains("lockdown"), "{flow:#}");
        }
        Ok(())
    })
}

/// What became of connections that are made one after the other, so far apart.
fn in_a_row(place: &Pod, target: SocketAddr, count: u64, apart: Duration) -> Result<Vec<Verdict>> {
    let client = Client::to(target)
        .count(count)
        .set("--interval-ms", apart.as_millis());
    client.run(place)?.iter().map(Verdict::of).collect()
}

#[test]
fn what_every_source_denies_is_refused_at_once_for_a_moment_and_asked_again_later() -> Result<()> {
    use Verdict::{Refused, Reset, Served};
    story("remembered-denial", |scene| {
        let (world, web) = world(scene)?;
        let (server, address) = (&web.server, web.address);
        world.west.apply("allow.yaml", &[allow_all(NAMESPACE)])?;
        let client = world.workload("client", |pod| with_label(pod, "app", "cart"))?;
        let other = world.workload("other", |pod| with_label(pod, "app", "till"))?;
        wait_verdict("the other side denies", SOON, &client, address, &[Reset])?;
        let rest = Duration::from_millis(600);
        // The denial above is forgotten by then.
        thread::sleep(rest);
        let seen = in_a_row(&client, address, 2, Duration::from_millis(50))?;
        ensure!(seen == [Reset, Refused], "{seen:?}");
        let seen = in_a_row(&other, address, 1, Duration::ZERO)?;
        ensure!(
            seen == [Reset],
            "workloads of another class are not affected: {seen:?}"
        );
        thread::sleep(rest);
        // Each of these comes when the one before it is forgotten.
        let seen = in_a_row(&client, address, 3, rest)?;
        ensure!(seen == [Reset; 3], "{seen:?}");

        let told = "remote: denied a moment ago";
        wait_until("the flow log says why", SOON, || {
            let flows = world.west.flows()?;
            let recent = flows["recent"].as_array().context("no flows")?;
            let told = |flow: &&Value| flow["attempts"][0]["outcome"] == told;
            let Some(flow) = recent.iter().find(told) else {
                bail!("{flows:#}")
            };
            ensure!(
                flow["client"] == "pod shop/client" && flow["reason"] == "denied",
                "{flow:#}"
            );
            Ok(Some(()))
        })?;
        world.east().apply("allow.yaml", &[allow_all(NAMESPACE)])?;
        wait_verdict("it is allowed now", SOON, &client, address, &[Served])?;
        let seen = in_a_row(&client, address, 20, Duration::ZERO)?;
        ensure!(seen == [Served; 20], "{seen:?}");
        ensure!(server.accepted()? > 20, "{:?}", server.events()?);
        Ok(())
    })
}
