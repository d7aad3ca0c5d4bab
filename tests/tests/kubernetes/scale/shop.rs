//! A cluster with an agent and a pod, and a plain host, `east`, whose services it imports.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::cluster::{PATIENCE, SYSTEM, Site, Workload};
use clusterlink_tests::latency::Latency;
use clusterlink_tests::manifests::{
    allow_all, everything, import, peer, privileged_policy, shared, source,
};
use clusterlink_tests::traffic::{Client, Server, any};
use clusterlink_tests::wait::wait_until;
use clusterlink_tests::world::{NAMESPACE, Verdict, wait_verdict};
use clusterlink_tests::{Controller, Fabric, Peer, PeerOptions, Scene};
use serde_json::{Value, json};

use crate::scale::load::{EXPORTS, export_of};

/// How soon what kubectl has changed has to be in force.
const SOON: Duration = Duration::from_secs(2);

/// How many of the Imports are connected to.
const SAMPLE: usize = 200;

/// Where the Import is that is there before all others.
const ALONE: &str = "alone";

pub(crate) struct Shop {
    pub(crate) west: Site,
    _east: Peer,
    client: Workload,
    alone: SocketAddr,
    _servers: Vec<Server>,
}

impl Shop {
    /// One Import works.
    pub(crate) fn open(scene: &Scene) -> Result<Self> {
        let fabric = Fabric::create(scene, "fabric")?;
        let west = Site::start(scene, &fabric, "west", &[])?;
        let mut east = Peer::prepare(&scene.host("east")?, &fabric, PeerOptions::default())?;
        east.apply("peers.yaml", &[peer("west", &[])])?;
        east.apply("allow.yaml", &[allow_all(NAMESPACE)])?;
        let serve = |number| {
            let name = export_of(number);
            let flags = ["--name", &name, "--quiet"];
            let server = Server::start(east.host(), "name", any(0), &flags)?;
            let backend = SocketAddr::new(east.host().ipv4(), server.address.port());
            let manifests = shared(NAMESPACE, &name, 80, backend);
            east.apply(&format!("{name}.yaml"), &manifests)?;
            Ok(server)
        };
        let servers: Result<Vec<_>> = (0..EXPORTS).map(serve).collect();
        let servers = servers?;
        east.run()?;
        west.cluster.know(&[("east", east.address())])?;

        let all = everything();
        let allow = privileged_policy("all", "allow", &all, &all);
        let sources = [source("east", NAMESPACE, &export_of(0))];
        west.cluster.namespace(ALONE)?;
        west.apply("alone.yaml", &[allow, import(ALONE, "one", 80, &sources)])?;
        let client = Workload::start(&west.cluster, &west.node, NAMESPACE, "client", |pod| pod)?;
        let alone = west.cluster.import_address(ALONE, "one")?;
        let peer = "PeerReachable";
        west.cluster
            .wait_condition("peer", SYSTEM, "east", peer, "True")?;
        let served = [Verdict::Served];
        wait_verdict("one Import works", PATIENCE, &client, alone, &served)?;
        Ok(Self {
            west,
            _east: east,
            client,
            alone,
            _servers: servers,
        })
    }

    /// The controller, which runs.
    pub(crate) fn controller(&mut self) -> Result<&mut Controller> {
        let controller = self.west.cluster.controller.as_mut();
        controller.context("no controller runs")
    }

    /// How long connections to the Import take that was there first.
    pub(crate) fn latency(&self) -> Result<Latency> {
        let mut latency = Latency::default();
        for _ in 0..3 {
            latency.round(&self.client, self.alone)?;
        }
        Ok(latency)
    }

    /// Prints what the memory of both processes is by now.
    pub(crate) fn print_memory(&mut self, when: &str) -> Result<()> {
        let agent = self.west.node.agent.as_ref().context("no agent runs")?;
        let (own, maps) = (agent.memory("VmRSS")?, agent.maps_memory()?);
        let controller = self.controller()?.process();
        let (now, most) = (controller.memory("VmRSS")?, controller.memory("VmHWM")?);
        eprintln!(
            "memory {when}: the controller {now:.0} MiB, {most:.0} MiB at most; the agent {own:.0} MiB, its maps in the kernel {maps:.0} MiB"
        );
        Ok(())
    }

    /// Waits until the agent serves all Imports, and gives their addresses by their numbers.
    pub(crate) fn wait_served(&self, many: usize) -> Result<Vec<SocketAddr>> {
        wait_until("the agent serves all Imports", PATIENCE, || {
            let status = self.west.node.status()?;
            let imports = status["imports"].as_array().context("no imports")?;
            let mut addresses = vec![None; many];
            for import in imports {
                let name = import["name"]["name"].as_str().context("no name")?;
                let number = name.strip_prefix("web-").and_then(|one| one.parse().ok());
                let Some(number) = number.filter(|number: &usize| *number < many) else {
                    continue;
                };
                addresses[number] = address(import);
            }
            let known = addresses.iter().flatten().count();
            let all: Option<Vec<_>> = addresses.into_iter().collect();
            all.with_context(|| format!("it serves {known}")).map(Some)
        })
    }

    /// A sample of the Imports leads the pod to the services that each is of.
    pub(crate) fn use_sample(&self, scene: &Scene, addresses: &[SocketAddr]) -> Result<()> {
        // An odd step meets every one of the services.
        let step = (addresses.len() / SAMPLE) | 1;
        let numbers: Vec<usize> = (0..addresses.len()).step_by(step).collect();
        let lines = numbers.iter().map(|number| addresses[*number].to_string());
        let file = scene.directory().join("targets");
        fs::write(&file, lines.collect::<Vec<_>>().join("\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let start = Instant::now();
        let calls = Client::to(format!("@{}", file.display())).count(numbers.len() as u64);
        let all = calls.parallel(4).run(&self.client)?;
        ensure!(all.len() == numbers.len(), "{} connections", all.len());
        for one in &all {
            let number = numbers[usize::try_from(one.index)?];
            let wanted = export_of(number);
            let served = one.succeeded() && one.text == wanted;
            ensure!(served, "web-{number} is of {wanted}: {one:?}");
        }
        let took = start.elapsed().as_secs_f32();
        eprintln!("{} of them connected to in {took:.1} s", all.len());
        Ok(())
    }

    /// One thing among all is changed after the other, and in force soon.
    pub(crate) fn change(&self, number: usize, target: SocketAddr) -> Result<()> {
        let (plane, name) = (&self.west.cluster.plane, format!("web-{number}"));
        let other = export_of(number + 1);
        let patch = json!({"spec": {"sources": [source("east", NAMESPACE, &other)]}}).to_string();
        let what = ["patch", "import", &name, "-n", NAMESPACE];
        plane.run(&[&what[..], &["--type=merge", "-p", &patch]].concat())?;
        in_force("a source", || {
            wait_until(&format!("{other} answers"), SOON, || {
                let one = Client::to(target).once(&self.client)?;
                if one.succeeded() && one.text == other {
                    return Ok(Some(()));
                }
                bail!("{one:?}")
            })
        })?;
        let deny = privileged_policy("late", "deny", &everything(), &everything());
        self.west.apply("late.yaml", &[deny])?;
        in_force("a policy that denies", || {
            self.sees(target, Verdict::Refused)
        })?;
        self.west.withdraw("late.yaml")?;
        in_force("its end", || self.sees(target, Verdict::Served))
    }

    fn sees(&self, target: SocketAddr, wanted: Verdict) -> Result<()> {
        wait_verdict("as it says", SOON, &self.client, target, &[wanted]).map(drop)
    }
}

/// The address of IPv4 and the port that clients connect to, once agents serve it.
fn address(import: &Value) -> Option<SocketAddr> {
    import["targetPort"].as_u64()?;
    let addresses = import["addresses"].as_array()?.iter();
    let mut addresses = addresses.filter_map(|one| one.as_str()?.parse().ok());
    let address = addresses.find(IpAddr::is_ipv4)?;
    let port = import["port"].as_u64()?;
    Some(SocketAddr::new(address, u16::try_from(port).ok()?))
}

fn in_force(what: &str, wait: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    wait().with_context(|| what.to_owned())?;
    let took = start.elapsed();
    eprintln!("{what} is in force after {:.2} s", took.as_secs_f32());
    ensure!(took < SOON, "{what} took {took:?}");
    Ok(())
}
