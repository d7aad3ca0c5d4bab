//! How the connections of both paths are spread over the sources, as the Import says: steered, and
//! by the Service path, where the agent of another node draws for each connection as well.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clusterlink_tests::Pod;
use clusterlink_tests::cluster::PATIENCE;
use clusterlink_tests::stories::balancing;
use clusterlink_tests::traffic::Client;
use clusterlink_tests::wait::wait_until;

use crate::sources::{Clients, Fleet};

const SOURCES: [&str; 2] = ["east", "north"];

/// How many connections are drawn for in a row.
const DRAWS: u64 = 2_000;

pub(crate) fn told(fleet: &Fleet, clients: &Clients, web: SocketAddr) -> Result<()> {
    let calls = |count, parallel| Client::to(web).count(count).parallel(parallel);
    each(fleet, clients, "random", |client| {
        let answers = balancing::answers(&calls(DRAWS, 1), client)?;
        let chi_square = balancing::by_equal_chance(&answers, SOURCES)?;
        Ok(format!(
            "chi-square of {DRAWS} draws in pairs {chi_square:.3}"
        ))
    })?;
    each(fleet, clients, "static", |client| {
        let answers = balancing::answers(&calls(200, 4), client)?;
        balancing::the_first_always(&answers, "east")?;
        Ok("the first always".to_owned())
    })?;
    each(fleet, clients, "round-robin", |client| {
        let answers = balancing::answers(&calls(101, 4), client)?;
        balancing::in_turn(&answers, SOURCES)?;
        Ok("equal shares".to_owned())
    })
}

/// Puts a scheme into force and hears what the clients of both paths have to say of it.
fn each(
    fleet: &Fleet,
    clients: &Clients,
    scheme: &str,
    hear: impl Fn(&Pod) -> Result<String>,
) -> Result<()> {
    let west = &fleet.pair.west;
    west.import("web", scheme, &SOURCES)?;
    wait_until(&format!("{scheme} is in force"), PATIENCE, || {
        let status = west.node.status()?;
        let mut imports = status["imports"].as_array().into_iter().flatten();
        let web = imports.find(|one| one["name"]["name"] == "web");
        let web = web.context("the Import is unknown")?;
        if web["scheme"] == scheme {
            return Ok(Some(()));
        }
        bail!("{web}")
    })?;
    for (path, client) in &clients.0 {
        let start = Instant::now();
        let heard = hear(client).with_context(|| format!("{scheme}, {path}"))?;
        let took = start.elapsed();
        eprintln!("{scheme}, {path}: {heard} ({took:.1?})");
    }
    Ok(())
}
