//! A peer that is there but cannot be reached: its link is cut, and nobody is told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clusterlink_tests::report::Exchange;
use clusterlink_tests::stories::Stage as _;
use clusterlink_tests::stories::bodies::Bodies;
use clusterlink_tests::stories::outage::{self, PATIENCE};
use clusterlink_tests::traffic::{Client, Server};
use clusterlink_tests::wait::wait_for;
use clusterlink_tests::world::{SOON, Verdict, World, wait_verdict};
use clusterlink_tests::{Place, Pod, Process, Scene, story};

struct Stage {
    world: World,
    client: Pod,
    router: Place,
    /// A service that both peers export, east first.
    web: SocketAddr,
    /// A stream to east and back.
    stream: Process,
    _servers: Vec<Server>,
}

fn stage(scene: &Scene) -> Result<Stage> {
    let world = World::new(scene, &["east", "north"])?;
    world.allow_all()?;
    let client = world.workload("client", |pod| pod)?;
    let mut servers = world.export_names("web", 80)?;
    let east = world.east();
    let echo = Server::echo(east.host())?;
    let backend = SocketAddr::new(east.host().ipv4(), echo.address.port());
    world.export(east, "echo", 80, backend)?;
    servers.push(echo);
    let web = world.import("web", 80, "static", &["east", "north"])?;
    let echo = world.import("echo", 80, "static", &["east"])?;
    for address in [web, echo] {
        wait_verdict("it works", SOON, &client, address, &[Verdict::Served])?;
    }
    let stream = Client::to(echo)
        .flag("--forever")
        .set("--chunk", 64)
        .set("--pace-ms", 50)
        .patience(Duration::from_secs(120))
        .start(&client)?;
    let stage = Stage {
        world,
        client,
        router: scene.router()?,
        web,
        stream,
        _servers: servers,
    };
    stage.flows_on(0)?;
    Ok(stage)
}

impl Stage {
    /// Cuts east off from everybody else, or lets it back; its own end sees no more than a cable
    /// that is pulled.
    fn east(&self, state: &str) -> Result<()> {
        self.router.ip(&format!("link set east {state}"))
    }

    /// How much of the stream has come to the client.
    fn received(&self) -> Result<u64> {
        let flows = self.world.west.flows()?;
        let live = flows["live"].as_array().context("no live flows")?;
        let stream = live.iter().find(|flow| flow["import"]["name"] == "echo");
        let stream = stream.context("the stream is over")?;
        stream["bytesReceived"].as_u64().context("no bytes")
    }

    /// Waits until more than so much has come.
    fn flows_on(&self, before: u64) -> Result<()> {
        let soon = Duration::from_secs(10);
        wait_for("the stream flows", soon, || Ok(self.received()? > before))
    }

    fn served_by(&self, name: &str, text: &str) -> Result<()> {
        outage::is_served_by(name, &self.client, self.web, text)
    }

    /// Waits until east is the one that serves.
    fn east_serves_again(&self) -> Result<()> {
        wait_for("east serves again", Duration::from_secs(20), || {
            Ok(outage::once(&self.client, self.web, "hello")?.text == "east")
        })
    }
}

#[test]
fn an_outage_costs_new_clients_less_than_a_second_and_a_stream_what_tcp_would() -> Result<()> {
    story("outage", |scene| {
        let mut stage = stage(scene)?;
        stage.served_by("east", "hello")?;

        stage.east("down")?;
        let cut = (Instant::now(), Duration::from_secs(5));
        outage::the_next_source_serves("north", &stage.client, stage.web, cut)?;
        let before = stage.received()?;
        stage.east("up")?;
        stage.flows_on(before)?;
        ensure!(stage.stream.ended()?.is_none(), "the stream has ended");
        stage.east_serves_again()?;

        let before = stage.received()?;
        stage.flows_on(before)?;
        let [down, up] = [("down", "trickle"), ("up", "sink")];
        let share = |(name, mode)| stage.world.share(name, mode, &[]);
        let bodies = Bodies::slow(stage.client.clone(), [share(down)?, share(up)?]);
        let flowing = bodies.flow(&stage.world.west, 4)?;
        stage.east("down")?;
        let cut = Instant::now();
        let patience = PATIENCE + Duration::from_secs(10);
        stage.stream.wait(patience)?;
        ensure!(cut.elapsed() > PATIENCE / 2, "after {:?}", cut.elapsed());
        let all: Vec<Exchange> = stage.stream.reports()?;
        let one = all.first().context("the stream's client reports nothing")?;
        // A socket reports its reset once: to whoever reads or writes next.
        let ends = [one.send_end, one.receive_end];
        ensure!(ends.iter().any(|end| end.is_reset()), "{one:?}");
        for bodies in flowing {
            bodies.are_reset_within(patience.saturating_sub(cut.elapsed()))?;
        }
        stage.served_by("north", "hello")?;
        stage.east("up")?;
        stage.east_serves_again()
    })
}
