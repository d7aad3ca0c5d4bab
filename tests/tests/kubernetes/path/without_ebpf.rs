//! An agent that is not to use eBPF serves by the Service path alone, at listeners of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::cluster::{AgentOptions, Node, PATIENCE, Workload, imported};
use clusterlink_tests::manifests::{everything, matching, privileged_policy};
use clusterlink_tests::traffic::{Server, any};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::world::{NAMESPACE, Verdict, verdict, wait_verdict};
use clusterlink_tests::{Host, Place, story};
use serde_json::Value;

use super::{SOON, World};

const SERVED: [Verdict; 1] = [Verdict::Served];
const RESET: [Verdict; 1] = [Verdict::Reset];

/// What the kernel masquerades the node's own processes as: the first address of `lo` that is not only
/// the host's, which is the gateway's.
const MASQUERADED: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 77, 1));

/// The cluster `west`, whose agent is without eBPF, and its clients.
struct Scenery {
    world: World,
    /// A pod of a node that has no agent.
    client: Workload,
    /// A pod of the network of the node with the agent.
    daemon: Workload,
    /// The target port of the import, at the node with the agent.
    target: SocketAddr,
}

#[test]
fn an_agent_without_ebpf_serves_by_the_service_path_alone() -> Result<()> {
    story("kubernetes-without-ebpf", |scene| {
        let mut world = World::new(scene)?;
        world.allow_all()?;
        world.west.node.start_proxy(&world.west.cluster)?;
        let mut bare = Node::join(&world.west.cluster, &scene.host("bare")?)?;
        bare.start_proxy(&world.west.cluster)?;
        let client = Workload::start(&world.west.cluster, &bare, NAMESPACE, "cart", |pod| pod)?;
        let daemon = world.pod_on_host("daemon")?;
        let what = "the kernel hands over what kube-proxy sends";
        wait_verdict(what, PATIENCE, &client, world.address, &SERVED)?;
        let target = SocketAddr::new(world.west.node.host().ipv4(), leased(&world)?);
        let mut scenery = Scenery {
            world,
            client,
            daemon,
            target,
        };
        scenery.port_in_use().context("a port in use")?;
        scenery.verdicts().context("verdicts")?;
        scenery.denials().context("denials")?;
        scenery.lease().context("a lease that ends")?;
        scenery.stop().context("the end")
    })
}

/// The target port in the status of the import.
fn leased(world: &World) -> Result<u16> {
    let plane = &world.west.cluster.plane;
    let import = plane.get(&["import", "web", "-n", NAMESPACE])?;
    let port = import["status"]["targetPort"].as_u64();
    Ok(u16::try_from(port.context("no targetPort")?)?)
}

fn expect(what: &str, place: &Place, target: SocketAddr, expected: Verdict) -> Result<()> {
    let seen = verdict(place, target)?;
    let name = place.name();
    ensure!(seen == expected, "{what}: {name} saw {seen:?} at {target}");
    Ok(())
}

impl Scenery {
    fn host(&self) -> &Host {
        self.world.west.node.host()
    }

    /// What the agent says is wrong with this target port, one for each address of the node.
    fn problems(&self) -> Result<Vec<String>> {
        let status = self.world.west.node.status()?;
        let all = status["problems"].as_array().into_iter().flatten();
        let messages = all.filter_map(|one| Some(one["message"].as_str()?.to_owned()));
        let port = format!(":{}", self.target.port());
        Ok(messages.filter(|text| text.contains(&port)).collect())
    }

    /// While an agent is away somebody takes its port; the next one is without eBPF.
    fn port_in_use(&mut self) -> Result<()> {
        self.world.west.node.kill_agent()?;
        let mut other = Server::start(self.host(), "decoy", any(self.target.port()), &[])?;
        let options = AgentOptions {
            flags: ["--ebpf", "off"].map(str::to_owned).into(),
            capabilities: Some("-all,+net_admin"),
        };
        let west = &mut self.world.west;
        ensure!(west.node.bpf_dir().exists(), "a kill leaves pins");
        west.node.run_agent(&west.cluster, &options)?;
        west.node.wait_ready()?;
        ensure!(!west.node.bpf_dir().exists(), "pins are in force");
        let steering = &west.node.status()?["steering"];
        let reason = steering["reason"].as_str().unwrap_or_default();
        ensure!(
            steering["on"] == false && reason.contains("--ebpf off"),
            "{steering}"
        );

        wait_until("it is said which port is in use", PATIENCE, || {
            let named = self.problems()?;
            Ok((named.len() == 2).then_some(()))
        })?;
        for problem in self.problems()? {
            let expected = format!("Import {NAMESPACE}/web: ");
            ensure!(problem.starts_with(&expected), "{problem}");
        }
        self.nobody_is_sent_there(&other)?;
        other.process.kill9()?;
        wait_for("the port is the agent's again", PATIENCE, || {
            Ok(self.problems()?.is_empty())
        })?;
        let Scenery { world, client, .. } = &*self;
        let condition = "ImportTargetPortValid";
        (world.west.cluster).wait_condition("import", NAMESPACE, "web", condition, "True")?;
        wait_for("an endpoint of each family", PATIENCE, || {
            Ok(self.endpoints()? == 2)
        })?;
        let what = "kube-proxy knows the agent again";
        wait_verdict(what, PATIENCE, client, world.address, &SERVED).map(drop)
    }

    /// The agent that cannot have the port is no endpoint any more, and the Import says why.
    fn nobody_is_sent_there(&self, other: &Server) -> Result<()> {
        let Scenery { world, client, .. } = self;
        wait_for("the endpoints are gone", PATIENCE, || {
            Ok(self.endpoints()? == 0)
        })?;
        let refused = [Verdict::Refused];
        let what = "kube-proxy has followed";
        wait_verdict(what, PATIENCE, client, world.address, &refused)?;
        let before = other.accepted()?;
        let seen = verdict(client, world.address)?;
        ensure!(seen == Verdict::Refused, "{seen:?}");
        ensure!(other.accepted()? == before, "the other one was reached");

        let condition = "ImportTargetPortValid";
        let cluster = &world.west.cluster;
        let import = cluster.wait_condition("import", NAMESPACE, "web", condition, "False")?;
        let all = import["status"]["conditions"].as_array();
        let said = all.into_iter().flatten();
        let mut said = said.filter(|one| one["type"] == condition);
        let said = said.next().context("no condition")?;
        let message = said["message"].as_str().unwrap_or_default();
        let (node, port) = (self.host().name(), self.target.port());
        ensure!(
            said["reason"] == "NotOnAnyNode"
                && message.contains(&format!("on node {node}: "))
                && message.contains(&format!("sport = :{port}")),
            "{said}"
        );
        Ok(())
    }

    /// How many endpoints the slices of the import have.
    fn endpoints(&self) -> Result<usize> {
        let plane = &self.world.west.cluster.plane;
        let label = "kubernetes.io/service-name=web";
        let slices = plane.get(&["endpointslices", "-n", NAMESPACE, "-l", label])?;
        let slices = slices["items"].as_array().context("no slices")?;
        ensure!(slices.len() == 2, "one slice of each family");
        let endpoints = slices.iter().map(|one| one["endpoints"].as_array());
        Ok(endpoints.flatten().map(Vec::len).sum())
    }

    /// Who comes by kube-proxy is known: a pod of another node by its address, the node's own process
    /// and a pod of its network, which kube-proxy masquerades, by what they were before.
    fn verdicts(&self) -> Result<()> {
        let Scenery {
            world,
            client,
            daemon,
            target,
        } = self;
        let ipv6 = (world.west.cluster).import_address_of(NAMESPACE, "web", true)?;
        let places: [&Place; 3] = [client, daemon, self.host()];
        for place in places {
            for address in [world.address, ipv6] {
                wait_verdict("by kube-proxy", PATIENCE, place, address, &SERVED)?;
            }
        }
        expect(
            "itself, to the target port",
            self.host(),
            *target,
            Verdict::Served,
        )?;
        self.flow_of("pod shop/cart", client.addresses()[0])?;
        self.flow_of("pod shop/daemon", MASQUERADED)?;
        self.flow_of("host", MASQUERADED)?;
        self.flow_of("host", target.ip())
    }

    /// Denials of pods apply to those that they name, and never to the node's own process.
    fn denials(&self) -> Result<()> {
        let Scenery {
            world,
            client,
            daemon,
            target,
        } = self;
        let west = &world.west;
        let deny = |name: &str, label: &str, value: &str| {
            let from = matching(&format!("client.clusterlink.net/{label}"), value);
            let deny = privileged_policy(name, "deny", &from, &everything());
            west.apply("deny.yaml", &[deny])
        };
        deny("no-daemon", "labels.app", "daemon")?;
        wait_verdict("it is denied", SOON, daemon, world.address, &RESET)?;
        expect("another pod", client, world.address, Verdict::Served)?;
        expect("masqueraded", self.host(), world.address, Verdict::Served)?;

        deny("lockdown", "namespace", NAMESPACE)?;
        wait_verdict("pods are denied", SOON, client, world.address, &RESET)?;
        expect("masqueraded", daemon, world.address, Verdict::Reset)?;
        expect("masqueraded", self.host(), world.address, Verdict::Served)?;
        expect(
            "itself, to the target port",
            self.host(),
            *target,
            Verdict::Served,
        )?;
        west.withdraw("deny.yaml")?;
        for place in [client, daemon] {
            wait_verdict("the deny is gone", SOON, place, world.address, &SERVED)?;
        }
        Ok(())
    }

    /// Waits for a flow of a client that shows this address.
    fn flow_of(&self, client: &str, address: IpAddr) -> Result<()> {
        wait_until(&format!("a flow of {client}"), PATIENCE, || {
            let flows = self.world.west.node.flows_json()?;
            let mut recent = flows["recent"].as_array().into_iter().flatten();
            let shows = |flow: &Value| {
                let at: Option<SocketAddr> = flow["clientAddress"].as_str()?.parse().ok();
                Some(flow["client"] == client && at?.ip() == address)
            };
            if recent.any(|flow| shows(flow) == Some(true)) {
                return Ok(Some(()));
            }
            bail!("no such flow from {address}: {flows:#}")
        })
    }

    /// A port is closed when its import goes, and free for the next one.
    fn lease(&self) -> Result<()> {
        let Scenery { world, client, .. } = self;
        let west = &world.west;
        let (plane, refused) = (&west.cluster.plane, [Verdict::Refused]);
        west.withdraw("import-web.yaml")?;
        wait_verdict("it is closed", SOON, self.host(), self.target, &refused)?;
        wait_for("the Service is gone", PATIENCE, || {
            Ok(!plane.exists(&["service", "web", "-n", NAMESPACE])?)
        })?;
        let mut again: Value = imported("web", &["east"]);
        again["spec"]["targetPort"] = self.target.port().into();
        west.apply("import-web.yaml", &[again])?;
        let condition = "ImportTargetPortValid";
        (west.cluster).wait_condition("import", NAMESPACE, "web", condition, "True")?;
        let address = west.cluster.import_address(NAMESPACE, "web")?;
        wait_verdict("it is served again", PATIENCE, client, address, &SERVED).map(drop)
    }

    /// An orderly stop leaves nobody listening, and no pins.
    fn stop(&mut self) -> Result<()> {
        let agent = self.world.west.node.agent.as_mut().context("no agent")?;
        // It hands over for 2.5 s, and open connections have 20 s.
        let status = agent.stop(Duration::from_secs(30))?;
        ensure!(status.success(), "{status}: {}", agent.log_tail());
        let seen = verdict(self.host(), self.target)?;
        ensure!(seen == Verdict::Refused, "{seen:?}");
        ensure!(!self.world.west.node.bpf_dir().exists(), "it left pins");
        Ok(())
    }
}
