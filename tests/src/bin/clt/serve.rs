//! The servers: one thread for each connection, one line for each event.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use clusterlink_tests::payload::Tally;
use clusterlink_tests::report::{Amount, End, ServerEvent};

use crate::stream::{CHUNK, Receiving, Sending, end_of, receive, reset, send};

/// What to serve where.
#[derive(Clone, Debug, Args)]
pub(crate) struct Serve {
    /// How a connection is treated.
    #[arg(value_enum)]
    mode: Mode,
    /// Where to listen; port 0 takes any.
    #[arg(long)]
    listen: SocketAddr,
    /// What it calls itself.
    #[arg(long, default_value = "server")]
    name: String,
    /// Bytes, for the modes that count them.
    #[arg(long, default_value_t = 0)]
    bytes: u64,
    /// Where its pseudo-random bytes start.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Milliseconds between reads or writes, for the modes that are slow.
    #[arg(long, default_value_t = 50)]
    pace_ms: u64,
    /// Says nothing about single connections, for measurements.
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Sends back what comes in.
    Echo,
    /// Answers with its name and waits for the other side's end.
    Name,
    /// Speaks HTTP and answers with its name.
    Http,
    /// Receives until the end, then answers with count and checksum as JSON.
    Sink,
    /// Sends `--bytes` pseudo-random bytes at once, ends its side, and receives until the end.
    Source,
    /// Sends its name, then echoes.
    Greet,
    /// Resets the connection after `--bytes` received bytes.
    Reset,
    /// Never reads nor writes.
    Mute,
    /// Reads a little at a time.
    Slow,
    /// Sends pseudo-random bytes, a little at a time, for ever.
    Trickle,
    /// Counts connections and bytes, and answers nothing.
    Decoy,
    /// Reads as fast as it can, for measurements.
    Drain,
    /// Writes as fast as it can, for measurements.
    Flood,
    /// Counts datagrams.
    Datagrams,
}

/// What became of a connection: received, sent, and how each ended.
type Outcome = (Amount, End, Amount, End);

impl Serve {
    pub(crate) fn run(self) -> Result<()> {
        if self.mode == Mode::Datagrams {
            return self.datagrams();
        }
        let listener = TcpListener::bind(self.listen)
            .with_context(|| format!("cannot listen at {}", self.listen))?;
        let address = listener.local_addr().context("cannot tell the address")?;
        crate::print(&ServerEvent::Listening { address })?;
        let serve = Arc::new(self);
        for (connection, stream) in (0_u64..).zip(listener.incoming()) {
            // A connection that was reset before it was accepted has not happened.
            let Ok(stream) = stream else { continue };
            let serve = Arc::clone(&serve);
            let thread = std::thread::Builder::new().stack_size(256 * 1024);
            thread
                .spawn(move || serve.connection(connection, stream))
                .context("cannot start a thread")?;
        }
        Ok(())
    }

    fn connection(&self, connection: u64, stream: TcpStream) {
        let addresses = stream
            .peer_addr()
            .and_then(|remote| Ok((remote, stream.local_addr()?)));
        if let Ok((remote, local)) = addresses {
            self.report(&ServerEvent::Accepted {
                connection,
                remote,
                local,
            });
        }
        let (received, receive_end, sent, send_end) = self.treat(stream);
        self.report(&ServerEvent::Closed {
            connection,
            received,
            sent,
            receive_end,
            send_end,
        });
    }

    fn report(&self, event: &ServerEvent) {
        if !self.quiet {
            // Without its output the server is of no use to anyone.
            crate::print(event).expect("the output is a file of the harness");
        }
    }

    fn treat(&self, stream: TcpStream) -> Outcome {
        let name = format!("{}\n", self.name).into_bytes();
        let pace = Duration::from_millis(self.pace_ms);
        let nothing = Amount::default();
        match self.mode {
            Mode::Echo => echo(&stream, Tally::default()),
            Mode::Greet => {
                let (tally, end) = send(
                    &stream,
                    &Sending {
                        text: name,
                        ..Sending::default()
                    },
                    Tally::default(),
                );
                if end == End::Done {
                    echo(&stream, tally)
                } else {
                    (nothing, End::Done, tally.amount(), end)
                }
            }
            Mode::Name => answer_then_drain(
                &stream,
                &Sending {
                    text: name,
                    ..Sending::default()
                },
            ),
            Mode::Source => {
                let sending = Sending {
                    bytes: self.bytes,
                    seed: self.seed,
                    ..Sending::default()
                };
                answer_then_drain(&stream, &sending)
            }
            Mode::Http => self.http(&stream),
            Mode::Sink => {
                let (received, receive_end, _) = receive(&stream, &Receiving::default());
                if receive_end != End::Eof {
                    return (received, receive_end, nothing, End::Done);
                }
                let text = serde_json::to_vec(&received).unwrap_or_default();
                let (tally, end) = send(
                    &stream,
                    &Sending {
                        text,
                        ..Sending::default()
                    },
                    Tally::default(),
                );
                (received, receive_end, tally.amount(), end)
            }
            Mode::Reset => {
                let limit = Receiving {
                    limit: Some(self.bytes),
                    ..Receiving::default()
                };
                let (received, end, _) = receive(&stream, &limit);
                // Should the reset fail, the client sees an orderly end, and its test fails.
                let _ = reset(stream);
                (received, end, nothing, End::Done)
            }
            Mode::Mute => loop {
                std::thread::park();
            },
            Mode::Slow => {
                let (received, end, _) = receive(
                    &stream,
                    &Receiving {
                        pace: Some(pace),
                        ..Receiving::default()
                    },
                );
                (received, end, nothing, End::Done)
            }
            Mode::Trickle => {
                let sending = Sending {
                    seed: self.seed,
                    forever: true,
                    chunk: Some(64),
                    pace: Some(pace),
                    ..Sending::default()
                };
                let (tally, end) = send(&stream, &sending, Tally::default());
                let (received, receive_end, _) = receive(&stream, &Receiving::default());
                (received, receive_end, tally.amount(), end)
            }
            Mode::Decoy | Mode::Drain | Mode::Datagrams => {
                let (received, end, _) = receive(&stream, &Receiving::default());
                (received, end, nothing, End::Done)
            }
            Mode::Flood => flood(&stream),
        }
    }

    /// Answers one request: `/bytes/N` with N pseudo-random bytes, `/forever` with a body that never ends, all else with the name.
    fn http(&self, stream: &TcpStream) -> Outcome {
        let mut lines = BufReader::new(stream).lines();
        let mut tally = Tally::default();
        let mut path = String::new();
        while let Some(Ok(line)) = lines.next() {
            tally.add(line.as_bytes());
            if let Some(rest) = line.strip_prefix("GET ") {
                path = rest.split(' ').next().unwrap_or_default().to_owned();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let received = tally.amount();
        let bytes = path
            .strip_prefix("/bytes/")
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        let forever = path == "/forever";
        let mut head =
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n".to_owned();
        if !forever {
            let length = if bytes > 0 {
                bytes
            } else {
                self.name.len() as u64 + 1
            };
            head += &format!("Content-Length: {length}\r\n");
        }
        head += "\r\n";
        if bytes == 0 && !forever {
            head += &format!("{}\n", self.name);
        }
        let sending = Sending {
            text: head.into_bytes(),
            bytes,
            seed: self.seed,
            forever,
            chunk: forever.then_some(64),
            pace: forever.then(|| Duration::from_millis(self.pace_ms)),
        };
        let (_, receive_end, sent, send_end) = answer_then_drain(stream, &sending);
        (received, receive_end, sent, send_end)
    }

    fn datagrams(&self) -> Result<()> {
        let socket = UdpSocket::bind(self.listen)
            .with_context(|| format!("cannot listen at {}", self.listen))?;
        let address = socket.local_addr().context("cannot tell the address")?;
        crate::print(&ServerEvent::Listening { address })?;
        let mut buffer = [0; 2048];
        loop {
            let (length, remote) = socket.recv_from(&mut buffer).context("cannot receive")?;
            crate::print(&ServerEvent::Datagram {
                remote,
                bytes: length as u64,
            })?;
        }
    }
}

fn answer_then_drain(stream: &TcpStream, sending: &Sending) -> Outcome {
    let (tally, send_end) = send(stream, sending, Tally::default());
    // A connection that is no more cannot be half-closed, which the reading then says.
    let _ = stream.shutdown(Shutdown::Write);
    let (received, receive_end, _) = receive(stream, &Receiving::default());
    (received, receive_end, tally.amount(), send_end)
}

fn echo(stream: &TcpStream, mut sent: Tally) -> Outcome {
    use std::io::Read as _;
    let (mut reader, mut writer) = (stream, stream);
    let mut received = Tally::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => {
                let end = stream
                    .shutdown(Shutdown::Write)
                    .map_or_else(|error| end_of(&error), |()| End::Done);
                return (received.amount(), End::Eof, sent.amount(), end);
            }
            Ok(length) => {
                received.add(&buffer[..length]);
                if let Err(error) = writer.write_all(&buffer[..length]) {
                    return (received.amount(), End::Done, sent.amount(), end_of(&error));
                }
                sent.add(&buffer[..length]);
            }
            Err(error) => return (received.amount(), end_of(&error), sent.amount(), End::Done),
        }
    }
}

fn flood(mut stream: &TcpStream) -> Outcome {
    let buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        match stream.write(&buffer) {
            Ok(length) => bytes += length as u64,
            Err(error) => {
                let sent = Amount { bytes, crc32: 0 };
                return (Amount::default(), End::Done, sent, end_of(&error));
            }
        }
    }
}
