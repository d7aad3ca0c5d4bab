//! Changes of manifests: how soon new connections follow them, and how soon live ones are cut.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clusterlink_tests::manifests::{
    self, allow_all, endpoint_slice, everything, privileged_policy, service, source, with_label,
    with_scheme,
};
use clusterlink_tests::report::{Exchange, ServerEvent};
use clusterlink_tests::stories::changes;
use clusterlink_tests::traffic::{Client, Server};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, wait_verdict};
use clusterlink_tests::{Peer, PeerOptions, Pod, Process, Scene, story};
use serde_json::Value;

/// How soon a live connection that may no longer be has to end, at both ends.
const CUT: Duration = Duration::from_secs(2);

/// What a client may see of a connection that its own side lets through and the other does not.
const REFUSED_BY_THE_OTHER: [Verdict; 2] = [Verdict::Reset, Verdict::Refused];

/// A shared echo service, and one workload that uses it.
struct Stage {
    world: World,
    client: Pod,
    server: Server,
}

/// What a live connection says, by which the server's report of it is known.
const GREETING: &str = "hello";

/// A connection that holds.
struct Live {
    client: Process,
    /// Its number at the server is at least this.
    from: u64,
}

fn stage(scene: &Scene, flags: &[&str]) -> Result<Stage> {
    let options = PeerOptions {
        flags: flags.iter().map(ToString::to_string).collect(),
        ..PeerOptions::default()
    };
    let world = World::with(scene, &["east"], &options)?;
    world.allow_all()?;
    let client = world.workload("client", |pod| with_label(pod, "app", "cart"))?;
    let server = Server::echo(world.east().host())?;
    world.export(world.east(), "web", 80, backend(world.east(), &server))?;
    world.import("web", 80, "static", &["east"])?;
    let stage = Stage {
        world,
        client,
        server,
    };
    stage.served("at first")?;
    Ok(stage)
}

fn backend(peer: &Peer, server: &Server) -> SocketAddr {
    SocketAddr::new(peer.host().ipv4(), server.address.port())
}

impl Stage {
    fn address(&self) -> Result<SocketAddr> {
        self.world.west.import_address(NAMESPACE, "web", false)
    }

    /// Waits until a new connection works.
    fn served(&self, when: &str) -> Result<()> {
        let address = self.address()?;
        let what = format!("it works {when}");
        wait_verdict(&what, SOON, &self.client, address, &[Verdict::Served]).map(drop)
    }

    /// A connection on which an echo came back, and which then holds.
    fn connected(&self) -> Result<Live> {
        let from = self.server.accepted()? as u64;
        let client = Client::to(self.address()?)
            .say(GREETING)
            .flag("--keep-open")
            .start(&self.client)?;
        wait_for("the echo is back", Duration::from_secs(5), || {
            let flows = self.world.west.flows()?;
            let live = flows["live"].as_array().context("no live flows")?;
            Ok(live.iter().any(|one| one["bytesReceived"] == 5))
        })?;
        Ok(Live { client, from })
    }

    /// Makes a change under a live connection: new ones follow it within a second, and the live one
    /// ends within two, as a reset, at both ends; the flow logs say `reasons` (importing, exporting).
    fn cut_by(
        &mut self,
        what: &str,
        wanted: &[Verdict],
        reasons: [&str; 2],
        change: impl FnOnce(&World) -> Result<()>,
    ) -> Result<()> {
        let mut live = self.connected()?;
        let address = self.address()?;
        let start = Instant::now();
        change(&self.world).with_context(|| format!("changing {what}"))?;
        let place = &self.client;
        wait_until(&format!("{what} is in force"), SOON, || {
            let exchange = Client::to(address)
                .patience(Duration::from_millis(200))
                .once(place)?;
            if exchange.succeeded() {
                return Ok(None);
            }
            // An address that is nobody's any more is out of our hands.
            if wanted.is_empty() || wanted.contains(&Verdict::of(&exchange)?) {
                return Ok(Some(()));
            }
            bail!("{exchange:?}")
        })?;
        let in_force = start.elapsed();
        live.client
            .wait(CUT.saturating_sub(start.elapsed()))
            .with_context(|| format!("{what}: the client's end"))?;
        let at_client = start.elapsed();
        let left = CUT.saturating_sub(start.elapsed());
        let receive_end = self
            .server
            .process
            .wait_report("the live connection's end", left, |event| match event {
                ServerEvent::Closed {
                    connection,
                    received,
                    receive_end,
                    ..
                } if connection >= live.from && received.bytes == GREETING.len() as u64 => {
                    Some(receive_end)
                }
                _ => None,
            })
            .with_context(|| format!("{what}: the server's end"))?;
        let at_server = start.elapsed();
        let ends: Vec<Exchange> = live.client.reports()?;
        let [end] = ends.as_slice() else {
            bail!("{what}: {ends:?}")
        };
        ensure!(end.receive_end.is_reset(), "{what}: the client saw {end:?}");
        ensure!(
            receive_end.is_reset(),
            "{what}: the server saw {receive_end:?}"
        );
        self.logged(what, reasons)?;
        eprintln!(
            "{what}: in force {:.2} s, client cut {:.2} s, server cut {:.2} s",
            in_force.as_secs_f32(),
            at_client.as_secs_f32(),
            at_server.as_secs_f32()
        );
        Ok(())
    }

    /// Both flow logs say why the connection that carried the greeting ended.
    fn logged(&self, what: &str, reasons: [&str; 2]) -> Result<()> {
        for (peer, reason) in [&self.world.west, self.world.east()]
            .into_iter()
            .zip(reasons)
        {
            let what = format!("{what}: the log of {} says {reason}", peer.name());
            wait_until(&what, SOON, || {
                let flows = peer.flows()?;
                let recent = flows["recent"].as_array().context("no recent flows")?;
                let carried = |flow: &&Value| flow["bytesSent"] == 5 && flow["bytesReceived"] == 5;
                let last = recent
                    .iter()
                    .filter(carried)
                    .max_by_key(|flow| flow["endedMs"].as_u64());
                let last = last.context("the flow is not among the recent ones")?;
                if last["reason"] == reason {
                    Ok(Some(()))
                } else {
                    bail!("{last:#}")
                }
            })?;
        }
        Ok(())
    }
}

fn deny(from: &Value, to: &Value) -> [Value; 1] {
    [privileged_policy("deny", "deny", from, to)]
}

#[test]
fn a_policy_that_comes_cuts_what_it_denies() -> Result<()> {
    story("changes-policy", |scene| {
        let mut stage = stage(scene, &[])?;
        let all = everything();
        stage.cut_by(
            "a deny at the importing peer",
            &[Verdict::Refused],
            ["denied", "peer-reset"],
            |world| world.west.apply("deny.yaml", &deny(&all, &all)),
        )?;
        stage.world.west.delete("deny.yaml")?;
        stage.served("without the importing peer's deny")?;
        stage.cut_by(
            "a deny at the exporting peer",
            &REFUSED_BY_THE_OTHER,
            ["peer-reset", "denied"],
            |world| world.east().apply("deny.yaml", &deny(&all, &all)),
        )?;
        stage.world.east().delete("deny.yaml")?;
        stage.served("without the exporting peer's deny")?;
        stage.cut_by(
            "an allow that goes at the exporting peer",
            &REFUSED_BY_THE_OTHER,
            ["peer-reset", "denied"],
            |world| world.east().delete("allow-all.yaml"),
        )?;
        stage
            .world
            .east()
            .apply("allow-all.yaml", &[allow_all(NAMESPACE)])?;
        stage.served("with the allow again")
    })
}

#[test]
fn labels_of_everything_are_judged_at_both_peers_as_they_change() -> Result<()> {
    story("changes-labels", |scene| {
        let world = World::new(scene, &["east"])?;
        changes::labels_of_everything_are_judged_as_they_change(&world)
    })
}

#[test]
fn exports_imports_and_peers_that_go_take_their_connections_along() -> Result<()> {
    story("changes-objects", |scene| {
        let mut stage = stage(scene, &["--require-listed-peers"])?;
        let rest = [
            service(NAMESPACE, "web", 80),
            endpoint_slice(
                NAMESPACE,
                "web",
                &[stage.world.east().host().ipv4()],
                stage.server.address.port(),
            ),
        ];
        stage.cut_by(
            "an Export that goes",
            &REFUSED_BY_THE_OTHER,
            ["peer-reset", "removed"],
            |world| world.east().apply("web.yaml", &rest),
        )?;
        let address = backend(stage.world.east(), &stage.server);
        stage.world.export(stage.world.east(), "web", 80, address)?;
        stage.served("with the Export again")?;

        stage.cut_by(
            "an Import that goes",
            &[],
            ["removed", "peer-reset"],
            |world| world.west.delete("web.yaml"),
        )?;
        stage.world.import("web", 80, "static", &["east"])?;
        stage.served("with the Import again")?;

        let called = [manifests::peer("east", &[stage.world.east().address()])];
        stage.cut_by(
            "the called Peer that goes",
            &REFUSED_BY_THE_OTHER,
            ["removed", "session-lost"],
            |world| world.west.delete("peers.yaml"),
        )?;
        stage.world.west.apply("peers.yaml", &called)?;
        stage.served("with the called Peer again")?;

        stage.cut_by(
            "the calling Peer that goes where peers must be listed",
            &REFUSED_BY_THE_OTHER,
            ["session-lost", "session-lost"],
            |world| world.east().delete("peers.yaml"),
        )?;
        let caller = [manifests::peer("west", &[])];
        stage.world.east().apply("peers.yaml", &caller)?;
        stage.world.west.wait_connected("east")?;
        stage.served("with the calling Peer again")
    })
}

#[test]
fn new_connections_follow_ports_backends_sources_and_gateways_and_live_ones_stay() -> Result<()> {
    story("changes-new", |scene| {
        let world = World::new(scene, &["east", "north"])?;
        world.allow_all()?;
        let client = world.workload("client", |pod| pod)?;
        let name = |place, name| {
            Server::start(
                place,
                "greet",
                clusterlink_tests::traffic::any(0),
                &["--name", name],
            )
        };
        let [east, north] = [&world.exporters[0], &world.exporters[1]];
        let (first, second) = (name(east.host(), "first")?, name(east.host(), "second")?);
        let third = name(north.host(), "third")?;
        world.export(east, "web", 80, backend(east, &first))?;
        world.export(north, "web", 80, backend(north, &third))?;
        let address = world.import("web", 80, "static", &["east"])?;
        let hears = |what: &str, target: SocketAddr, wanted: &str| -> Result<()> {
            let start = Instant::now();
            wait_until(&format!("{what}: {wanted} answers"), SOON, || {
                let exchange = Client::to(target).once(&client)?;
                if exchange.text.trim() == wanted {
                    Ok(Some(()))
                } else {
                    bail!("{exchange:?}")
                }
            })?;
            eprintln!("{what}: {:.2} s", start.elapsed().as_secs_f32());
            Ok(())
        };
        hears("at first", address, "first")?;
        let mut live = Client::to(address).flag("--keep-open").start(&client)?;
        wait_for("a connection holds", SOON, || {
            let flows = world.west.flows()?;
            Ok(flows["live"]
                .as_array()
                .is_some_and(|live| !live.is_empty()))
        })?;

        world.export(east, "web", 80, backend(east, &second))?;
        hears("a changed backend", address, "second")?;
        let changed = manifests::import(NAMESPACE, "web", 80, &[source("north", NAMESPACE, "web")]);
        world
            .west
            .apply("web.yaml", std::slice::from_ref(&changed))?;
        hears("a changed source", address, "third")?;
        let import = manifests::import(NAMESPACE, "web", 8080, &[source("east", NAMESPACE, "web")]);
        world
            .west
            .apply("web.yaml", &[with_scheme(import, "static")])?;
        let address = SocketAddr::new(address.ip(), 8080);
        hears("a changed port of the Import", address, "second")?;

        // The name east now leads to another host's gateway, whose certificate says north.
        let astray = manifests::peer("east", &[north.address()]);
        let right = manifests::peer("east", &[east.address()]);
        let other = manifests::peer("north", &[north.address()]);
        world.west.apply("peers.yaml", &[astray, other.clone()])?;
        wait_verdict(
            "a gateway of another name",
            SOON,
            &client,
            address,
            &REFUSED_BY_THE_OTHER,
        )?;
        world.west.apply("peers.yaml", &[right, other])?;
        hears("the right gateway again", address, "second")?;
        ensure!(
            live.ended()?.is_none(),
            "a change that denies nothing cut a connection"
        );
        live.kill9()
    })
}
