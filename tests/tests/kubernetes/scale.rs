//! Many Imports in a cluster: how long they take, what they cost the API server, what controller and
//! agent need, and that pods use them as they would use one.

mod load;
mod shop;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clusterlink_tests::kubernetes::{ControlPlane, Request};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::world::NAMESPACE;
use clusterlink_tests::{Controller, latency, story};

use crate::scale::shop::Shop;

/// How many there are, unless the environment says otherwise. API server and etcd spend most of the
/// time: with 5,000 the story takes minutes on two cores.
const MANY: usize = 1_000;

/// What says otherwise.
const IMPORTS: &str = "CLUSTERLINK_IMPORTS";

/// How long a busy machine may take for all of them.
const PATIENCE: Duration = Duration::from_secs(400);

#[test]
fn thousands_of_imports_cost_a_constant_number_of_requests_each() -> Result<()> {
    let many = match std::env::var(IMPORTS) {
        Ok(text) => text.parse().context("CLUSTERLINK_IMPORTS is no number")?,
        Err(_) => MANY,
    };
    story("kubernetes-scale", |scene| {
        let mut shop = Shop::open(scene)?;
        let with_one = shop.latency()?;
        shop.print_memory("with one Import")?;
        let controller = shop.west.cluster.controller.take();
        controller.context("there is a controller")?.stop()?;
        let before = asked(&shop.west.cluster.plane)?.len();
        let start = Instant::now();
        load::create_imports(&shop.west.cluster.plane, NAMESPACE, many)?;
        eprintln!("{many} Imports are created in {:.1} s", seconds(start));

        let start = Instant::now();
        shop.west.cluster.start_controller()?;
        settled(shop.controller()?, many)?;
        wait_for("every Import is served", PATIENCE, || {
            load::all_served(&shop.west.cluster.plane, NAMESPACE, many)
        })?;
        eprintln!("{many} Imports converge in {:.1} s", seconds(start));
        let plane = &shop.west.cluster.plane;
        let made = quiet(plane)?.split_off(before);
        cost_of_all(many, &made)?;
        cost_of_one(plane, before + made.len())?;

        let addresses = shop.wait_served(many)?;
        shop.use_sample(scene, &addresses)?;
        shop.change(many / 2, addresses[many / 2])?;
        let with_many = shop.latency()?;
        let heading = format!("{many} Imports");
        latency::print(&[("1 Import", &with_one), (&heading, &with_many)]);
        shop.print_memory(&format!("with {many} Imports"))
    })
}

/// Each Import costs its objects, its status and what people are told of it, and nothing is written
/// twice.
fn cost_of_all(many: usize, requests: &[Request]) -> Result<()> {
    let mut expected = 0;
    for (verb, resource, each) in [
        ("create", "services", 1),
        ("create", "endpointslices", 2),
        // The target port, then conditions; what an agent says of the source may come later.
        ("patch", "imports/status", 3),
        ("create", "events", 2),
    ] {
        let is = |request: &&Request| request.verb == verb && request.resource == resource;
        let count = requests.iter().filter(is).count();
        eprintln!("  {verb} {resource}: {count}");
        ensure!(
            count <= each * many,
            "{verb} {resource} was asked {count} times for {many} Imports"
        );
        expected += count;
    }
    let objects = requests.iter().filter(|request| of_a_service(request));
    let objects = objects.count();
    ensure!(
        objects == 3 * many,
        "{objects} writes of Services and slices for {many} Imports"
    );
    let writes = requests.iter().filter(|request| request.writes());
    let others = writes.count() - expected;
    let reads = requests.iter().filter(|request| request.verb == "list");
    eprintln!("  other writes: {others}, lists: {}", reads.count());
    ensure!(others <= many / 100, "{others} writes of another kind");
    Ok(())
}

/// One change is written once, and nothing else is. So many requests were made before.
fn cost_of_one(plane: &ControlPlane, before: usize) -> Result<()> {
    let change = r#"{"spec":{"port":81}}"#;
    let what = ["patch", "import", "web-7", "-n", NAMESPACE];
    let start = Instant::now();
    plane.run(&[&what[..], &["--type=merge", "-p", change]].concat())?;
    wait_for("the change is made", PATIENCE, || {
        let service = plane.get(&["service", "web-7", "-n", NAMESPACE])?;
        Ok(service["spec"]["ports"][0]["port"] == 81)
    })?;
    let took = seconds(start);
    let mut cost = quiet(plane)?.split_off(before);
    cost.retain(Request::writes);
    eprintln!("one change takes {took:.2} s and {} requests", cost.len());
    let object = format!("{NAMESPACE}/web-7");
    let of_it = |request: &Request| request.object == object || request.resource == "events";
    let objects = cost.iter().filter(|request| of_a_service(request)).count();
    ensure!(
        cost.len() <= 4 && objects == 1 && cost.iter().all(of_it),
        "{cost:?}"
    );
    Ok(())
}

/// Whether a request writes a Service or a slice.
fn of_a_service(request: &Request) -> bool {
    request.writes() && ["services", "endpointslices"].contains(&&*request.resource)
}

fn seconds(start: Instant) -> f32 {
    start.elapsed().as_secs_f32()
}

/// Waits until as many statuses were written as there are Imports, and none is written any more.
fn settled(controller: &Controller, many: usize) -> Result<()> {
    let mut before = 0.0;
    let mut since = Instant::now();
    wait_for("no status is written any more", PATIENCE, || {
        let now = controller.status_writes()?;
        if now > before {
            before = now;
            since = Instant::now();
        }
        Ok(now >= many as f64 && since.elapsed() > Duration::from_secs(3))
    })
}

/// All requests so far but those for the lease.
fn asked(plane: &ControlPlane) -> Result<Vec<Request>> {
    let mut requests = plane.requests()?;
    requests.retain(|request| request.resource != "leases");
    Ok(requests)
}

/// [`asked`], once there are no more writes for a while.
fn quiet(plane: &ControlPlane) -> Result<Vec<Request>> {
    let mut before = 0;
    let mut since = Instant::now();
    wait_until("nothing is asked any more", PATIENCE, || {
        let requests = asked(plane)?;
        let writes = requests.iter().filter(|request| request.writes()).count();
        if writes != before {
            before = writes;
            since = Instant::now();
        }
        Ok((since.elapsed() > Duration::from_secs(3)).then_some(requests))
    })
}
