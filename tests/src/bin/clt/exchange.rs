//! The client: connects, sends, receives, and says exactly what it saw.

use std::io::ErrorKind;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use clusterlink_tests::payload::Tally;
use clusterlink_tests::report::{Amount, End, Exchange};
use nix::errno::Errno;
use socket2::{Domain, SockRef, Socket, Type};

use crate::stream::{Receiving, Sending, alternate, receive, reset, send};

/// What each connection does.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Address or name, and port; `[::ffff:a.b.c.d]:port` makes an IPv6 socket call an IPv4 address.
    /// `@FILE` has one on each line, which are taken in turn.
    target: String,
    /// How many connections; 0 goes on until it is killed.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// How many at once.
    #[arg(long, default_value_t = 1)]
    parallel: u64,
    /// Milliseconds from one connection to the next of the same thread.
    #[arg(long)]
    interval_ms: Option<u64>,
    /// Milliseconds without any progress after which it gives up.
    #[arg(long, default_value_t = 30_000)]
    timeout_ms: u64,
    /// The local address.
    #[arg(long)]
    source: Option<IpAddr>,
    /// Sends this text first.
    #[arg(long, default_value = "")]
    text: String,
    /// Sends so many pseudo-random bytes.
    #[arg(long, default_value_t = 0)]
    send: u64,
    /// Sends pseudo-random bytes until an error.
    #[arg(long)]
    forever: bool,
    /// Where the pseudo-random bytes start.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes for each write.
    #[arg(long)]
    chunk: Option<usize>,
    /// Milliseconds after each write.
    #[arg(long)]
    pace_ms: Option<u64>,
    /// Keeps its sending side open after the last byte.
    #[arg(long)]
    keep_open: bool,
    /// Has enough after so many received bytes.
    #[arg(long)]
    receive: Option<u64>,
    /// Milliseconds after each read.
    #[arg(long)]
    read_pace_ms: Option<u64>,
    /// What to do when both directions are through.
    #[arg(long, value_enum, default_value = "close")]
    finish: Finish,
    /// Sends and receives in one thread: a socket tells its reset once, to whoever asks next.
    #[arg(long)]
    single: bool,
    /// Sends this HTTP request's head (`GET <path>`) instead of text.
    #[arg(long)]
    get: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Finish {
    Close,
    Reset,
    Hold,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let next = AtomicU64::new(0);
        let targets = self.targets()?;
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.parallel.max(1))
                .map(|_| scope.spawn(|| self.work(&next, &targets)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| match thread.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
        })
    }

    fn targets(&self) -> Result<Vec<String>> {
        let Some(file) = self.target.strip_prefix('@') else {
            return Ok(vec![self.target.clone()]);
        };
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        let targets: Vec<_> = text.lines().map(str::to_owned).collect();
        ensure!(!targets.is_empty(), "{file} has no targets");
        Ok(targets)
    }

    fn work(&self, next: &AtomicU64, targets: &[String]) -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if self.count > 0 && index >= self.count {
                return Ok(());
            }
            let start = Instant::now();
            let place = usize::try_from(index % targets.len() as u64)?;
            let target = crate::resolve(&targets[place])?;
            let (report, stream) = self.one(index, target)?;
            crate::print(&report)?;
            self.finish(stream)?;
            if let Some(interval) = self.interval_ms {
                std::thread::sleep(Duration::from_millis(interval).saturating_sub(start.elapsed()));
            }
        }
    }

    fn one(&self, index: u64, target: SocketAddr) -> Result<(Exchange, Option<TcpStream>)> {
        let timeout = Duration::from_millis(self.timeout_ms);
        let start = Instant::now();
        let connected = connect(target, self.source, timeout)?;
        let connect_us = micros(start);
        let mut report = Exchange {
            index,
            connect_errno: None,
            connect_us,
            peer_name: None,
            local_name: None,
            sent: Amount::default(),
            received: Amount::default(),
            send_end: End::Done,
            receive_end: End::Done,
            text: String::new(),
            send_us: connect_us,
            receive_us: connect_us,
            total_us: connect_us,
        };
        let stream = match connected {
            Ok(stream) => stream,
            Err(errno) => {
                report.connect_errno = Some(errno);
                return Ok((report, None));
            }
        };
        report.peer_name = stream.peer_addr().ok();
        report.local_name = stream.local_addr().ok();
        let receiving = Receiving {
            limit: self.receive,
            pace: self.read_pace_ms.map(Duration::from_millis),
            keep: 256,
        };
        let kept = if self.single {
            let sending = self.sending();
            let (sent, received) = alternate(&stream, &sending, self.keep_open)?;
            (report.sent, report.send_end) = sent;
            (report.received, report.receive_end) = received;
            Vec::new()
        } else {
            std::thread::scope(|scope| {
                let sender = scope.spawn(|| (self.send(&stream), micros(start)));
                let (received, receive_end, kept) = receive(&stream, &receiving);
                report.receive_us = micros(start);
                let ((tally, send_end), send_us) = sender
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                (report.sent, report.send_end) = (tally.amount(), send_end);
                report.send_us = send_us;
                (report.received, report.receive_end) = (received, receive_end);
                kept
            })
        };
        report.text = String::from_utf8_lossy(&kept).trim_end().to_owned();
        report.total_us = micros(start);
        Ok((report, Some(stream)))
    }

    fn sending(&self) -> Sending {
        let text = match &self.get {
            Some(path) => format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                self.target
            ),
            None => self.text.clone(),
        };
        Sending {
            text: text.into_bytes(),
            bytes: self.send,
            seed: self.seed,
            chunk: self.chunk,
            pace: self.pace_ms.map(Duration::from_millis),
            forever: self.forever,
        }
    }

    fn send(&self, stream: &TcpStream) -> (Tally, End) {
        let (tally, mut end) = send(stream, &self.sending(), Tally::default());
        if end == End::Done
            && !self.keep_open
            && let Err(error) = stream.shutdown(Shutdown::Write)
        {
            end = crate::stream::end_of(&error);
        }
        (tally, end)
    }

    fn finish(&self, stream: Option<TcpStream>) -> Result<()> {
        match (stream, self.finish) {
            (None, _) => Ok(()),
            (Some(stream), Finish::Close) => {
                drop(stream);
                Ok(())
            }
            (Some(stream), Finish::Reset) => reset(stream),
            (Some(_held), Finish::Hold) => loop {
                std::thread::park();
            },
        }
    }
}

/// Connects with a blocking `connect()`; the inner error is the kernel's number.
pub(crate) fn connect(
    target: SocketAddr,
    source: Option<IpAddr>,
    timeout: Duration,
) -> Result<Result<TcpStream, i32>> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)
        .context("cannot make a socket")?;
    if let Some(source) = source {
        let local = SocketAddr::new(source, 0);
        socket
            .bind(&local.into())
            .with_context(|| format!("cannot bind {local}"))?;
    }
    // The time to send is the time to connect too.
    socket
        .set_write_timeout(Some(timeout))
        .context("cannot set a time-out")?;
    socket
        .set_read_timeout(Some(timeout))
        .context("cannot set a time-out")?;
    match socket.connect(&target.into()) {
        Ok(()) => {
            let stream = TcpStream::from(socket);
            SockRef::from(&stream)
                .set_tcp_nodelay(true)
                .context("cannot set TCP_NODELAY")?;
            Ok(Ok(stream))
        }
        Err(error)
            if error.kind() == ErrorKind::WouldBlock
                || error.raw_os_error() == Some(Errno::EINPROGRESS as i32) =>
        {
            Ok(Err(Errno::ETIMEDOUT as i32))
        }
        Err(error) => Ok(Err(error.raw_os_error().unwrap_or(-1))),
    }
}

pub(crate) fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}
