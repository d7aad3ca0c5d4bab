//! Two clusters share a service, and a part of one of them is away: its controller, its agent, the
//! programs in its kernel, the other cluster's gateway.

mod without_ebpf;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::cluster::{AgentOptions, PATIENCE, Pair, Site, Workload, backends};
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::manifests;
use clusterlink_tests::tools::text;
use clusterlink_tests::traffic::{Server, any};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::world::{NAMESPACE, Verdict, verdict, wait_verdict};
use clusterlink_tests::{Fabric, Scene, story};
use serde_json::json;

/// How soon what was applied has to be in force: the API server and two watches are on the way.
const SOON: Duration = Duration::from_secs(3);

/// Two clusters of a node each; `east` exports a web server, and `west` imports it.
struct World {
    east: Site,
    west: Site,
    _server: Server,
    address: SocketAddr,
}

impl World {
    fn new(scene: &Scene) -> Result<Self> {
        let fabric = Fabric::create(scene, "fabric")?;
        let Pair { east, west } = Pair::new(scene, &fabric)?;
        let web = Workload::start(&east.cluster, &east.node, NAMESPACE, "web", |pod| pod)?;
        let server = Server::start(&web, "http", any(8080), &["--name", "hello from east"])?;
        east.export("web", &[(&web, 8080)])?;
        west.import("web", "random", &["east"])?;
        let address = west.cluster.import_address(NAMESPACE, "web")?;
        Ok(Self {
            east,
            west,
            _server: server,
            address,
        })
    }

    fn allow_all(&self) -> Result<()> {
        for site in [&self.east, &self.west] {
            site.apply("allow-all.yaml", &[manifests::allow_all(NAMESPACE)])?;
        }
        Ok(())
    }

    /// A pod on the node of `west`.
    fn pod(&self, name: &str) -> Result<Workload> {
        let Site { cluster, node } = &self.west;
        Workload::start(cluster, node, NAMESPACE, name, |pod| pod)
    }

    /// A pod in the network of the node of `west`.
    fn pod_on_host(&self, name: &str) -> Result<Workload> {
        let Site { cluster, node } = &self.west;
        Workload::start(cluster, node, NAMESPACE, name, manifests::in_host_network)
    }
}

#[test]
fn an_agent_serves_while_its_controller_is_away_also_after_a_restart() -> Result<()> {
    story("kubernetes-without-controller", |scene| {
        let mut world = World::new(scene)?;
        world.allow_all()?;
        let client = world.pod("cart")?;
        let served = [Verdict::Served];
        wait_verdict("all is allowed", SOON, &client, world.address, &served)?;

        world.west.cluster.controller = None;
        ensure!(
            verdict(&client, world.address)? == Verdict::Served,
            "the agent does not serve without its controller"
        );
        world.west.node.wait_kept("cart")?;
        world.west.node.kill_agent()?;
        let options = AgentOptions::default();
        world.west.node.run_agent(&world.west.cluster, &options)?;
        world.west.node.wait_ready()?;
        let again = wait_verdict("it serves again", SOON, &client, world.address, &served);
        again.with_context(|| world.west.node.flows().unwrap_or_default())?;

        world.west.cluster.start_controller()?;
        world.west.node.refresh_ca(&world.west.cluster)?;
        let all = manifests::everything();
        let deny = manifests::privileged_policy("lockdown", "deny", &all, &all);
        world.west.cluster.plane.apply(&[deny])?;
        let refused = [Verdict::Refused];
        let deadline = Duration::from_secs(15);
        wait_verdict(
            "the controller is heard again",
            deadline,
            &client,
            world.address,
            &refused,
        )
        .map(drop)
    })
}

#[test]
fn statuses_say_what_the_agents_see_of_peers_and_sources() -> Result<()> {
    story("kubernetes-reach", |scene| {
        let mut world = World::new(scene)?;
        let west = &world.west.cluster;
        let system = "clusterlink-system";
        let peer = west.wait_condition("peer", system, "east", "PeerReachable", "True")?;
        ensure!(peer["status"]["lastSeen"].is_string(), "{}", peer["status"]);
        let reachable = |wanted: bool| {
            wait_until("the source's state is told", PATIENCE, || {
                let import = west.plane.get(&["import", "web", "-n", NAMESPACE])?;
                let source = &import["status"]["sources"][0];
                if source["reachable"] == wanted {
                    return Ok(Some(source.clone()));
                }
                bail!("{}", import["status"])
            })
        };
        reachable(true)?;

        world.east.node.kill_agent()?;
        let peer = west.wait_condition("peer", system, "east", "PeerReachable", "False")?;
        let conditions = peer["status"]["conditions"].to_string();
        ensure!(conditions.contains("east"), "{conditions}");
        reachable(false)?;
        let options = AgentOptions::default();
        world.east.node.run_agent(&world.east.cluster, &options)?;
        world.east.node.wait_ready()?;
        west.wait_condition("peer", system, "east", "PeerReachable", "True")?;
        reachable(true).map(drop)
    })
}

#[test]
fn a_cluster_ip_is_given_up_when_no_agent_steers_it_any_more() -> Result<()> {
    story("kubernetes-release", |scene| {
        let mut world = World::new(scene)?;
        world.allow_all()?;
        world.west.node.start_proxy(&world.west.cluster)?;
        let client = world.pod("cart")?;
        let served = [Verdict::Served];
        wait_verdict("all is allowed", SOON, &client, world.address, &served)?;

        // The agent is away when the Import goes: it may steer the address when it comes back.
        world.west.node.kill_agent()?;
        let plane = &world.west.cluster.plane;
        plane.run(&["delete", "import", "web", "-n", NAMESPACE, "--wait=false"])?;
        let service = || plane.get(&["service", "web", "-n", NAMESPACE]);
        wait_until("the Service is on its way out", PATIENCE, || {
            let service = service()?;
            Ok(service["metadata"]["deletionTimestamp"]
                .is_string()
                .then_some(()))
        })?;
        let taken = plane.kubectl(&["apply", "-f", text(&other(plane, world.address)?)])?;
        ensure!(
            !taken.status.success(),
            "the ClusterIP was free while an agent was away"
        );

        let options = AgentOptions::default();
        world.west.node.run_agent(&world.west.cluster, &options)?;
        world.west.node.wait_ready()?;
        wait_for("the Service is gone", PATIENCE, || {
            Ok(!plane.exists(&["service", "web", "-n", NAMESPACE])?)
        })?;
        let local = world.pod("local")?;
        let flags = ["--name", "hello from here"];
        let _server = Server::start(&local, "http", any(8080), &flags)?;
        plane.run(&["apply", "-f", text(&other(plane, world.address)?)])?;
        plane.apply(&backends("other", &[(&local, 8080)])[1..])?;
        let url = format!("http://{}/", world.address);
        let answer = wait_until("the other Service answers", PATIENCE, || {
            client
                .run("curl", &["-sS", "--max-time", "2", &url])
                .map(Some)
        })?;
        ensure!(answer == "hello from here\n", "{answer:?} answered");
        Ok(())
    })
}

/// A Service of somebody else at the address that an import had.
fn other(plane: &ControlPlane, address: SocketAddr) -> Result<PathBuf> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "other", "namespace": NAMESPACE},
        "spec": {"clusterIP": address.ip().to_string(),
            "ports": [{"name": "main", "port": address.port(), "targetPort": 8080}]},
    });
    plane.write_manifests("other", &[service])
}
