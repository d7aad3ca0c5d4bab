//! Many connections on which nothing happens.

use std::io::{BufRead as _, Read as _, Write as _, stdin};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use clusterlink_tests::report::IdleEvent;

use crate::exchange::connect;

/// Which connections to hold.
#[derive(Debug, Args)]
pub(crate) struct Idle {
    /// An echo server.
    target: String,
    /// How many.
    #[arg(long, default_value_t = 1)]
    count: u64,
}

impl Idle {
    pub(crate) fn run(&self) -> Result<()> {
        let target = crate::resolve(&self.target)?;
        let mut streams = Vec::new();
        for index in 0..self.count {
            match connect(target, None, Duration::from_secs(10))? {
                // Echoed before the next one is opened: a listener's backlog is not what is tested.
                Ok(stream) => {
                    check(std::slice::from_ref(&stream));
                    streams.push(stream);
                }
                Err(errno) => bail!("connection {index} failed with error number {errno}"),
            }
        }
        // One echo each: the connection is known to be open all the way.
        let alive = check(&streams);
        if alive != self.count {
            bail!("only {alive} of {} connections echo", self.count);
        }
        crate::print(&IdleEvent::Open {
            connections: self.count,
        })?;
        for line in stdin().lock().lines() {
            line?;
            let alive = check(&streams);
            crate::print(&IdleEvent::Checked {
                alive,
                dead: self.count - alive,
            })?;
        }
        // Its input has ended, or there never was one: hold on until killed.
        loop {
            std::thread::park();
        }
    }
}

fn check(streams: &[TcpStream]) -> u64 {
    let echoes = |mut stream: &TcpStream| {
        let mut byte = [0];
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok()
    };
    streams.iter().filter(|stream| echoes(stream)).count() as u64
}
