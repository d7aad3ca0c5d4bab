//! Numbers: the tunnel beside direct TCP between the same two hosts.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use clusterlink_tests::manifests;
use clusterlink_tests::report::RateReport;
use clusterlink_tests::traffic::{Client, Server, any, rate, throughput};
use clusterlink_tests::wait::wait_for;

use crate::acts::Acts;

const LENGTH: Duration = Duration::from_millis(1_500);

/// Measures throughput, connection rate and latency, direct and imported, and prints them as a table.
pub(crate) fn beside_direct_tcp(acts: &Acts<'_>) -> Result<()> {
    acts.stage
        .title("Measured between London and Paris, beside direct TCP on the same path");
    let (paris, london) = (&acts.paris, &acts.london);
    let flood = Server::start(paris.host(), "flood", any(0), &["--quiet"])?;
    let short = Server::start(paris.host(), "name", any(0), &["--quiet"])?;
    let direct = |server: &Server| SocketAddr::new(paris.host().ipv4(), server.address.port());
    let all = manifests::everything();
    let allow = manifests::access_policy("bench", "allow", "allow", &all, &all);
    let mut exports = vec![allow.clone()];
    let mut imports = vec![allow];
    for (name, server) in [("flood", &flood), ("short", &short)] {
        exports.extend(manifests::shared("bench", name, 80, direct(server)));
        imports.push(manifests::import(
            "bench",
            name,
            80,
            &[manifests::source("paris", "bench", name)],
        ));
    }
    paris.apply("bench.yaml", &exports)?;
    london.apply("bench.yaml", &imports)?;
    let imported = |name: &str| london.import_address("bench", name, false);
    let (flood_import, short_import) = (imported("flood")?, imported("short")?);
    wait_for("the imports work", Duration::from_secs(2), || {
        Ok(Client::to(short_import).once(&acts.cart)?.succeeded())
    })?;

    let bulk = |target| {
        throughput(&acts.cart, target, true, LENGTH).map(|report| report.bits_per_second / 1e9)
    };
    let (bulk_direct, bulk_imported) = (bulk(direct(&flood))?, bulk(flood_import)?);
    let one = |target| rate(&acts.cart, target, 1, LENGTH);
    let (one_direct, one_imported) = (one(direct(&short))?, one(short_import)?);
    let many = |target| rate(&acts.cart, target, 8, LENGTH);
    let (many_direct, many_imported) = (many(direct(&short))?, many(short_import)?);
    let errors: u64 = [one_direct, one_imported, many_direct, many_imported]
        .iter()
        .map(|report| report.errors)
        .sum();

    let row = |name: &str, direct: f64, imported: f64, unit: &str| {
        acts.stage.say(&format!(
            "{name:<34} {direct:>10.1} {imported:>10.1}  {unit}"
        ));
    };
    acts.stage
        .say(&format!("{:<34} {:>10} {:>10}", "", "direct", "imported"));
    row(
        "throughput of one connection",
        bulk_direct,
        bulk_imported,
        "Gbit/s",
    );
    row(
        "connections a second, 8 clients",
        many_direct.per_second,
        many_imported.per_second,
        "",
    );
    row(
        "connect(), median",
        one_direct.connect_p50_us,
        one_imported.connect_p50_us,
        "µs",
    );
    row(
        "connect(), 99th percentile",
        one_direct.connect_p99_us,
        one_imported.connect_p99_us,
        "µs",
    );
    let total = |report: RateReport| report.total_p50_us;
    row(
        "connect, answer, close: median",
        total(one_direct),
        total(one_imported),
        "µs",
    );
    ensure!(errors == 0, "{errors} connections failed while measuring");
    Ok(())
}
