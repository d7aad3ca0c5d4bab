//! A controller and its API server that do not hear of each other for a while.

mod shop;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clusterlink_tests::conditions::SOON;
use clusterlink_tests::kubernetes::Request;
use clusterlink_tests::wait::{always, wait_for};
use clusterlink_tests::{Controller, ControllerOptions, story};

use shop::Shop;

/// What Services and EndpointSlices are decided upon.
const DECIDING: [&str; 5] = ["imports", "services", "endpointslices", "pods", "nodes"];

/// How long the network is cut.
const CUT: Duration = Duration::from_secs(30);

/// How long it may take from the return of the network until all is as it should be; connections that
/// nobody has given up learn of it only when TCP tries again, which is as long after as the cut took.
const BACK: Duration = Duration::from_secs(20);

#[test]
fn a_leader_that_is_cut_off_writes_no_more_and_learns_of_everything_afterwards() -> Result<()> {
    story("kubernetes-cut", |scene| {
        let shop = Shop::new(scene)?;
        let host = scene.host("first")?;
        let first = Controller::start_with(&host, &shop.plane, &ControllerOptions::named("first"))?;
        wait_for("the first leads", SOON, || first.leads())?;
        let other = scene.host("second")?;
        let options = ControllerOptions::named("second");
        let second = Controller::start_with(&other, &shop.plane, &options)?;
        for name in ["stays", "goes", "is-changed"] {
            shop.import(name, 80)?;
        }
        shop.wait_services(&[("stays", 80), ("goes", 80), ("is-changed", 80)])?;

        // In the middle of its writes it is cut off.
        let burst: Vec<_> = (0..60).map(|number| format!("burst-{number}")).collect();
        std::thread::scope(|scope| -> Result<()> {
            let applied = scope.spawn(|| shop.imports(&burst));
            shop.wait_service("burst-5")?;
            host.cut_off()?;
            match applied.join() {
                Ok(applied) => applied,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        let cut = Instant::now();
        wait_for("the second leads", SOON, || {
            let second_leads = second.leads()?;
            always(!second_leads || !first.leads()?, "both lead")?;
            Ok(second_leads)
        })?;
        shop.delete("goes")?;
        shop.import("is-new", 80)?;
        shop.import("is-changed", 81)?;
        let mut expected = vec![("stays", 80), ("is-changed", 81), ("is-new", 80)];
        expected.extend(burst.iter().map(|name| (name.as_str(), 80)));
        shop.wait_services(&expected)?;
        wait_for("the cut has lasted as long as it should", 2 * CUT, || {
            always(!first.leads()?, "it leads without the API server")?;
            Ok(cut.elapsed() >= CUT)
        })?;
        host.reconnect()?;

        // Now the one that missed it all has to lead.
        let mended = Instant::now();
        second.kill9()?;
        shop.delete("stays")?;
        shop.import("is-last", 80)?;
        expected.retain(|(name, _)| *name != "stays");
        expected.push(("is-last", 80));
        wait_for("the first leads again", BACK, || first.leads())?;
        shop.wait_services(&expected)?;
        eprintln!(
            "{:.1} s after the return of the network all is as it should be",
            mended.elapsed().as_secs_f32()
        );
        ensure!(
            mended.elapsed() < BACK,
            "its connections were taken for quiet ones"
        );
        let requests = shop.plane.requests()?;
        writers_take_turns(&requests, &[host.ipv4(), other.ipv4(), host.ipv4()])?;
        no_service_is_made_twice(&requests)
    })
}

#[test]
fn watches_that_break_begin_anew_and_lose_no_deletion() -> Result<()> {
    story("kubernetes-broken", |scene| {
        let mut shop = Shop::new(scene)?;
        let host = scene.host("controller")?;
        let mut options = ControllerOptions::named("controller");
        // Nobody else is there to lead.
        options.flags = vec!["--retry-period=500ms".to_owned()];
        let controller = Controller::start_with(&host, &shop.plane, &options)?;
        for name in ["stays", "goes", "comes-again", "is-changed"] {
            shop.import(name, 80)?;
        }
        shop.wait_services(&[
            ("stays", 80),
            ("goes", 80),
            ("comes-again", 80),
            ("is-changed", 80),
        ])?;
        let before = shop.plane.requests()?;
        let uid = shop.uid("comes-again")?;

        host.cut_off()?;
        shop.delete("goes")?;
        shop.delete("comes-again")?;
        shop.import("comes-again", 80)?;
        shop.import("is-changed", 81)?;
        shop.import("is-new", 80)?;
        // An API server that starts anew knows nothing of what was before: no watch could go on.
        shop.plane.stop_api_server()?;
        shop.plane.start_api_server()?;
        host.reconnect()?;

        let mended = Instant::now();
        let expected = [
            ("stays", 80),
            ("comes-again", 80),
            ("is-changed", 81),
            ("is-new", 80),
        ];
        shop.wait_services(&expected)?;
        eprintln!(
            "{:.1} s after the return of the network all is as it should be",
            mended.elapsed().as_secs_f32()
        );
        shop.wait_owner("comes-again", &uid)?;
        wait_for("all that is decided upon is listed again", SOON, || {
            let after = shop.plane.requests()?;
            let again = |kind: &&str| lists(&after, kind) > lists(&before, kind);
            let missing: Vec<_> = DECIDING.iter().filter(|kind| !again(kind)).collect();
            ensure!(missing.is_empty(), "{missing:?}: {}", controller.log_tail());
            Ok(true)
        })?;
        no_service_is_made_twice(&shop.plane.requests()?)
    })
}

/// How often a kind was listed.
fn lists(requests: &[Request], resource: &str) -> usize {
    let is = |request: &&Request| request.verb == "list" && request.resource == resource;
    requests.iter().filter(is).count()
}

/// The replicas have written one after the other, in this order.
fn writers_take_turns(requests: &[Request], order: &[IpAddr]) -> Result<()> {
    let mut writes: Vec<_> = requests.iter().filter(|request| request.writes()).collect();
    // Events are told of after the fact, by whoever saw it; each replica publishes its authority.
    writes.retain(|request| !["events", "configmaps"].contains(&&*request.resource));
    writes.sort_by(|one, other| one.at.cmp(&other.at));
    let mut turns: Vec<IpAddr> = writes.iter().map(|request| request.from).collect();
    turns.dedup();
    ensure!(turns == order, "the writers were {turns:?}");
    Ok(())
}

/// No Service was asked for that was there already, by a leader that had read the Imports anew and not
/// yet the Services.
fn no_service_is_made_twice(requests: &[Request]) -> Result<()> {
    let asked = |request: &&Request| request.verb == "create" && request.resource == "services";
    let (made, refused): (Vec<_>, Vec<_>) = requests
        .iter()
        .filter(asked)
        .partition(|request| request.code == 201);
    eprintln!("{} Services made, {} refused", made.len(), refused.len());
    ensure!(refused.is_empty(), "{refused:?}");
    Ok(())
}
