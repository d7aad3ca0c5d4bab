//! How connections are spread over sources.

use anyhow::Result;
use clusterlink_tests::stories::balancing;
use clusterlink_tests::traffic::{Client, Server};
use clusterlink_tests::world::{SOON, Verdict, World, wait_verdict};
use clusterlink_tests::{PeerOptions, Pod, Scene, story};

const SOURCES: [&str; 2] = ["east", "north"];

/// Two exporting peers whose servers say which of them answers, and gateways of two workers.
struct Spread {
    world: World,
    client: Pod,
    _servers: Vec<Server>,
}

impl Spread {
    fn new(scene: &Scene) -> Result<Self> {
        let options = PeerOptions {
            workers: 2,
            flags: ["--random-seed", "7"].map(str::to_owned).to_vec(),
            ..PeerOptions::default()
        };
        let world = World::with(scene, &SOURCES, &options)?;
        world.allow_all()?;
        let client = world.workload("client", |pod| pod)?;
        let servers = world.export_names("web", 80)?;
        Ok(Self {
            world,
            client,
            _servers: servers,
        })
    }

    /// Makes connections and tells who answered each.
    fn answers(&self, scheme: &str, connections: u64) -> Result<Vec<String>> {
        let address = self.world.import("web", 80, scheme, &SOURCES)?;
        wait_verdict(
            "the import works",
            SOON,
            &self.client,
            address,
            &[Verdict::Served],
        )?;
        let calls = Client::to(address).count(connections).parallel(8);
        balancing::answers(&calls, &self.client)
    }
}

#[test]
fn round_robin_gives_concurrent_clients_equal_shares_over_all_workers() -> Result<()> {
    story("round-robin", |scene| {
        let answers = Spread::new(scene)?.answers("round-robin", 501)?;
        balancing::in_turn(&answers, SOURCES)
    })
}

#[test]
fn random_is_uniform_over_the_sources() -> Result<()> {
    story("random", |scene| {
        let answers = Spread::new(scene)?.answers("random", 3_000)?;
        let chi_square = balancing::by_equal_chance(&answers, SOURCES)?;
        eprintln!("chi-square of 3,000 draws in pairs: {chi_square:.3}");
        Ok(())
    })
}

#[test]
fn static_takes_the_first_source_always() -> Result<()> {
    story("static", |scene| {
        let answers = Spread::new(scene)?.answers("static", 200)?;
        balancing::the_first_always(&answers, "east")
    })
}
