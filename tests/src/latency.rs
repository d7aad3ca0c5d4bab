//! How long connections take, measured in rounds.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::place::Place;
use crate::report::RateReport;
use crate::traffic::rate;

/// How long a round takes.
const ROUND: Duration = Duration::from_millis(400);

/// Rounds of short connections.
#[derive(Debug, Default)]
pub struct Latency(Vec<RateReport>);

impl Latency {
    /// Measures a round more, to a server in mode `name`. No connection may fail.
    pub fn round(&mut self, from: &Place, target: SocketAddr) -> Result<()> {
        let report = rate(from, target, 1, ROUND)?;
        let errors = report.errors;
        ensure!(
            errors == 0,
            "{errors} connections failed while they were measured"
        );
        self.0.push(report);
        Ok(())
    }

    fn median(&self, field: Field) -> f64 {
        let mut values: Vec<_> = self.0.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// One figure of a measurement.
type Field = fn(&RateReport) -> f64;

/// Prints what `connect()` and a whole exchange take, the measurements side by side.
pub fn print(columns: &[(&str, &Latency)]) {
    let fields: [(&str, Field); 4] = [
        ("connect(), median", |one| one.connect_p50_us),
        ("connect(), 99th percentile", |one| one.connect_p99_us),
        ("whole exchange, median", |one| one.total_p50_us),
        ("whole exchange, 99th percentile", |one| one.total_p99_us),
    ];
    let line = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>13}")).collect();
        eprintln!("{name:<34}{cells}");
    };
    let headings = columns.iter().map(|(heading, _)| (*heading).to_owned());
    line("median of the rounds, µs", headings.collect());
    for (name, field) in fields {
        let figures = columns
            .iter()
            .map(|(_, one)| format!("{:.1}", one.median(field)));
        line(name, figures.collect());
    }
}
