//! Who may reach what, decided by the manifests of both sides.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::manifests::{
    access_policy, allow_all, everything, matching, privileged_policy, with_label,
    with_service_account,
};
use clusterlink_tests::traffic::{Client, Server};
use clusterlink_tests::wait::wait_until;
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, verdict, wait_verdict};
use clusterlink_tests::{PeerOptions, Pod, Scene, story};
use serde_json::{Value, json};

const REFUSED_BY_THE_OTHER: [Verdict; 2] = [Verdict::Reset, Verdict::Refused];

/// A world without policies, with one shared service.
fn world(scene: &Scene) -> Result<(World, Server, SocketAddr)> {
    let options = PeerOptions {
        labels: vec!["zone=north".to_owned()],
        ..PeerOptions::default()
    };
    let world = World::with(scene, &["east"], &options)?;
    let server = Server::named(world.east().host(), "east")?;
    let backend = SocketAddr::new(world.east().host().ipv4(), server.address.port());
    world.export(world.east(), "web", 80, backend)?;
    let address = world.import("web", 80, "static", &["east"])?;
    Ok((world, server, address))
}

#[test]
fn the_first_connect_without_a_policy_says_connection_refused() -> Result<()> {
    story("default-deny", |scene| {
        let (world, server, address) = world(scene)?;
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
        let (world, _server, address) = world(scene)?;
        let client = world.workload("client", |pod| pod)?;
        let allow = [allow_all(NAMESPACE)];
        world.east().apply("allow.yaml", &allow)?;
        ensure!(
            verdict(&client, address)? == Verdict::Refused,
            "allowed at east only"
        );
        world.west.apply("allow.yaml", &allow)?;
        wait_verdict(
            "allowed on both sides",
            SOON,
            &client,
            address,
            &[Verdict::Served],
        )?;
        world.east().delete("allow.yaml")?;
        wait_verdict(
            "allowed at west only",
            SOON,
            &client,
            address,
            &REFUSED_BY_THE_OTHER,
        )?;
        world.east().apply("allow.yaml", &allow)?;
        wait_verdict(
            "allowed on both sides again",
            Duration::from_millis(1_500),
            &client,
            address,
            &[Verdict::Served],
        )?;
        world.west.delete("allow.yaml")?;
        wait_verdict(
            "allowed at east only again",
            SOON,
            &client,
            address,
            &[Verdict::Refused],
        )
        .map(drop)
    })
}

#[test]
fn each_tier_beats_the_next() -> Result<()> {
    story("tiers", |scene| {
        let (world, _server, address) = world(scene)?;
        let client = world.workload("client", |pod| pod)?;
        world.east().apply("allow.yaml", &[allow_all(NAMESPACE)])?;
        let all = everything();
        let tiers = [
            (
                "namespaced allow",
                access_policy(NAMESPACE, "a", "allow", &all, &all),
                Verdict::Served,
            ),
            (
                "namespaced deny",
                access_policy(NAMESPACE, "b", "deny", &all, &all),
                Verdict::Refused,
            ),
            (
                "privileged allow",
                privileged_policy("c", "allow", &all, &all),
                Verdict::Served,
            ),
            (
                "privileged deny",
                privileged_policy("d", "deny", &all, &all),
                Verdict::Refused,
            ),
        ];
        ensure!(
            verdict(&client, address)? == Verdict::Refused,
            "without any policy"
        );
        for (number, (tier, policy, wanted)) in tiers.iter().enumerate() {
            world
                .west
                .apply(&format!("{number}.yaml"), std::slice::from_ref(policy))?;
            wait_verdict(
                &format!("with a {tier}"),
                SOON,
                &client,
                address,
                &[*wanted],
            )?;
        }
        // The same on the way back, each tier taken away again.
        for number in (1..tiers.len()).rev() {
            world.west.delete(&format!("{number}.yaml"))?;
            let (tier, _, wanted) = &tiers[number - 1];
            wait_verdict(
                &format!("with no more than a {tier}"),
                SOON,
                &client,
                address,
                &[*wanted],
            )?;
        }
        Ok(())
    })
}

#[test]
fn a_deny_selects_by_every_attribute_of_the_client() -> Result<()> {
    story("attributes", |scene| {
        let (world, _server, address) = world(scene)?;
        let labelled = |pod| {
            let pod = with_label(pod, "app", "cart");
            let pod = with_label(pod, "app.kubernetes.io/name", "cart-frontend");
            with_service_account(pod, "cart-account")
        };
        let client = world.workload("client", labelled)?;
        let other = world.workload("other", |pod| pod)?;
        world.allow_all()?;
        wait_verdict("nothing denied", SOON, &client, address, &[Verdict::Served])?;
        let rows = [
            (
                "client.clusterlink.net/namespace",
                NAMESPACE,
                "elsewhere",
                false,
            ),
            (
                "client.clusterlink.net/service-account",
                "cart-account",
                "default",
                true,
            ),
            ("client.clusterlink.net/labels.app", "cart", "till", true),
            (
                "client.clusterlink.net/labels.app.kubernetes.io/name",
                "cart-frontend",
                "cart",
                true,
            ),
            ("peer.clusterlink.net/name", "west", "east", false),
            ("peer.clusterlink.net/labels.zone", "north", "south", false),
        ];
        for side in [&world.west, world.east()] {
            for (key, value, mismatch, spares_other) in rows {
                let row = format!("a deny of {key}={value} at {}", side.name());
                let deny = |value| {
                    access_policy(
                        NAMESPACE,
                        "deny",
                        "deny",
                        &matching(key, value),
                        &everything(),
                    )
                };
                side.apply("deny.yaml", &[deny(value)])?;
                wait_verdict(&row, SOON, &client, address, &REFUSED_BY_THE_OTHER)?;
                let seen = verdict(&other, address)?;
                let spared = seen == Verdict::Served;
                // The other one's service account is the one that a Pod has without naming any.
                ensure!(
                    spared == spares_other,
                    "{row}: the other workload saw {seen:?}"
                );
                if value != mismatch && key != "client.clusterlink.net/service-account" {
                    side.apply("deny.yaml", &[deny(mismatch)])?;
                    wait_verdict(
                        &format!("{row}, of another value"),
                        Duration::from_millis(1_500),
                        &client,
                        address,
                        &[Verdict::Served],
                    )?;
                }
                side.delete("deny.yaml")?;
                let patience = Duration::from_millis(1_500);
                wait_verdict(
                    &format!("{row}, withdrawn"),
                    patience,
                    &client,
                    address,
                    &[Verdict::Served],
                )?;
            }
        }
        Ok(())
    })
}

#[test]
fn two_workloads_of_one_host_have_verdicts_of_their_own() -> Result<()> {
    story("two-workloads", |scene| {
        let (world, _server, address) = world(scene)?;
        let cart = world.workload("cart", |pod| with_label(pod, "app", "cart"))?;
        let till = world.workload("till", |pod| with_label(pod, "app", "till"))?;
        world.east().apply("allow.yaml", &[allow_all(NAMESPACE)])?;
        let only = |app| {
            let from = matching("client.clusterlink.net/labels.app", app);
            [access_policy(
                NAMESPACE,
                "only",
                "allow",
                &from,
                &everything(),
            )]
        };
        world.west.apply("only.yaml", &only("cart"))?;
        wait_verdict("cart is allowed", SOON, &cart, address, &[Verdict::Served])?;
        ensure!(
            verdict(&till, address)? == Verdict::Refused,
            "till is not allowed"
        );
        world.west.apply("only.yaml", &only("till"))?;
        wait_verdict("till is allowed", SOON, &till, address, &[Verdict::Served])?;
        ensure!(
            verdict(&cart, address)? == Verdict::Refused,
            "cart is not allowed any more"
        );
        Ok(())
    })
}

#[test]
fn the_hosts_own_process_has_the_peers_attributes_only() -> Result<()> {
    story("host-process", |scene| {
        let (world, _server, address) = world(scene)?;
        let host = world.west.host();
        world.east().apply("allow.yaml", &[allow_all(NAMESPACE)])?;
        ensure!(
            verdict(host, address)? == Verdict::Refused,
            "without any policy"
        );
        let policies = [
            ("everything", everything(), Verdict::Served),
            (
                "its peer's name",
                matching("peer.clusterlink.net/name", "west"),
                Verdict::Served,
            ),
            (
                "a namespace",
                matching("client.clusterlink.net/namespace", NAMESPACE),
                Verdict::Refused,
            ),
            (
                "not a namespace",
                json!({"workloadSelector": {"matchExpressions": [
                    {"key": "client.clusterlink.net/namespace", "operator": "NotIn", "values": [NAMESPACE]},
                ]}}),
                Verdict::Served,
            ),
        ];
        for (what, from, wanted) in policies {
            world.west.apply(
                "allow.yaml",
                &[access_policy(
                    NAMESPACE,
                    "host",
                    "allow",
                    &from,
                    &everything(),
                )],
            )?;
            wait_verdict(
                &format!("an allow of {what}"),
                SOON,
                host,
                address,
                &[wanted],
            )?;
        }
        Ok(())
    })
}

#[test]
fn a_client_that_nobody_knows_is_refused_even_where_everything_is_allowed() -> Result<()> {
    story("unknown", |scene| {
        let (world, server, address) = world(scene)?;
        let known = world.workload("known", |pod| pod)?;
        world.allow_all()?;
        wait_verdict(
            "a known one is served",
            SOON,
            &known,
            address,
            &[Verdict::Served],
        )?;
        let accepted = server.accepted()?;
        // It has a network of its own, as a container has, and no Pod document.
        let unknown = world.west.host().pod_with_network("unknown")?;
        let seen = verdict(&unknown, address)?;
        ensure!(REFUSED_BY_THE_OTHER.contains(&seen), "{seen:?}");
        ensure!(server.accepted()? == accepted, "the backend was reached");
        let flows = world.west.flows().context("the flow log says why")?;
        ensure!(flows.to_string().contains("identity-unknown"), "{flows:#}");
        Ok(())
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
        let (world, _server, address) = world(scene)?;
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
        let (world, server, address) = world(scene)?;
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
