//! How connections end, and that one which stands still costs and harms nobody.

use std::time::Duration;

use anyhow::Result;
use clusterlink_tests::stories::ends::Ends;
use clusterlink_tests::stories::idle::idle_connections_cost_nothing;
use clusterlink_tests::world::World;
use clusterlink_tests::{Scene, story};

fn world(scene: &Scene) -> Result<World> {
    let world = World::new(scene, &["east"])?;
    world.allow_all()?;
    Ok(world)
}

#[test]
fn either_side_may_end_first_and_the_other_goes_on() -> Result<()> {
    story("half-close", |scene| {
        Ends::new(&world(scene)?)?.either_side_may_end_first_and_the_other_goes_on()
    })
}

#[test]
fn a_server_may_speak_first() -> Result<()> {
    story("server-first", |scene| {
        Ends::new(&world(scene)?)?.a_server_may_speak_first()
    })
}

#[test]
fn connections_without_a_byte_end_in_order() -> Result<()> {
    story("zero-bytes", |scene| {
        Ends::new(&world(scene)?)?.connections_without_a_byte_end_in_order(200)
    })
}

#[test]
fn a_reset_is_a_reset_at_the_other_end() -> Result<()> {
    story("resets", |scene| {
        Ends::new(&world(scene)?)?.a_reset_is_a_reset_at_the_other_end()
    })
}

#[test]
fn readers_that_stop_do_not_slow_their_neighbours() -> Result<()> {
    story("stalled-readers", |scene| {
        Ends::new(&world(scene)?)?.readers_that_stop_do_not_slow_their_neighbours(4 << 20)
    })
}

#[test]
fn two_thousand_idle_connections_cost_nothing() -> Result<()> {
    story("idle", |scene| {
        let world = world(scene)?;
        let ends = Ends::new(&world)?;
        idle_connections_cost_nothing(&[&ends], 2_000, Duration::from_secs(10))
    })
}
