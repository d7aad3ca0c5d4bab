//! Why the first source of an Import cannot serve, each cause with a service of its own: the first
//! connection of each path is served by the second source, and the flow log says why.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::cluster::{PATIENCE, Workload, backends};
use clusterlink_tests::manifests::{
    everything, export, import, matching, privileged_policy, service, shared, source, with_scheme,
};
use clusterlink_tests::stories::failover;
use clusterlink_tests::wait::wait_until;
use clusterlink_tests::world::{NAMESPACE, Verdict, wait_verdict};
use serde_json::Value;

use crate::sources::{Clients, Fleet, SOON};

/// A cause, by which service and Import are named.
struct Cause {
    name: &'static str,
    /// The peer that is tried first.
    first: &'static str,
    /// What `east` has for it: how many backends, if it is exported at all.
    backends: Option<u64>,
    /// What the flow log says that was tried before.
    tried: &'static [&'static str],
}

const CAUSES: [Cause; 7] = [
    Cause {
        name: "no-export",
        first: "east",
        backends: None,
        tried: &["east: remote: denied: no export shop/no-export"],
    },
    Cause {
        name: "no-service",
        first: "east",
        backends: Some(0),
        tried: &["east: remote: no-backend"],
    },
    Cause {
        name: "no-slice",
        first: "east",
        backends: Some(0),
        tried: &["east: remote: no-backend"],
    },
    Cause {
        name: "no-endpoint",
        first: "east",
        backends: Some(0),
        tried: &["east: remote: no-backend"],
    },
    Cause {
        name: "refusing",
        first: "east",
        backends: Some(1),
        tried: &["east: remote: backend-refused"],
    },
    Cause {
        name: "denied",
        first: "east",
        backends: Some(1),
        tried: &["east: remote: denied"],
    },
    // Such a source is none: it is not even tried.
    Cause {
        name: "no-peer",
        first: "nowhere",
        backends: None,
        tried: &[],
    },
];

/// An Import with no other source than a peer that has no object.
const LOST: &str = "lost";

pub(crate) fn told(fleet: &Fleet, clients: &Clients) -> Result<()> {
    make(fleet)?;
    wait_known_at_the_sources(fleet)?;
    let addresses = wait_imported(fleet)?;
    let (west, start) = (&fleet.pair.west, Instant::now());
    let reached = fleet.east_server.accepted()?;
    for (cause, address) in CAUSES.iter().zip(&addresses) {
        proxied(fleet, *address)?;
        for (path, client) in &clients.0 {
            let what = || format!("{}, {path}", cause.name);
            let import = (cause.name, *address);
            let tried = failover::the_first_connection_is_served_by("north", west, client, import);
            let tried = tried.with_context(what)?;
            ensure!(tried == cause.tried, "{}: {tried:?}", what());
        }
    }
    let now = fleet.east_server.accepted()?;
    ensure!(now == reached, "a backend of east was reached");

    let lost = *addresses.last().context("nothing is imported")?;
    proxied(fleet, lost)?;
    let said = [
        (Verdict::Refused, "nowhere: no Peer object nowhere"),
        (Verdict::Reset, "nowhere: no Peer object of this name"),
    ];
    for ((path, client), (verdict, cause)) in clients.0.iter().zip(said) {
        let what = format!("{path}: nothing is left");
        wait_verdict(&what, SOON, client, lost, &[verdict])?;
        wait_until("the cause is in the flow log", PATIENCE, || {
            let tried = failover::tried(&failover::first_flow(west, client, LOST)?);
            ensure!(tried == [cause], "{path}: {tried:?}");
            Ok(Some(()))
        })?;
    }
    eprintln!("causes of failover: {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}

/// Applies what each cause takes, at the three peers.
fn make(fleet: &Fleet) -> Result<()> {
    let (east, west, north) = (&fleet.pair.east, &fleet.pair.west, &fleet.north);
    let to = matching("export.clusterlink.net/name", "denied");
    let mut at_east = vec![privileged_policy("causes", "deny", &everything(), &to)];
    let mut at_north = Vec::new();
    let mut at_west = Vec::new();
    let backend = SocketAddr::new(north.host().ipv4(), fleet.north_server.address.port());
    for Cause { name, first, .. } in &CAUSES {
        at_east.extend(east_has(name, &fleet.east_web));
        at_north.extend(shared(NAMESPACE, name, 80, backend));
        at_west.push(imported(name, &[first, "north"]));
    }
    at_west.push(imported(LOST, &["nowhere"]));
    east.apply("causes.yaml", &at_east)?;
    north.apply("causes.yaml", &at_north)?;
    west.apply("causes.yaml", &at_west)
}

fn east_has(cause: &str, pod: &Workload) -> Vec<Value> {
    let exported = |mut backed: Vec<Value>| {
        backed.push(export(NAMESPACE, cause, 80));
        backed
    };
    match cause {
        "no-service" => exported(Vec::new()),
        "no-slice" => exported(vec![service(NAMESPACE, cause, 80)]),
        "no-endpoint" => exported(backends(cause, &[])),
        // Nothing listens at the discard port of a pod that the scene has made.
        "refusing" => exported(backends(cause, &[(pod, 9)])),
        "denied" => exported(backends(cause, &[(pod, 8080)])),
        _ => Vec::new(),
    }
}

fn imported(name: &str, peers: &[&str]) -> Value {
    let sources: Vec<_> = peers
        .iter()
        .map(|peer| source(peer, NAMESPACE, name))
        .collect();
    with_scheme(import(NAMESPACE, name, 80, &sources), "static")
}

/// Waits until `east` cannot serve for the very causes, and `north` can.
fn wait_known_at_the_sources(fleet: &Fleet) -> Result<()> {
    let backends = |status: &Value, name: &str| {
        let mut exports = status["exports"].as_array().into_iter().flatten();
        let export = exports.find(|one| one["name"]["name"] == name);
        export.and_then(|export| export["backends"].as_u64())
    };
    wait_until("north serves them all", PATIENCE, || {
        let status = fleet.north.status()?;
        for Cause { name, .. } in &CAUSES {
            ensure!(backends(&status, name) == Some(1), "{name}: {status:#}");
        }
        Ok(Some(()))
    })?;
    wait_until("east serves none of them", PATIENCE, || {
        let status = fleet.pair.east.node.status()?;
        for cause in &CAUSES {
            let found = backends(&status, cause.name);
            ensure!(found == cause.backends, "{}: {found:?}", cause.name);
        }
        let mut policies = status["policies"].as_array().into_iter().flatten();
        let denied = policies.any(|one| one["name"]["privileged"] == "causes");
        ensure!(denied, "{}", status["policies"]);
        Ok(Some(()))
    })
}

/// Waits until all Imports are in force with their sources, and gives the addresses: those of the
/// causes in turn, and the one of what leads nowhere.
fn wait_imported(fleet: &Fleet) -> Result<Vec<SocketAddr>> {
    let names = CAUSES.iter().map(|cause| (cause.name, cause.first));
    let names: Vec<_> = names.chain([(LOST, "nowhere")]).collect();
    wait_until("the Imports are in force", PATIENCE, || {
        let status = fleet.pair.west.node.status()?;
        let imports = status["imports"].as_array().context("no imports")?;
        let addresses = names.iter().map(|(name, first)| {
            let import = imports.iter().find(|one| one["name"]["name"] == *name);
            let import = import.with_context(|| format!("no import {name}"))?;
            let wanted = if *first == "east" {
                "reachable"
            } else {
                "no-peer"
            };
            let sources = import["sources"].as_array().context("no sources")?;
            let states: Vec<_> = sources.iter().map(|one| &one["state"]).collect();
            if *states[0] != wanted || states[1..].iter().any(|state| **state != "reachable") {
                bail!("{name}: {states:?}");
            }
            let addresses = import["addresses"].as_array().into_iter().flatten();
            let mut addresses = addresses.filter_map(|one| one.as_str()?.parse().ok());
            let address = addresses.find(IpAddr::is_ipv4);
            let address = address.with_context(|| format!("{name} has no address"))?;
            Ok(SocketAddr::new(address, 80))
        });
        addresses.collect::<Result<_>>().map(Some)
    })
}

/// Waits until kube-proxy leads the other node to the agent, which resets what that node's own
/// processes say: so that the first connection of a pod can be waited for without making it.
fn proxied(fleet: &Fleet, address: SocketAddr) -> Result<()> {
    let host = fleet.bare.host();
    let reset = [Verdict::Reset];
    wait_verdict("kube-proxy serves", PATIENCE, host, address, &reset).map(drop)
}
