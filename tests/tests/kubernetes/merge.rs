//! Two clusters that merge each other's Service, agents that come and go, and what the statuses say
//! of the other side.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::cluster::{
    AgentOptions, Node, PATIENCE, Pair, SYSTEM, Site, Workload, backends, imported,
};
use clusterlink_tests::manifests::{everything, export, matching, privileged_policy, with_label};
use clusterlink_tests::report::Exchange;
use clusterlink_tests::traffic::{Client, Server, any};
use clusterlink_tests::wait::wait_until;
use clusterlink_tests::world::{NAMESPACE, Verdict, wait_verdict};
use clusterlink_tests::{Fabric, Place, Scene, story};
use serde_json::Value;

/// A Service that both clusters have, and merge.
const BOTH: &str = "both";

/// A Service of `east` that `west` imports without having one of its own.
const ONE: &str = "one";

/// A cluster's part of the merged Service, and a client of it.
struct Side {
    local: Workload,
    _server: Server,
    client: Workload,
    address: SocketAddr,
}

#[test]
fn clusters_merge_each_others_service_and_agents_come_and_go() -> Result<()> {
    story("kubernetes-merge", |scene| {
        let fabric = Fabric::create(scene, "fabric")?;
        let mut pair = Pair::new(scene, &fabric)?;
        pair.allow_all()?;
        let east = merged(&mut pair.east, "west")?;
        let west = merged(&mut pair.west, "east")?;
        pair.wait_connected()?;
        each_others(&pair, &east, &west).context("merging each other")?;
        remote_only(&pair, &west).context("without a local backend")?;

        pair.east.apply(
            "one.yaml",
            &[
                backends(ONE, &[(&east.local, 8080)]),
                vec![export(NAMESPACE, ONE, 80)],
            ]
            .concat(),
        )?;
        pair.west.import(ONE, "random", &["east"])?;
        scaled(scene, &mut pair, &west).context("agents that come and go")?;
        said_of_the_other(&mut pair, &west).context("what is said of the other side")
    })
}

/// The Service with one pod, its Export, and the Import of the other's that joins it.
fn merged(site: &mut Site, other: &str) -> Result<Side> {
    let Site { cluster, node } = site;
    node.start_proxy(cluster)?;
    let local = Workload::start(cluster, node, NAMESPACE, "local", |pod| pod)?;
    let server = Server::start(&local, "name", any(8080), &["--name", cluster.name()])?;
    let client = Workload::start(cluster, node, NAMESPACE, "client", |pod| pod)?;
    site.export(BOTH, &[(&local, 8080)])?;
    let import = imported(BOTH, &[other]);
    let import = with_label(import, "import.clusterlink.net/merge", "true");
    site.apply("merge.yaml", &[import])?;
    let address = site.cluster.import_address(NAMESPACE, BOTH)?;
    Ok(Side {
        local,
        _server: server,
        client,
        address,
    })
}

/// Who answered how many of so many connections, none of which may fail.
fn answers(client: &Place, target: SocketAddr, count: u64) -> Result<BTreeMap<String, u64>> {
    let all = Client::to(target).count(count).parallel(4).run(client)?;
    let failed = all.iter().find(|one| !one.succeeded());
    ensure!(failed.is_none(), "a connection failed: {failed:?}");
    let mut counts = BTreeMap::new();
    for Exchange { text, .. } in all {
        *counts.entry(text).or_default() += 1;
    }
    Ok(counts)
}

/// Waits until the clusters named, and no others, answer a client.
fn wait_answers(
    what: &str,
    client: &Place,
    target: SocketAddr,
    wanted: &[&str],
) -> Result<BTreeMap<String, u64>> {
    wait_until(what, PATIENCE, || {
        let counts = answers(client, target, 40)?;
        let who: BTreeSet<_> = counts.keys().map(String::as_str).collect();
        if who == BTreeSet::from_iter(wanted.iter().copied()) {
            return Ok(Some(counts));
        }
        bail!("{counts:?}")
    })
}

/// Clients of both reach the pods of both, and nothing is handed back and forth.
fn each_others(pair: &Pair, east: &Side, west: &Side) -> Result<()> {
    for (site, side) in [(&pair.east, east), (&pair.west, west)] {
        let name = site.cluster.name();
        let what = format!("{name} reaches the pods of both");
        let both = ["east", "west"];
        wait_answers(&what, &side.client, side.address, &both)?;
        // One endpoint is a pod and one an agent: of 200 fair draws, 60 or fewer have p < 1e-7.
        let counts = answers(&side.client, side.address, 200)?;
        eprintln!("{name} was answered by {counts:?}");
        ensure!(counts.values().all(|count| *count > 60), "{counts:?}");
        // Nothing steers it, and kube-proxy masquerades it.
        let what = format!("a node's own process in {name} reaches the pods of both");
        wait_answers(&what, site.node.host(), side.address, &both)?;
    }
    no_loop(&pair.east, east)?;
    no_loop(&pair.west, west)
}

/// An agent that stands in the Service is no backend of its Export, and what came from the other
/// cluster went to the pod.
fn no_loop(site: &Site, side: &Side) -> Result<()> {
    let status = site.node.status()?;
    let mut exports = status["exports"].as_array().into_iter().flatten();
    let export = exports
        .find(|one| one["name"]["name"] == BOTH)
        .context("the agent knows of no such Export")?;
    ensure!(export["backends"] == 1, "{export}");
    let flows = site.node.flows_json()?;
    let recent = flows["recent"].as_array().context("no recent flows")?;
    let pod = SocketAddr::new(side.local.addresses()[0], 8080).to_string();
    let mut entered = 0;
    for flow in recent.iter().filter(|one| one["direction"] == "ingress") {
        ensure!(flow["backend"] == pod.as_str(), "not to {pod}: {flow:#}");
        entered += 1;
    }
    ensure!(entered > 0, "nothing came in: {flows:#}");
    Ok(())
}

/// With its own pods scaled to none, the Service is served by the other cluster.
fn remote_only(pair: &Pair, west: &Side) -> Result<()> {
    let site = &pair.west;
    let file = format!("export-{BOTH}.yaml");
    let mut none = backends(BOTH, &[]);
    none.push(export(NAMESPACE, BOTH, 80));
    site.apply(&file, &none)?;
    let what = "the other cluster serves alone";
    wait_answers(what, &west.client, west.address, &["east"])?;
    site.export(BOTH, &[(&west.local, 8080)])?;
    let what = "the pod is back";
    wait_answers(what, &west.client, west.address, &["east", "west"])?;
    Ok(())
}

/// How many agents are ready for an import, as every slice of it says.
fn wait_endpoints(site: &Site, import: &str, wanted: usize) -> Result<()> {
    let what = format!("{import} is served by {wanted} agents");
    let selector = format!("clusterlink.net/import-name={import}");
    wait_until(&what, PATIENCE, || {
        let arguments = ["endpointslices", "-n", NAMESPACE, "-l", &selector];
        let list = site.cluster.plane.get(&arguments)?;
        let slices = list["items"].as_array().context("no list")?;
        let ready = |slice: &Value| {
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            endpoints
                .filter(|one| one["conditions"]["ready"] == true)
                .count()
        };
        if slices.iter().all(|slice| ready(slice) == wanted) && (wanted == 0 || !slices.is_empty())
        {
            return Ok(Some(()));
        }
        bail!("{slices:?}")
    })
}

/// The agents of `west` are scaled to none, to two and to one.
fn scaled(scene: &Scene, pair: &mut Pair, west: &Side) -> Result<()> {
    let site = &mut pair.west;
    let one = site.cluster.import_address(NAMESPACE, ONE)?;
    let mut second = Node::join(&site.cluster, &scene.host("west2")?)?;
    second.start_proxy(&site.cluster)?;
    let other = Workload::start(&site.cluster, &second, NAMESPACE, "other", |pod| pod)?;
    let east = ["east"];
    let both = ["east", "west"];
    wait_endpoints(site, ONE, 1)?;
    wait_answers("one agent: steered", &west.client, one, &east)?;
    wait_answers("one agent: by kube-proxy", &other, one, &east)?;

    site.node.remove_agent(&site.cluster)?;
    for import in [ONE, BOTH] {
        wait_endpoints(site, import, 0)?;
    }
    for client in [&west.client, &other] {
        let refused = [Verdict::Refused];
        wait_verdict("no agent", PATIENCE, client, one, &refused)?;
        let what = "no agent: the Service has its own pods still";
        wait_answers(what, client, west.address, &["west"])?;
    }
    site.wait_reason("NoAgents")?;

    site.node
        .start_agent(&site.cluster, &AgentOptions::default())?;
    second.start_agent(&site.cluster, &AgentOptions::default())?;
    for import in [ONE, BOTH] {
        wait_endpoints(site, import, 2)?;
    }
    for client in [&west.client, &other] {
        wait_answers("two agents: steered", client, one, &east)?;
        wait_answers("two agents: merged", client, west.address, &both)?;
    }

    second.remove_agent(&site.cluster)?;
    for import in [ONE, BOTH] {
        wait_endpoints(site, import, 1)?;
    }
    for client in [&west.client, &other] {
        wait_answers("one agent again", client, one, &east)?;
        wait_answers("one agent again: merged", client, west.address, &both)?;
    }
    site.wait_reason("Reachable")
}

/// Labels that the other peer says of itself, and what it answers, reach statuses and policies.
fn said_of_the_other(pair: &mut Pair, west: &Side) -> Result<()> {
    let one = pair.west.cluster.import_address(NAMESPACE, ONE)?;
    let (served, refused) = ([Verdict::Served], [Verdict::Refused]);
    pair.west.wait_zone("north")?;
    let abroad = matching("peer.clusterlink.net/labels.zone", "abroad");
    let deny = privileged_policy("abroad", "deny", &everything(), &abroad);
    pair.west.apply("abroad.yaml", &[deny])?;
    wait_verdict("no peer is abroad", PATIENCE, &west.client, one, &served)?;
    let east = &mut pair.east;
    east.cluster.relabel(&["zone=abroad"]);
    east.node.restart_agent(&east.cluster)?;
    pair.west.wait_zone("abroad")?;
    wait_verdict("east is abroad", PATIENCE, &west.client, one, &refused)?;
    pair.west.withdraw("abroad.yaml")?;
    wait_verdict("abroad is fine", PATIENCE, &west.client, one, &served)?;

    pair.west.wait_accepted(true)?;
    pair.east.withdraw("allow-all.yaml")?;
    let denied = [Verdict::Reset, Verdict::Refused];
    wait_verdict("east denies", PATIENCE, &west.client, one, &denied)?;
    pair.west.wait_accepted(false)
}

/// What `west` says of its only peer and of its source.
trait Says {
    fn wait_reason(&self, reason: &str) -> Result<()>;
    fn wait_zone(&self, zone: &str) -> Result<()>;
    fn wait_accepted(&self, accepted: bool) -> Result<()>;
}

impl Says for Site {
    fn wait_reason(&self, reason: &str) -> Result<()> {
        let what = format!("the reason is {reason}");
        wait_status(self, &what, &["peer", "east", "-n", SYSTEM], |status| {
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            conditions.any(|one| one["type"] == "PeerReachable" && one["reason"] == reason)
        })
    }

    fn wait_zone(&self, zone: &str) -> Result<()> {
        let what = format!("east says that it is in {zone}");
        wait_status(self, &what, &["peer", "east", "-n", SYSTEM], |status| {
            status["labels"]["zone"] == zone
        })
    }

    fn wait_accepted(&self, accepted: bool) -> Result<()> {
        let what = format!("the source is accepted: {accepted}");
        wait_status(self, &what, &["import", ONE, "-n", NAMESPACE], |status| {
            status["sources"][0]["accepted"] == accepted
        })
    }
}

fn wait_status(
    site: &Site,
    what: &str,
    object: &[&str],
    holds: impl Fn(&Value) -> bool,
) -> Result<()> {
    // A status is written once a second, and what changes all the time once a minute.
    wait_until(what, PATIENCE + Duration::from_secs(60), || {
        let object = site.cluster.plane.get(object)?;
        if holds(&object["status"]) {
            return Ok(Some(()));
        }
        bail!("{}", object["status"])
    })
}
