//! The agent of a node is killed: its pods reach the next agent, which judges them, or nobody.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::cluster::{AgentOptions, Node, PATIENCE, Pair, Site};
use clusterlink_tests::manifests::{everything, matching, privileged_policy, with_label};
use clusterlink_tests::peer::PORT;
use clusterlink_tests::stories::{Clusters, Share, Stage as _};
use clusterlink_tests::traffic::{Client, Decoys, any, datagram};
use clusterlink_tests::wait::{always, wait_for, wait_until};
use clusterlink_tests::world::{NAMESPACE, Verdict, wait_verdict};
use clusterlink_tests::{Place, Pod, Scene};

/// The port of the gateway's steering listener.
const STEERING: u16 = 4440;

/// Longer than hooks bear with a gateway that is not heard of.
const STALE: Duration = Duration::from_secs(3);

/// Who connects, and where to.
struct Astray {
    web: Share,
    allowed: Pod,
    denied: Pod,
    /// The imported address of each family, and of IPv4 in IPv6.
    targets: [SocketAddr; 3],
    target_port: u16,
    /// How often the server has answered.
    served: Cell<usize>,
}

pub(crate) fn told(scene: &Scene, pair: &mut Pair, second: &mut Node) -> Result<()> {
    second.start_agent(&pair.west.cluster, &AgentOptions::default())?;
    pair.west.node.start_proxy(&pair.west.cluster)?;
    let astray = Astray::new(pair)?;
    let router = scene.router()?;
    for (ip, rest) in [
        (astray.web.address.ip(), "/32"),
        (astray.web.ipv6.ip(), "/128 nodad"),
    ] {
        router.ip(&format!("addr add {ip}{rest} dev lo"))?;
    }
    let [host, east] = [&pair.west, &pair.east].map(|site| site.node.host().clone());
    let at = |place: &clusterlink_tests::Host, ports: &[u16]| -> Vec<SocketAddr> {
        let addresses = [place.ipv4(), place.ipv6()];
        let all = ports
            .iter()
            .flat_map(|port| addresses.map(|ip| SocketAddr::new(ip, *port)));
        all.collect()
    };
    // Whoever listens where the gateway did, at the imported addresses, or where the default route
    // leads, must not be reached.
    let everywhere = [80, 81, STEERING, PORT, astray.target_port].map(any);
    let mut decoys = vec![
        Decoys::start(&router, &everywhere)?,
        Decoys::start(&east, &at(&east, &[80, STEERING, astray.target_port]))?,
        Decoys::start(second.host(), &at(second.host(), &[80, STEERING]))?,
    ];
    let before = astray.web.server.accepted()?;
    pair.west.node.kill_agent()?;
    let killed = Instant::now();
    // The other peer goes on to dial the port of gateways here, as it should.
    let here = everywhere.iter().filter(|at| at.port() != PORT);
    let here: Vec<_> = here.copied().collect();
    decoys.push(Decoys::start(&host, &here)?);
    let untouched = || -> Result<()> {
        decoys.iter().try_for_each(Decoys::assert_untouched)?;
        let accepted = astray.web.server.accepted()? - before;
        let served = astray.served.get();
        ensure!(
            accepted == served,
            "{accepted} connections came to the server, which has answered {served}"
        );
        Ok(())
    };

    // First the hooks refuse, then they leave connects alone, and an agent is still named that is no
    // more.
    let mut rounds = 0;
    while rounds < 3 || killed.elapsed() < STALE {
        for place in [&*astray.allowed, &*astray.denied, &*host] {
            astray.everywhere(place)?;
        }
        untouched()?;
        rounds += 1;
    }
    eprintln!("{rounds} rounds, {} served", astray.served.get());

    // What the kubelet's probe reports by then.
    pair.west.node.set_agent_ready(&pair.west.cluster, false)?;
    let what = "the other agent serves the pods of this node";
    wait_until(what, PATIENCE, || {
        let seen = astray.everywhere(&astray.allowed)?;
        if seen == [Verdict::Served; 3] {
            return Ok(Some(()));
        }
        bail!("{seen:?}")
    })?;
    eprintln!("served after {:.1} s", killed.elapsed().as_secs_f32());
    for _ in 0..5 {
        for (place, wanted) in [
            (&*astray.allowed, Verdict::Served),
            (&*astray.denied, Verdict::Reset),
            (&*host, Verdict::Reset),
        ] {
            let seen = astray.everywhere(place)?;
            ensure!(seen == [wanted; 3], "{seen:?} from {}", place.name());
        }
    }
    untouched()?;
    // And they would have noticed: this one is reached from the router itself.
    Client::to(astray.web.address).once(&router)?;
    wait_for("the decoy has noticed", PATIENCE, || {
        Ok(untouched().is_err())
    })?;
    drop(decoys);
    back(pair, &astray)
}

/// The next agent steers again.
fn back(pair: &mut Pair, astray: &Astray) -> Result<()> {
    let Site { cluster, node } = &mut pair.west;
    node.run_agent(cluster, &AgentOptions::default())?;
    node.wait_ready()?;
    node.set_agent_ready(cluster, true)?;
    astray.wait_steered()
}

impl Astray {
    fn new(pair: &Pair) -> Result<Self> {
        let stage = Clusters::steered(pair);
        let web = stage.share("astray", "name", &["--name", "east"])?;
        let from = matching("client.clusterlink.net/labels.app", "denied");
        let deny = privileged_policy("denied", "deny", &from, &everything());
        stage.west().apply("denied.yaml", &[deny])?;
        let plane = &pair.west.cluster.plane;
        let target_port = wait_until("the import has a target port", PATIENCE, || {
            let import = plane.get(&["import", &web.name, "-n", NAMESPACE])?;
            let port = import["status"]["targetPort"].as_u64().context("no port")?;
            Ok(Some(u16::try_from(port)?))
        })?;
        wait_until("both agents are endpoints", PATIENCE, || {
            let label = format!("kubernetes.io/service-name={}", web.name);
            let slices = plane.get(&["endpointslices", "-n", NAMESPACE, "-l", &label])?;
            let slices = slices["items"].as_array().into_iter().flatten();
            let counts: Vec<_> = slices
                .map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len))
                .collect();
            if counts == [2, 2] {
                return Ok(Some(()));
            }
            bail!("{counts:?}")
        })?;
        let SocketAddr::V4(v4) = web.address else {
            bail!("{} is not of IPv4", web.address)
        };
        let mapped = SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port());
        let astray = Self {
            targets: [web.address, web.ipv6, mapped],
            allowed: stage.workload("allowed", |pod| pod)?,
            denied: stage.workload("denied", |pod| with_label(pod, "app", "denied"))?,
            web,
            target_port,
            served: Cell::new(0),
        };
        astray.wait_steered()?;
        Ok(astray)
    }

    /// One is served, and the other is told by `connect()` itself, which only hooks can.
    fn wait_steered(&self) -> Result<()> {
        for (client, wanted) in [
            (&self.allowed, Verdict::Served),
            (&self.denied, Verdict::Refused),
        ] {
            for target in self.targets {
                wait_verdict("it is steered", PATIENCE, client, target, &[wanted])?;
            }
        }
        Ok(())
    }

    /// Connects to each of the addresses, and sends datagrams there. Only who is allowed to may be
    /// served, by the right server, and sees the right address.
    fn everywhere(&self, place: &Place) -> Result<[Verdict; 3]> {
        let mut seen = [Verdict::Refused; 3];
        for (seen, target) in seen.iter_mut().zip(self.targets) {
            let exchange = Client::to(target).patience(Duration::from_secs(5));
            let exchange = exchange.once(place)?;
            *seen = Verdict::of(&exchange)?;
            if *seen == Verdict::Served {
                let allowed = place.name() == self.allowed.name();
                let right = exchange.text == "east" && exchange.peer_name == Some(target);
                let who = place.name();
                always(allowed && right, format_args!("{who}: {exchange:?}"))?;
                self.served.set(self.served.get() + 1);
            }
            for port in [target.port(), 53] {
                // Whether it is refused or lost is for kube-proxy to say, once hooks leave it alone.
                datagram(place, SocketAddr::new(target.ip(), port), false)?;
            }
        }
        Ok(seen)
    }
}
