//! Pieces that clients and servers share: sending, receiving, exact errors, resets.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clusterlink_tests::payload::{Payload, Tally};
use clusterlink_tests::report::{Amount, End};
use nix::sys::socket::MsgFlags;
use socket2::SockRef;

/// The size of one read or write.
pub(crate) const CHUNK: usize = 64 * 1024;

/// What to send, and how fast.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sending {
    pub(crate) text: Vec<u8>,
    pub(crate) bytes: u64,
    pub(crate) seed: u64,
    pub(crate) chunk: Option<usize>,
    pub(crate) pace: Option<Duration>,
    pub(crate) forever: bool,
}

/// Sends the text, then the payload; keeps the pace that was asked for.
pub(crate) fn send(mut stream: &TcpStream, what: &Sending, mut tally: Tally) -> (Tally, End) {
    if let Err(error) = stream.write_all(&what.text) {
        return (tally, end_of(&error));
    }
    tally.add(&what.text);
    let mut payload = Payload::new(what.seed);
    let mut buffer = vec![0; what.chunk.unwrap_or(CHUNK)];
    let mut left = what.bytes;
    while left > 0 || what.forever {
        let length = if what.forever {
            buffer.len()
        } else {
            usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len())
        };
        let part = &mut buffer[..length];
        payload.fill(part);
        if let Err(error) = stream.write_all(part) {
            return (tally, end_of(&error));
        }
        tally.add(part);
        left = left.saturating_sub(length as u64);
        if let Some(pace) = what.pace {
            std::thread::sleep(pace);
        }
    }
    (tally, End::Done)
}

/// When a receiver has enough, and how fast it reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receiving {
    pub(crate) limit: Option<u64>,
    pub(crate) pace: Option<Duration>,
    pub(crate) keep: usize,
}

/// Receives until the end or the limit, and keeps the first bytes.
pub(crate) fn receive(mut stream: &TcpStream, how: &Receiving) -> (Amount, End, Vec<u8>) {
    let mut tally = Tally::default();
    let mut kept = Vec::new();
    let mut buffer = vec![0; CHUNK];
    let end = loop {
        let left = how.limit.map_or(u64::MAX, |limit| limit - tally.bytes());
        if left == 0 {
            break End::Done;
        }
        let room = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        match stream.read(&mut buffer[..room]) {
            Ok(0) => break End::Eof,
            Ok(length) => {
                tally.add(&buffer[..length]);
                let wanted = how.keep.saturating_sub(kept.len()).min(length);
                kept.extend_from_slice(&buffer[..wanted]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break end_of(&error),
        }
        if let Some(pace) = how.pace {
            std::thread::sleep(pace);
        }
    };
    (tally.amount(), end, kept)
}

/// How one direction went.
type Course = (Amount, End);

/// Sends the payload and receives in turns, in this one thread, until both directions have ended: the
/// first error that the socket tells is the end of whatever had not ended by then. Text and pace
/// are left out.
pub(crate) fn alternate(
    mut stream: &TcpStream,
    what: &Sending,
    keep_open: bool,
) -> Result<(Course, Course)> {
    /// How long a turn of receiving waits, which is the pause of one that cannot send.
    const TURN: Duration = Duration::from_millis(1);
    let socket = SockRef::from(stream);
    let mut payload = Payload::new(what.seed);
    let (mut sent, mut received) = (Tally::default(), Tally::default());
    let (mut send_end, mut receive_end) = (None, None);
    let mut chunk = vec![0; what.chunk.unwrap_or(CHUNK)];
    let mut buffer = vec![0; CHUNK];
    // What of the chunk is still to be sent.
    let mut pending = 0..0;
    let mut left = what.bytes;
    stream
        .set_read_timeout(Some(TURN))
        .context("cannot set a time-out")?;
    while send_end.is_none() || receive_end.is_none() {
        if send_end.is_none() {
            if pending.is_empty() && (left > 0 || what.forever) {
                let length = if what.forever {
                    chunk.len()
                } else {
                    usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len())
                };
                payload.fill(&mut chunk[..length]);
                left = left.saturating_sub(length as u64);
                pending = 0..length;
            }
            if pending.is_empty() {
                let shut = if keep_open {
                    Ok(())
                } else {
                    stream.shutdown(std::net::Shutdown::Write)
                };
                send_end = Some(shut.map_or_else(|error| end_of(&error), |()| End::Done));
            } else {
                let now = MsgFlags::MSG_DONTWAIT.bits();
                match socket.send_with_flags(&chunk[pending.clone()], now) {
                    Ok(length) => {
                        sent.add(&chunk[pending.start..pending.start + length]);
                        pending.start += length;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => {
                        send_end = Some(end_of(&error));
                        receive_end.get_or_insert(end_of(&error));
                    }
                }
            }
        }
        if receive_end.is_none() {
            match stream.read(&mut buffer) {
                Ok(0) => receive_end = Some(End::Eof),
                Ok(length) => received.add(&buffer[..length]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => {
                    receive_end = Some(end_of(&error));
                    send_end.get_or_insert(end_of(&error));
                }
            }
        }
    }
    let ended = |end: Option<End>| end.expect("the loop goes on until both have ended");
    Ok((
        (sent.amount(), ended(send_end)),
        (received.amount(), ended(receive_end)),
    ))
}

/// Makes the close of the socket a reset.
pub(crate) fn reset(stream: TcpStream) -> Result<()> {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .context("cannot ask for a reset")?;
    drop(stream);
    Ok(())
}

/// The error as the kernel named it; a time-out of the socket is one of ours.
pub(crate) fn end_of(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut
            if error.raw_os_error() != Some(nix::errno::Errno::ETIMEDOUT as i32) =>
        {
            End::Timeout
        }
        _ => End::Errno(error.raw_os_error().unwrap_or(-1)),
    }
}
