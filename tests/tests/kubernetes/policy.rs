//! Who may reach what, decided by what kubectl has applied to the API servers of two clusters: for
//! pods that are steered in the kernel, and for pods that come by kube-proxy.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::cluster::{Node, Pair};
use clusterlink_tests::manifests::{everything, privileged_policy};
use clusterlink_tests::stories::live::Live;
use clusterlink_tests::stories::{Clusters, Share, Stage, changes, policy};
use clusterlink_tests::wait::wait_until;
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, verdict, wait_verdict};
use clusterlink_tests::{Fabric, story};
use serde_json::json;

/// How long the parts of two clusters may take to find each other, kube-proxy among them.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn policies_of_two_clusters_decide_about_steered_pods_and_those_that_come_by_kube_proxy()
-> Result<()> {
    story("kubernetes-policy", |scene| {
        let fabric = Fabric::create(scene, "fabric")?;
        let pair = Pair::new(scene, &fabric)?;
        pair.west.cluster.plane.apply(&[json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "cart-account", "namespace": NAMESPACE},
        })])?;
        pair.wait_connected()?;
        let (steered, web) = step("steered: the first connect", || first_connect(&pair))?;
        told("steered", &steered, &web)?;
        step("steered: the node's own process", || {
            let host = pair.west.node.host();
            policy::the_hosts_own_process_has_the_peers_attributes_only(&steered, host, web.address)
        })?;
        changed("steered", &steered)?;

        let mut node = Node::join(&pair.west.cluster, &scene.host("bare")?)?;
        node.start_proxy(&pair.west.cluster)?;
        let bare = Clusters::by_the_service_path(&pair, &node);
        let web = bare.share("web", "name", &["--name", "east"])?;
        let client = bare.workload("first", |pod| pod)?;
        let what = "kube-proxy serves, and nothing is allowed";
        wait_verdict(what, PATIENCE, &client, web.address, &[Verdict::Reset])?;
        told("by the Service path", &bare, &web)?;
        bare.allow_all()?;
        let served = [Verdict::Served];
        bare.sees("all is allowed", &client, web.address, &served)?;
        // An address of another node may be anybody's there.
        let seen = verdict(node.host(), web.address)?;
        ensure!(
            seen == Verdict::Reset,
            "the node's own process saw {seen:?}"
        );
        bare.allow_nothing()?;
        changed("by the Service path", &bare)
    })
}

/// The first connect of a pod whose cgroup is known to a Service that is steered since a moment ago.
fn first_connect(pair: &Pair) -> Result<(Clusters<'_>, Share)> {
    let stage = Clusters::steered(pair);
    let web = stage.share("web", "name", &["--name", "east"])?;
    let client = stage.workload("first", |pod| pod)?;
    let refused = [Verdict::Refused];
    let what = "the agent has found the pod's cgroup";
    wait_verdict(what, PATIENCE, &client, web.address, &refused)?;
    let second = stage.share("second", "name", &[])?;
    wait_until("the agent knows of the import", PATIENCE, || {
        let status = pair.west.node.status()?;
        let mut imports = status["imports"].as_array().into_iter().flatten();
        if imports.any(|one| one["name"]["name"] == second.name.as_str()) {
            return Ok(Some(()));
        }
        bail!("{}", status["imports"])
    })?;
    let first = verdict(&client, second.address)?;
    ensure!(first == Verdict::Refused, "the first connect saw {first:?}");
    for server in [&web.server, &second.server] {
        ensure!(server.accepted()? == 0, "the backend was reached");
    }
    Ok((stage, web))
}

/// What plain hosts are told, too.
fn told(path: &str, stage: &impl Stage, web: &Share) -> Result<()> {
    let address = web.address;
    step(&format!("{path}: both sides"), || {
        policy::both_sides_have_to_allow(stage, address)
    })?;
    step(&format!("{path}: tiers"), || {
        policy::each_tier_beats_the_next(stage, address)
    })?;
    step(&format!("{path}: attributes"), || {
        policy::a_deny_selects_by_every_attribute_of_the_client(stage, address)
    })?;
    step(&format!("{path}: two workloads"), || {
        policy::two_workloads_of_one_host_have_verdicts_of_their_own(stage, address)
    })?;
    step(&format!("{path}: unknown"), || {
        policy::a_client_that_nobody_knows_is_refused(stage, web)
    })
}

/// A policy that comes and labels that change cut what is denied from then on.
fn changed(path: &str, stage: &impl Stage) -> Result<()> {
    let mut echo = stage.share("echo", "echo", &[])?;
    let client = stage.workload("changed", |pod| pod)?;
    stage.allow_all()?;
    let west = stage.west();
    let served = [Verdict::Served];
    stage.sees("all is allowed", &client, echo.address, &served)?;
    let live = Live::connect(west, &client, &echo)?;
    let all = everything();
    let deny = [privileged_policy("lockdown", "deny", &all, &all)];
    west.apply("lockdown.yaml", &deny)?;
    let start = Instant::now();
    let refused = [stage.refused()];
    wait_verdict("a policy", SOON, &client, echo.address, &refused)?;
    let seen = start.elapsed();
    let [at_client, at_server] = live.cut(&mut echo, start)?;
    eprintln!(
        "{path}: a policy: new connections {seen:.2?}, client cut {at_client:.2?}, server cut {at_server:.2?}"
    );
    ensure!(at_client.max(at_server) < SOON, "{path}: too late");
    west.withdraw("lockdown.yaml")?;
    stage.sees("the deny is gone", &client, echo.address, &served)?;
    stage.allow_nothing()?;
    step(&format!("{path}: labels"), || {
        changes::labels_of_everything_are_judged_as_they_change(stage)
    })
}

fn step<T>(what: &str, tell: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let told = tell().with_context(|| what.to_owned())?;
    eprintln!("{what}: {:.1} s", start.elapsed().as_secs_f32());
    Ok(told)
}
