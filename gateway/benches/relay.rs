//! One bulk connection through two gateways on loopback, beside direct TCP, in interleaved rounds:
//! `cargo bench -p clusterlink-gateway`. Read the ratios: client, backend and gateways share the
//! cores of this machine.

#![expect(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on is to panic"
)]
#![expect(clippy::print_stdout, reason = "it is what a measurement is for")]

#[path = "../tests/loopback/support.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use clusterlink_model::LbScheme;
use rustix::time::{ClockId, clock_gettime};
use support::{Authority, Node, allow_all, export, import};

const ROUNDS: usize = 5;
const LENGTH: Duration = Duration::from_secs(1);
const PIECE: usize = 256 * 1024;

/// What one transfer came to.
#[derive(Clone, Copy)]
struct Sample {
    gigabits: f64,
    /// CPU time of this process, thus of all parties, for each GiB.
    cpu_per_gib: f64,
}

fn main() {
    let backend = flood();
    let authority = Authority::new();
    let server = Node::start(&authority, "server", 1);
    let client = Node::start(&authority, "client", 1);
    server.change(|snapshot| {
        allow_all(snapshot);
        export(snapshot, &[backend]);
    });
    let gateway = server.gateway.listen_address();
    client.change(|snapshot| {
        allow_all(snapshot);
        import(snapshot, LbScheme::Static, &[("server", gateway)]);
    });
    download(client.steering, Duration::from_millis(200));
    let (mut direct, mut imported) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        direct.push(download(backend, LENGTH));
        imported.push(download(client.steering, LENGTH));
    }
    println!("{ROUNDS} interleaved rounds of one download, median (least to most)");
    row("direct, Gbit/s", &direct, |sample| sample.gigabits);
    row("imported, Gbit/s", &imported, |sample| sample.gigabits);
    row("direct, CPU-s/GiB", &direct, |sample| sample.cpu_per_gib);
    row("imported, CPU-s/GiB", &imported, |sample| {
        sample.cpu_per_gib
    });
}

fn row(name: &str, samples: &[Sample], value: impl Fn(&Sample) -> f64) {
    let mut values: Vec<_> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    println!(
        "{name:<22}{:>8.2} ({:.2} to {:.2})",
        values[values.len() / 2],
        values[0],
        values[values.len() - 1]
    );
}

/// A backend that sends for as long as somebody reads.
fn flood() -> SocketAddr {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = backend.local_addr().unwrap();
    thread::spawn(move || {
        for socket in backend.incoming() {
            let mut socket = socket.unwrap();
            thread::spawn(move || {
                let piece = vec![7; PIECE];
                while socket.write_all(&piece).is_ok() {}
            });
        }
    });
    address
}

fn download(from: SocketAddr, length: Duration) -> Sample {
    let mut socket = TcpStream::connect(from).unwrap();
    let mut piece = vec![0; PIECE];
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut bytes = 0;
    while start.elapsed() < length {
        bytes += socket.read(&mut piece).unwrap();
    }
    let gibibytes = bytes as f64 / f64::from(1 << 30);
    Sample {
        gigabits: bytes as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64(),
        cpu_per_gib: (cpu_seconds() - cpu) / gibibytes,
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
