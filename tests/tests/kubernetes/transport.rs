//! Bytes go from a pod of one cluster to a pod of another and arrive, connections end as they were
//! ended, and stand still for nothing; steered and by kube-proxy.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clusterlink_tests::cluster::{Node, Pair};
use clusterlink_tests::stories::ends::Ends;
use clusterlink_tests::stories::idle::idle_connections_cost_nothing;
use clusterlink_tests::stories::{Clusters, Stage, transport};
use clusterlink_tests::world::{Verdict, wait_verdict};
use clusterlink_tests::{Fabric, story};

const MEBIBYTE: u64 = 1 << 20;

/// How long kube-proxy may take to start and to program a Service.
const PROXY: Duration = Duration::from_secs(30);

#[test]
fn bytes_arrive_from_cluster_to_cluster_steered_and_by_kube_proxy() -> Result<()> {
    story("kubernetes-transport", |scene| {
        let fabric = Fabric::create(scene, "fabric")?;
        let pair = Pair::new(scene, &fabric)?;
        pair.wait_connected()?;
        pair.allow_all()?;
        let steered = Clusters::steered(&pair);
        told(&steered).context("steered")?;
        let steered_ends = ends(&steered).context("steered")?;
        transport::datagrams_to_an_imported_address_are_refused(&steered)?;

        let mut bare = Node::join(&pair.west.cluster, &scene.host("bare")?)?;
        bare.start_proxy(&pair.west.cluster)?;
        let bare = Clusters::by_the_service_path(&pair, &bare);
        let probe = bare.share("probe", "name", &[])?;
        let client = bare.workload("probe", |pod| pod)?;
        let served = [Verdict::Served];
        wait_verdict("kube-proxy serves", PROXY, &client, probe.address, &served)?;
        told(&bare).context("by the Service path")?;
        let bare_ends = ends(&bare).context("by the Service path")?;
        let both = [&steered_ends, &bare_ends];
        idle_connections_cost_nothing(&both, 1_000, Duration::from_secs(5))
    })
}

fn told(stage: &impl Stage) -> Result<()> {
    transport::a_web_server_is_reached_by_name(stage)?;
    transport::bulk_arrives_intact_each_way(stage, 64 * MEBIBYTE)?;
    transport::eight_transfers_at_once_arrive_intact(stage, 8 * MEBIBYTE)?;
    transport::every_family_of_client_is_served(stage)
}

fn ends<S: Stage>(stage: &S) -> Result<Ends<'_, S>> {
    let start = Instant::now();
    let mut ends = Ends::new(stage)?;
    ends.either_side_may_end_first_and_the_other_goes_on()?;
    ends.a_server_may_speak_first()?;
    ends.connections_without_a_byte_end_in_order(100)?;
    ends.a_reset_is_a_reset_at_the_other_end()?;
    ends.readers_that_stop_do_not_slow_their_neighbours(MEBIBYTE)?;
    eprintln!("ends: {:.1} s", start.elapsed().as_secs_f32());
    Ok(ends)
}
