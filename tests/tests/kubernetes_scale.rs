//! Many Imports in a cluster: how long they take, what they cost the API server, and what the
//! controller needs.
#![forbid(unsafe_code)]

#[path = "kubernetes_scale/load.rs"]
mod load;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clusterlink_tests::kubernetes::{ControlPlane, Request};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::{Controller, story};

/// How many there are, unless the environment says otherwise. API server and etcd spend most of the
/// time: with 5,000 the story takes minutes on two cores.
const MANY: usize = 1_000;

/// What says otherwise.
const IMPORTS: &str = "CLUSTERLINK_IMPORTS";

/// How long a busy machine may take for all of them.
const PATIENCE: Duration = Duration::from_secs(400);

const NAMESPACE: &str = "shop";

#[test]
fn thousands_of_imports_cost_a_constant_number_of_requests_each() -> Result<()> {
    let many = match std::env::var(IMPORTS) {
        Ok(text) => text.parse().context("CLUSTERLINK_IMPORTS is no number")?,
        Err(_) => MANY,
    };
    story("kubernetes-scale", |scene| {
        let host = scene.host("api")?;
        let plane = ControlPlane::start(&host)?;
        plane.install_clusterlink()?;
        plane.run(&["create", "namespace", NAMESPACE])?;
        let start = Instant::now();
        load::create_imports(&plane, NAMESPACE, many)?;
        eprintln!("{many} Imports are created in {:.1} s", seconds(start));

        let start = Instant::now();
        let mut controller = Controller::start(&scene.host("controller")?, &plane)?;
        settled(&controller, many)?;
        wait_for("every Import is served", PATIENCE, || {
            load::all_served(&plane, NAMESPACE, many)
        })?;
        eprintln!("{many} Imports converge in {:.1} s", seconds(start));
        let requests = quiet(&plane)?;
        let mut expected = 0;
        for (verb, resource, each) in [
            ("create", "services", 1),
            ("create", "endpointslices", 2),
            ("patch", "imports/status", 2),
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
        let writes = requests.iter().filter(|request| request.writes());
        let others = writes.count() - expected;
        let reads = requests.iter().filter(|request| request.verb == "list");
        eprintln!(
            "  other writes: {others}, lists: {}; the controller has {:.0} MiB, had {:.0} MiB at most",
            reads.count(),
            controller.process().memory("VmRSS")?,
            controller.process().memory("VmHWM")?,
        );
        ensure!(others <= many / 100, "{others} writes of another kind");

        let change = r#"{"spec":{"port":81}}"#;
        let arguments = [
            "patch",
            "import",
            "web-7",
            "-n",
            NAMESPACE,
            "--type=merge",
            "-p",
            change,
        ];
        let start = Instant::now();
        plane.run(&arguments)?;
        wait_for("the change is made", PATIENCE, || {
            let service = plane.get(&["service", "web-7", "-n", NAMESPACE])?;
            Ok(service["spec"]["ports"][0]["port"] == 81)
        })?;
        let took = seconds(start);
        let after = quiet(&plane)?;
        let cost: Vec<_> = after[requests.len()..]
            .iter()
            .filter(|request| request.writes())
            .collect();
        eprintln!("one change takes {took:.2} s and {} requests", cost.len());
        let object = format!("{NAMESPACE}/web-7");
        let of_it = |request: &Request| request.object == object || request.resource == "events";
        ensure!(
            cost.len() <= 4 && cost.iter().all(|request| of_it(request)),
            "{cost:?}"
        );
        Ok(())
    })
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

/// All requests but those for the lease, once there are no more of them for a while.
fn quiet(plane: &ControlPlane) -> Result<Vec<Request>> {
    let mut before = 0;
    let mut since = Instant::now();
    wait_until("nothing is asked any more", PATIENCE, || {
        let mut requests = plane.requests()?;
        requests.retain(|request| request.resource != "leases");
        let writes = requests.iter().filter(|request| request.writes()).count();
        if writes != before {
            before = writes;
            since = Instant::now();
        }
        Ok((since.elapsed() > Duration::from_secs(3)).then_some(requests))
    })
}
