//! Measurements: connection rate, latency, throughput.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use clusterlink_tests::report::{RateReport, ThroughputReport};

use crate::exchange::connect;

/// Short connections to a server in mode `name`, as many as go.
#[derive(Debug, Args)]
pub(crate) struct Rate {
    /// The server.
    target: String,
    /// How many at once.
    #[arg(long, default_value_t = 1)]
    parallel: u64,
    /// For how many milliseconds.
    #[arg(long, default_value_t = 2_000)]
    for_ms: u64,
}

/// Bulk transfer over one connection.
#[derive(Debug, Args)]
pub(crate) struct Throughput {
    /// A server in mode `drain` for `up`, in mode `flood` for `down`.
    target: String,
    /// Which way.
    #[arg(long, value_enum)]
    direction: Direction,
    /// For how many milliseconds.
    #[arg(long, default_value_t = 2_000)]
    for_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    Up,
    Down,
}

#[derive(Debug, Default)]
struct Samples {
    connect: Vec<f64>,
    total: Vec<f64>,
    errors: u64,
}

const PATIENCE: Duration = Duration::from_secs(10);

impl Rate {
    pub(crate) fn run(&self) -> Result<()> {
        let target = crate::resolve(&self.target)?;
        let start = Instant::now();
        let until = start + Duration::from_millis(self.for_ms);
        let mut all = Samples::default();
        std::thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..self.parallel.max(1))
                .map(|_| scope.spawn(|| sample(target, until)))
                .collect();
            for thread in threads {
                let one = thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                all.connect.extend(one.connect);
                all.total.extend(one.total);
                all.errors += one.errors;
            }
            Ok(())
        })?;
        let seconds = start.elapsed().as_secs_f64();
        if all.total.is_empty() {
            bail!("none of {} connections worked", all.errors);
        }
        all.connect.sort_by(f64::total_cmp);
        all.total.sort_by(f64::total_cmp);
        crate::print(&RateReport {
            per_second: all.total.len() as f64 / seconds,
            connect_p50_us: percentile(&all.connect, 50),
            connect_p99_us: percentile(&all.connect, 99),
            total_p50_us: percentile(&all.total, 50),
            total_p99_us: percentile(&all.total, 99),
            errors: all.errors,
        })
    }
}

fn sample(target: SocketAddr, until: Instant) -> Result<Samples> {
    let mut samples = Samples::default();
    let mut answer = Vec::with_capacity(64);
    while Instant::now() < until {
        let start = Instant::now();
        let Ok(mut stream) = connect(target, None, PATIENCE)? else {
            samples.errors += 1;
            continue;
        };
        let connected = start.elapsed();
        answer.clear();
        let ended = stream.shutdown(Shutdown::Write).is_ok();
        if ended && stream.read_to_end(&mut answer).is_ok() && !answer.is_empty() {
            samples.connect.push(connected.as_secs_f64() * 1e6);
            samples.total.push(start.elapsed().as_secs_f64() * 1e6);
        } else {
            samples.errors += 1;
        }
    }
    Ok(samples)
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

impl Throughput {
    pub(crate) fn run(&self) -> Result<()> {
        let target = crate::resolve(&self.target)?;
        let mut stream = match connect(target, None, PATIENCE)? {
            Ok(stream) => stream,
            Err(errno) => bail!("connecting to {target} failed with error number {errno}"),
        };
        let mut buffer = vec![0; 256 * 1024];
        let mut bytes = 0;
        let start = Instant::now();
        let length = Duration::from_millis(self.for_ms);
        while start.elapsed() < length {
            bytes += match self.direction {
                Direction::Up => stream.write(&buffer)?,
                Direction::Down => match stream.read(&mut buffer)? {
                    0 => bail!("the server ended after {bytes} bytes"),
                    length => length,
                },
            } as u64;
        }
        if self.direction == Direction::Up {
            // What is in flight counts once the server has had it, which its end says.
            stream.shutdown(Shutdown::Write)?;
            while stream.read(&mut buffer)? > 0 {}
        }
        let bits_per_second = bytes as f64 * 8.0 / start.elapsed().as_secs_f64();
        crate::print(&ThroughputReport {
            bytes,
            bits_per_second,
        })
    }
}
