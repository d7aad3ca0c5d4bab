//! How connections are spread over sources.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use clusterlink_tests::report::Exchange;
use clusterlink_tests::traffic::{Client, Server};
use clusterlink_tests::world::{SOON, Verdict, World, wait_verdict};
use clusterlink_tests::{PeerOptions, Pod, Scene, story};

/// The critical value of chi-square with one degree of freedom for p = 1e-6.
const CHI_SQUARE: f64 = 23.93;

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
        let world = World::with(scene, &["east", "north"], &options)?;
        world.allow_all()?;
        let client = world.workload("client", |pod| pod)?;
        let mut servers = Vec::new();
        for peer in &world.exporters {
            let server = Server::named(peer.host(), peer.name())?;
            let backend = SocketAddr::new(peer.host().ipv4(), server.address.port());
            world.export(peer, "web", 80, backend)?;
            servers.push(server);
        }
        Ok(Self {
            world,
            client,
            _servers: servers,
        })
    }

    /// Makes connections and counts who answered.
    fn count(&self, scheme: &str, connections: u64) -> Result<BTreeMap<String, u64>> {
        let address = self.world.import("web", 80, scheme, &["east", "north"])?;
        wait_verdict(
            "the import works",
            SOON,
            &self.client,
            address,
            &[Verdict::Served],
        )?;
        let all = Client::to(address)
            .count(connections)
            .parallel(8)
            .run(&self.client)?;
        ensure!(
            all.iter().all(Exchange::succeeded),
            "a connection failed: {:?}",
            all.iter().find(|one| !one.succeeded())
        );
        let mut counts = BTreeMap::new();
        for one in all {
            *counts.entry(one.text).or_default() += 1;
        }
        Ok(counts)
    }
}

#[test]
fn round_robin_gives_concurrent_clients_equal_shares_over_all_workers() -> Result<()> {
    story("round-robin", |scene| {
        let spread = Spread::new(scene)?;
        let counts = spread.count("round-robin", 501)?;
        let (most, least) = (counts.values().max(), counts.values().min());
        ensure!(
            counts.len() == 2
                && most
                    .zip(least)
                    .is_some_and(|(most, least)| most - least <= 1),
            "{counts:?}"
        );
        Ok(())
    })
}

#[test]
fn random_is_uniform_over_the_sources() -> Result<()> {
    story("random", |scene| {
        let spread = Spread::new(scene)?;
        let counts = spread.count("random", 3_000)?;
        let expected = 1_500.0;
        let chi_square: f64 = ["east", "north"]
            .iter()
            .map(|name| counts.get(*name).map_or(0.0, |count| *count as f64))
            .map(|count| (count - expected) * (count - expected) / expected)
            .sum();
        eprintln!("chi-square of 3,000 draws: {chi_square:.3} ({counts:?})");
        ensure!(
            chi_square < CHI_SQUARE,
            "chi-square is {chi_square:.2}: {counts:?}"
        );
        Ok(())
    })
}

#[test]
fn static_takes_the_first_source_always() -> Result<()> {
    story("static", |scene| {
        let spread = Spread::new(scene)?;
        let counts = spread.count("static", 200)?;
        ensure!(
            counts == BTreeMap::from([("east".to_owned(), 200)]),
            "{counts:?}"
        );
        Ok(())
    })
}
