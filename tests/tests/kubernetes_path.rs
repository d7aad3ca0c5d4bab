//! Two clusters share a service: everything is applied by kubectl, and clients see what the
//! policies of both sides say, whether they are steered in the kernel or come by kube-proxy.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::cluster::{AgentOptions, Cluster, Node, PATIENCE, Workload};
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::manifests;
use clusterlink_tests::tools::text;
use clusterlink_tests::traffic::{Server, any};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::world::{NAMESPACE, Verdict, verdict, wait_verdict};
use clusterlink_tests::{Fabric, Scene, story};
use serde_json::{Value, json};

/// How soon what was applied has to be in force: the API server and two watches are on the way.
const SOON: Duration = Duration::from_secs(3);

/// How long kube-proxy may take to start and to program a Service.
const PROXY: Duration = Duration::from_secs(20);

/// Two clusters of a node each; `east` exports a web server, and `west` imports it.
struct World {
    east: Cluster,
    west: Cluster,
    east_node: Node,
    west_node: Node,
    web: Workload,
    _server: Server,
    address: SocketAddr,
}

impl World {
    fn new(scene: &Scene) -> Result<Self> {
        let fabric = Fabric::create(scene, "fabric")?;
        let east = Cluster::start(scene, &fabric, "east")?;
        let west = Cluster::start(scene, &fabric, "west")?;
        for cluster in [&east, &west] {
            cluster.namespace(NAMESPACE)?;
        }
        let mut east_node = Node::join(&east, east.host())?;
        let mut west_node = Node::join(&west, west.host())?;
        east_node.start_agent(&east, &AgentOptions::default())?;
        west_node.start_agent(&west, &AgentOptions::default())?;
        west.know(&[("east", east_node.address())])?;
        let web = Workload::start(&east, &east_node, NAMESPACE, "web", |pod| pod)?;
        let server = Server::start(&web, "http", any(8080), &["--name", "hello from east"])?;
        export(&east, &web, server.address.port())?;
        let sources = [manifests::source("east", NAMESPACE, "web")];
        west.plane
            .apply(&[manifests::import(NAMESPACE, "web", 80, &sources)])?;
        let address = west.import_address(NAMESPACE, "web")?;
        Ok(Self {
            east,
            west,
            east_node,
            west_node,
            web,
            _server: server,
            address,
        })
    }

    fn allow_all(&self) -> Result<()> {
        for cluster in [&self.east, &self.west] {
            cluster.plane.apply(&[manifests::allow_all(NAMESPACE)])?;
        }
        Ok(())
    }
}

/// A Service with the EndpointSlice that the endpoint controller would write, and its Export.
fn export(cluster: &Cluster, pod: &Workload, port: u16) -> Result<()> {
    let name = pod.pod_name();
    cluster
        .plane
        .apply(&[
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"ports": [{"name": "http", "port": 80, "targetPort": port}],
                    "selector": {"app": name}},
            }),
            endpoints(name, pod, port),
            manifests::export(NAMESPACE, name, 80),
        ])
        .map(drop)
}

/// The slice that the endpoint controller would write for a Service of one pod.
fn endpoints(service: &str, pod: &Workload, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-1"), "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [pod.addresses()[0].to_string()],
            "conditions": {"ready": true}, "targetRef": {"kind": "Pod",
                "name": pod.pod_name(), "namespace": NAMESPACE}}],
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    })
}

#[test]
fn a_pod_reaches_a_service_of_another_cluster_through_its_kernel() -> Result<()> {
    story("kubernetes-steered", |scene| {
        let world = World::new(scene)?;
        let client = Workload::start(&world.west, &world.west_node, NAMESPACE, "cart", |pod| pod)?;
        let refused = [Verdict::Refused];
        wait_verdict("nothing is allowed", SOON, &client, world.address, &refused)?;
        world.allow_all()?;
        let served = [Verdict::Served];
        wait_verdict("all is allowed", SOON, &client, world.address, &served)?;
        let url = format!("http://{}/", world.address);
        let answer = client.run("curl", &["-sS", "--max-time", "5", &url])?;
        ensure!(answer == "hello from east\n", "it answered {answer:?}");
        ensure!(
            !world.web.addresses().is_empty() && world.east_node.address().port() == 4443,
            "the backend is a pod of the other cluster"
        );

        let all = manifests::everything();
        let deny = manifests::privileged_policy("lockdown", "deny", &all, &all);
        world.west.plane.apply(&[deny])?;
        wait_verdict("a deny beats it", SOON, &client, world.address, &refused)?;
        world
            .west
            .plane
            .run(&["delete", "privilegedaccesspolicy", "lockdown"])?;
        wait_verdict("the deny is gone", SOON, &client, world.address, &served)?;
        Ok(())
    })
}

#[test]
fn a_pod_of_a_node_without_an_agent_comes_by_the_service_path() -> Result<()> {
    story("kubernetes-service-path", |scene| {
        let world = World::new(scene)?;
        let mut bare = Node::join(&world.west, &scene.host("bare")?)?;
        bare.start_proxy(&world.west)?;
        let start = |name: &str| Workload::start(&world.west, &bare, NAMESPACE, name, |pod| pod);
        let (cart, guest) = (start("cart")?, start("guest")?);
        let reset = [Verdict::Reset];
        wait_verdict("nothing is allowed", PROXY, &cart, world.address, &reset)?;

        world.east.plane.apply(&[manifests::allow_all(NAMESPACE)])?;
        let all = manifests::everything();
        let carts = manifests::matching("client.clusterlink.net/labels.app", "cart");
        let policy = manifests::access_policy(NAMESPACE, "carts", "allow", &carts, &all);
        world.west.plane.apply(&[policy])?;
        let served = [Verdict::Served];
        wait_verdict("carts are allowed", SOON, &cart, world.address, &served)?;
        ensure!(
            verdict(&guest, world.address)? == Verdict::Reset,
            "a pod that the policy does not name was let through"
        );
        // A process of the node itself has no labels, so the policy does not name it either.
        ensure!(
            verdict(bare.host(), world.address)? == Verdict::Reset,
            "the node's own process passed for a pod"
        );
        Ok(())
    })
}

#[test]
fn an_agent_serves_while_its_controller_is_away_also_after_a_restart() -> Result<()> {
    story("kubernetes-without-controller", |scene| {
        let mut world = World::new(scene)?;
        world.allow_all()?;
        let client = Workload::start(&world.west, &world.west_node, NAMESPACE, "cart", |pod| pod)?;
        let served = [Verdict::Served];
        wait_verdict("all is allowed", SOON, &client, world.address, &served)?;

        world.west.controller = None;
        ensure!(
            verdict(&client, world.address)? == Verdict::Served,
            "the agent does not serve without its controller"
        );
        world.west_node.wait_kept("cart")?;
        world.west_node.kill_agent()?;
        let options = AgentOptions::default();
        world.west_node.run_agent(&world.west, &options)?;
        world.west_node.wait_ready()?;
        let again = wait_verdict("it serves again", SOON, &client, world.address, &served);
        again.with_context(|| world.west_node.flows().unwrap_or_default())?;

        world.west.start_controller()?;
        world.west_node.refresh_ca(&world.west)?;
        let all = manifests::everything();
        let deny = manifests::privileged_policy("lockdown", "deny", &all, &all);
        world.west.plane.apply(&[deny])?;
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
        let west = &world.west;
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

        world.east_node.kill_agent()?;
        let peer = west.wait_condition("peer", system, "east", "PeerReachable", "False")?;
        let conditions = peer["status"]["conditions"].to_string();
        ensure!(conditions.contains("east"), "{conditions}");
        reachable(false)?;
        let options = AgentOptions::default();
        world.east_node.run_agent(&world.east, &options)?;
        world.east_node.wait_ready()?;
        west.wait_condition("peer", system, "east", "PeerReachable", "True")?;
        reachable(true).map(drop)
    })
}

#[test]
fn a_cluster_ip_is_given_up_when_no_agent_steers_it_any_more() -> Result<()> {
    story("kubernetes-release", |scene| {
        let mut world = World::new(scene)?;
        world.allow_all()?;
        world.west_node.start_proxy(&world.west)?;
        let client = Workload::start(&world.west, &world.west_node, NAMESPACE, "cart", |pod| pod)?;
        let served = [Verdict::Served];
        wait_verdict("all is allowed", SOON, &client, world.address, &served)?;

        // The agent is away when the Import goes: it may steer the address when it comes back.
        world.west_node.kill_agent()?;
        let plane = &world.west.plane;
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
        world.west_node.run_agent(&world.west, &options)?;
        world.west_node.wait_ready()?;
        wait_for("the Service is gone", PATIENCE, || {
            Ok(!plane.exists(&["service", "web", "-n", NAMESPACE])?)
        })?;
        let local = Workload::start(&world.west, &world.west_node, NAMESPACE, "local", |pod| pod)?;
        let flags = ["--name", "hello from here"];
        let _server = Server::start(&local, "http", any(8080), &flags)?;
        plane.run(&["apply", "-f", text(&other(plane, world.address)?)])?;
        plane.apply(&[endpoints("other", &local, 8080)])?;
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
            "ports": [{"name": "http", "port": address.port(), "targetPort": 8080}]},
    });
    plane.write_manifests("other", &[service])
}
