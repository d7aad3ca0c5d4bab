//! A source that cannot serve is followed by the next one within the same connection.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use clusterlink_tests::manifests::{endpoint_slice, export, import, service, source};
use clusterlink_tests::traffic::{Client, Server};
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, wait_verdict};
use clusterlink_tests::{Scene, story};

/// Two exporting peers; `east` is tried first and cannot serve, `north` can.
fn two(scene: &Scene) -> Result<(World, Server)> {
    let world = World::new(scene, &["east", "north"])?;
    world.allow_all()?;
    let north = &world.exporters[1];
    let server = Server::named(north.host(), "north")?;
    let backend = SocketAddr::new(north.host().ipv4(), server.address.port());
    world.export(north, "web", 80, backend)?;
    Ok((world, server))
}

/// Every one of some connections is served by `north`, with what the client said first.
fn served_by_north(world: &World, sources: &[&str]) -> Result<()> {
    let client = world.workload("client", |pod| pod)?;
    let address = world.import("web", 80, "static", sources)?;
    wait_verdict(
        "north serves",
        Duration::from_secs(5),
        &client,
        address,
        &[Verdict::Served],
    )?;
    let all = Client::to(address)
        .say("hello")
        .count(20)
        .parallel(4)
        .run(&client)?;
    for one in &all {
        ensure!(one.succeeded() && one.text == "north", "{one:?}");
    }
    ensure!(all.len() == 20, "{} of 20 connections", all.len());
    Ok(())
}

#[test]
fn the_export_is_missing_at_the_first() -> Result<()> {
    story("no-export", |scene| {
        let (world, _server) = two(scene)?;
        served_by_north(&world, &["east", "north"])
    })
}

#[test]
fn the_first_denies() -> Result<()> {
    story("remote-denies", |scene| {
        let (world, _server) = two(scene)?;
        let backend = SocketAddr::new(world.east().host().ipv4(), 9);
        world.export(world.east(), "web", 80, backend)?;
        world.east().delete("allow-all.yaml")?;
        served_by_north(&world, &["east", "north"])
    })
}

#[test]
fn the_process_of_the_first_was_killed() -> Result<()> {
    story("remote-killed", |scene| {
        let (mut world, _server) = two(scene)?;
        world.exporters[0].kill9()?;
        served_by_north(&world, &["east", "north"])
    })
}

#[test]
fn the_backend_of_the_first_refuses() -> Result<()> {
    story("backend-refuses", |scene| {
        let (world, _server) = two(scene)?;
        // Nothing listens at the discard port of a host that the scene has made.
        let backend = SocketAddr::new(world.east().host().ipv4(), 9);
        world.export(world.east(), "web", 80, backend)?;
        served_by_north(&world, &["east", "north"])
    })
}

#[test]
fn the_first_has_no_backend() -> Result<()> {
    story("backend-list-empty", |scene| {
        let (world, _server) = two(scene)?;
        world.east().apply(
            "web.yaml",
            &[
                service(NAMESPACE, "web", 80),
                endpoint_slice(NAMESPACE, "web", &[], 8080),
                export(NAMESPACE, "web", 80),
            ],
        )?;
        served_by_north(&world, &["east", "north"])
    })
}

#[test]
fn the_first_has_no_peer_object() -> Result<()> {
    story("no-peer-object", |scene| {
        let (world, _server) = two(scene)?;
        served_by_north(&world, &["nowhere", "north"])?;
        let import = import(
            NAMESPACE,
            "lost",
            80,
            &[source("nowhere", NAMESPACE, "web")],
        );
        world.west.apply("lost.yaml", &[import])?;
        let address = world.west.import_address(NAMESPACE, "lost", false)?;
        let client = world.west.host().pod("other")?;
        wait_verdict(
            "nothing is left",
            SOON,
            &client,
            address,
            &[Verdict::Refused],
        )
        .map(drop)
    })
}
