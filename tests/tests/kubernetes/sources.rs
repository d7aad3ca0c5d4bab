//! Which of several exporting peers serves a pod of a cluster: balancing, failover, an outage, and what
//! kubectl changes while connections are made; steered and by kube-proxy.

mod balance;
mod causes;
mod outage;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::cluster::{
    AgentOptions, Node, PATIENCE, Pair, SYSTEM, Workload, backends, imported,
};
use clusterlink_tests::manifests::{self, with_scheme};
use clusterlink_tests::report::Exchange;
use clusterlink_tests::stories::live::Live;
use clusterlink_tests::stories::{Clusters, Share, Stage as _, failover};
use clusterlink_tests::traffic::{Client, Server, any};
use clusterlink_tests::wait::wait_until;
use clusterlink_tests::world::{NAMESPACE, Verdict, wait_verdict};
use clusterlink_tests::{Fabric, Peer, PeerOptions, Pod, Scene, story};

/// How soon what kubectl has changed has to be in force for new connections.
const SOON: Duration = Duration::from_secs(2);

/// A cluster that imports `web` from another cluster, `east`, and from a plain host, `north`; another
/// plain host, `south`, is for what needs a peer of its own.
struct Fleet {
    pair: Pair,
    north: Peer,
    south: Peer,
    bare: Node,
    east_web: Workload,
    east_server: Server,
    north_server: Server,
}

impl Fleet {
    fn new(scene: &Scene) -> Result<Self> {
        let fabric = Fabric::create(scene, "fabric")?;
        let pair = Pair::new(scene, &fabric)?;
        let [north, south] = [
            plain(scene, &fabric, "north")?,
            plain(scene, &fabric, "south")?,
        ];
        let north_server = Server::named(north.host(), "north")?;
        exports(&north, "web", &north_server)?;

        let east = &pair.east;
        let east_web = Workload::start(&east.cluster, &east.node, NAMESPACE, "web", |pod| pod)?;
        let east_server = Server::start(&east_web, "name", any(8080), &["--name", "east"])?;
        east.export("web", &[(&east_web, 8080)])?;
        let others = [("north", north.address()), ("south", south.address())];
        pair.west.cluster.know(&others)?;
        pair.allow_all()?;
        let mut bare = Node::join(&pair.west.cluster, &scene.host("bare")?)?;
        bare.start_proxy(&pair.west.cluster)?;
        let fleet = Self {
            pair,
            north,
            south,
            bare,
            east_web,
            east_server,
            north_server,
        };
        fleet.wait_reachable()?;
        Ok(fleet)
    }

    fn wait_reachable(&self) -> Result<()> {
        for peer in ["east", "north"] {
            let west = &self.pair.west.cluster;
            west.wait_condition("peer", SYSTEM, peer, "PeerReachable", "True")?;
        }
        Ok(())
    }

    fn steered(&self) -> Clusters<'_> {
        Clusters::steered(&self.pair)
    }

    fn by_the_service_path(&self) -> Clusters<'_> {
        Clusters::by_the_service_path(&self.pair, &self.bare)
    }
}

/// A peer on a plain host that lets everybody in.
fn plain(scene: &Scene, fabric: &Fabric, name: &str) -> Result<Peer> {
    let mut peer = Peer::prepare(&scene.host(name)?, fabric, PeerOptions::default())?;
    peer.apply("peers.yaml", &[manifests::peer("west", &[])])?;
    peer.apply("allow.yaml", &[manifests::allow_all(NAMESPACE)])?;
    peer.run()?;
    Ok(peer)
}

/// Exports a server of a plain host.
fn exports(peer: &Peer, name: &str, server: &Server) -> Result<()> {
    let backend = SocketAddr::new(peer.host().ipv4(), server.address.port());
    let shared = manifests::shared(NAMESPACE, name, 80, backend);
    peer.apply(&format!("{name}.yaml"), &shared)
}

/// A client of each path.
struct Clients([(&'static str, Pod); 2]);

impl Clients {
    fn new(fleet: &Fleet) -> Result<Self> {
        Ok(Self([
            ("steered", fleet.steered().workload("client", |pod| pod)?),
            (
                "by the Service path",
                fleet.by_the_service_path().workload("client", |pod| pod)?,
            ),
        ]))
    }

    /// Waits until a peer answers the clients of both paths.
    fn hear(&self, what: &str, deadline: Duration, target: SocketAddr, peer: &str) -> Result<()> {
        let start = Instant::now();
        for (path, client) in &self.0 {
            wait_until(&format!("{path}: {what}: {peer} answers"), deadline, || {
                let patience = Duration::from_secs(2);
                let exchange = Client::to(target).patience(patience).once(client)?;
                if exchange.succeeded() && exchange.text == peer {
                    return Ok(Some(()));
                }
                bail!("{exchange:?}")
            })?;
        }
        eprintln!("{what}: {:.2} s", start.elapsed().as_secs_f32());
        Ok(())
    }
}

#[test]
fn pods_are_served_by_the_sources_that_kubectl_has_named_and_that_are_there() -> Result<()> {
    story("kubernetes-sources", |scene| {
        let mut fleet = Fleet::new(scene)?;
        let clients = Clients::new(&fleet)?;
        let west = &fleet.pair.west;
        west.import("web", "static", &["east", "north"])?;
        let web = west.cluster.import_address(NAMESPACE, "web")?;
        clients.hear("at first", PATIENCE, web, "east")?;
        outage::told(&fleet, &clients, || {
            changes(&fleet, &clients, web).context("changes")?;
            balance::told(&fleet, &clients, web).context("balancing")?;
            causes::told(&fleet, &clients).context("causes of failover")
        })
        .context("an outage")?;
        killed(&mut fleet, &clients, web).context("a killed gateway")?;
        import_that_goes(&fleet).context("an Import that goes")
    })
}

/// Each change is followed by new connections of both paths.
fn changes(fleet: &Fleet, clients: &Clients, web: SocketAddr) -> Result<()> {
    let Pair { east, west } = &fleet.pair;
    east.apply(
        "export-web.yaml",
        &backends("web", &[(&fleet.east_web, 8080)]),
    )?;
    clients.hear("an Export that goes", SOON, web, "north")?;
    east.export("web", &[(&fleet.east_web, 8080)])?;
    clients.hear("an Export that comes", SOON, web, "east")?;

    west.import("web", "static", &["north", "east"])?;
    clients.hear("an Import that changes", SOON, web, "north")?;
    west.import("web", "static", &["east", "north"])?;
    clients.hear("an Import that changes back", SOON, web, "east")?;

    let plane = &west.cluster.plane;
    plane.run(&["delete", "peer", "east", "-n", SYSTEM])?;
    clients.hear("a Peer that goes", SOON, web, "north")?;
    let astray = [("east", fleet.north.address())];
    west.cluster.know(&astray)?;
    let dialled = fleet.north.address().to_string();
    wait_until("the other gateway was dialled in vain", PATIENCE, || {
        let status = west.node.status()?;
        let mut peers = status["peers"].as_array().into_iter().flatten();
        let east = peers.find(|one| one["name"] == "east");
        let gateways = east.and_then(|east| east["gateways"].as_array());
        let mut gateways = gateways.into_iter().flatten();
        let told = gateways.any(|one| {
            one["address"] == dialled.as_str() && one["error"].is_string() && one["sessions"] == 0
        });
        if told {
            return Ok(Some(()));
        }
        bail!("{}", status["peers"])
    })?;
    clients.hear("a Peer whose gateway is another's", SOON, web, "north")?;
    west.cluster.know(&[("east", east.node.address())])?;
    clients.hear("a Peer that is mended", PATIENCE, web, "east")?;
    fleet.wait_reachable()
}

/// The gateway of `east` is killed under clients that loop, and under connections that hold.
fn killed(fleet: &mut Fleet, clients: &Clients, web: SocketAddr) -> Result<()> {
    const BEFORE: usize = 20;
    let mut held = Vec::new();
    for stage in [fleet.steered(), fleet.by_the_service_path()] {
        let echo = stage.share("echo", "echo", &[])?;
        let client = stage.workload("holder", |pod| pod)?;
        let served = [Verdict::Served];
        wait_verdict("it is shared", PATIENCE, &client, echo.address, &served)?;
        let live = Live::connect(stage.west(), &client, &echo)?;
        held.push((echo, client, live));
    }
    let mut loops = Vec::new();
    for (path, client) in &clients.0 {
        let calls = Client::to(web).say("hello").count(150);
        let calls = calls.set("--interval-ms", 20).start(client)?;
        loops.push((path, calls));
    }
    for (path, calls) in &loops {
        wait_until(&format!("{path}: it loops"), PATIENCE, || {
            let made = calls.reports::<Exchange>()?.len();
            Ok((made >= BEFORE).then_some(()))
        })?;
    }
    let start = Instant::now();
    fleet.pair.east.node.kill_agent()?;
    let mut cut = Vec::new();
    for (mut echo, client, live) in held {
        let [at_client, at_server] = live.cut(&mut echo, start)?;
        eprintln!("a killed gateway: client cut {at_client:.2?}, server cut {at_server:.2?}");
        cut.push((client, echo));
    }
    for (path, mut calls) in loops {
        calls.wait_success(PATIENCE)?;
        let all: Vec<Exchange> = calls.reports()?;
        ensure!(all.len() == 150, "{path}: {} connections", all.len());
        let failed: Vec<_> = all.iter().filter(|one| !one.succeeded()).collect();
        eprintln!("{path}: {} of 150 connections failed", failed.len());
        // The one that was in flight.
        ensure!(failed.len() <= 1, "{path}: {failed:?}");
        let short = all.iter().filter(|one| one.succeeded());
        let short = short.filter(|one| one.text != "east" && one.text != "north");
        let short: Vec<_> = short.collect();
        ensure!(short.is_empty(), "{path}: an end that was none: {short:?}");
        let last = &all[all.len() - BEFORE..];
        let north = last.iter().all(|one| one.text == "north");
        ensure!(north, "{path}: {last:?}");
    }
    let west = &fleet.pair.west;
    let refused = format!("cannot connect to {}", fleet.pair.east.node.address());
    for (client, echo) in &cut {
        failover::nobody_serves(west, client, echo, ("east", &refused))?;
    }
    let east = &mut fleet.pair.east;
    east.node
        .run_agent(&east.cluster, &AgentOptions::default())?;
    east.node.wait_ready()?;
    let west = &fleet.pair.west;
    west.apply(
        "import-web.yaml",
        &[with_scheme(imported("web", &["east", "north"]), "static")],
    )?;
    clients.hear("the gateway is back", PATIENCE, web, "east")
}

/// An Import that is deleted takes its live connections along, on both paths.
fn import_that_goes(fleet: &Fleet) -> Result<()> {
    for (path, stage) in [
        ("steered", fleet.steered()),
        ("by the Service path", fleet.by_the_service_path()),
    ] {
        let mut echo: Share = stage.share("gone", "echo", &[])?;
        let client = stage.workload("going", |pod| pod)?;
        let served = [Verdict::Served];
        wait_verdict("it is shared", PATIENCE, &client, echo.address, &served)?;
        let live = Live::connect(stage.west(), &client, &echo)?;
        let import = format!("import-{}.yaml", echo.name);
        stage.west().withdraw(&import)?;
        let start = Instant::now();
        let [at_client, at_server] = live.cut(&mut echo, start).context(path)?;
        eprintln!("{path}: client cut {at_client:.2?}, server cut {at_server:.2?}");
    }
    Ok(())
}
