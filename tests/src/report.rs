//! What the helper `clt` prints, one JSON line each: the vocabulary between it and the stories.

use std::net::SocketAddr;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// How one direction of a connection ended for this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The other side ended it in order.
    Eof,
    /// The kernel said this error number, such as `ECONNRESET`.
    Errno(i32),
    /// Nothing came or went for as long as this side was told to wait.
    Timeout,
    /// This side had all that it wanted and ended it.
    Done,
}

impl End {
    /// Whether it was a reset.
    pub fn is_reset(self) -> bool {
        matches!(self, Self::Errno(number) if number == Errno::ECONNRESET as i32 || number == Errno::EPIPE as i32)
    }
}

/// Bytes, counted and checksummed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// How many.
    pub bytes: u64,
    /// Their CRC-32.
    pub crc32: u32,
}

/// One connection as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The number of the connection among those of one call.
    pub index: u64,
    /// What `connect()` failed with; `ETIMEDOUT` also where this side gave up.
    pub connect_errno: Option<i32>,
    /// How long `connect()` took, in microseconds.
    pub connect_us: u64,
    /// What `getpeername()` said.
    pub peer_name: Option<SocketAddr>,
    /// What `getsockname()` said.
    pub local_name: Option<SocketAddr>,
    /// What this side sent.
    pub sent: Amount,
    /// What came back.
    pub received: Amount,
    /// How the sending ended.
    pub send_end: End,
    /// How the receiving ended.
    pub receive_end: End,
    /// The first bytes received, as text.
    pub text: String,
    /// From before `connect()` until the sending ended, in microseconds.
    pub send_us: u64,
    /// From before `connect()` until the receiving ended, in microseconds.
    pub receive_us: u64,
    /// From before `connect()` until the end, in microseconds.
    pub total_us: u64,
}

impl Exchange {
    /// Whether `connect()` itself failed with this error.
    pub fn failed_with(&self, errno: Errno) -> bool {
        self.connect_errno == Some(errno as i32)
    }

    /// Whether it connected and was ended in order by the other side.
    pub fn succeeded(&self) -> bool {
        self.connect_errno.is_none() && self.receive_end == End::Eof && self.send_end == End::Done
    }

    /// Whether nothing ever came of it: no connection, or a reset before the first byte.
    pub fn was_refused(&self) -> bool {
        self.connect_errno.is_some() || (self.received.bytes == 0 && self.receive_end.is_reset())
    }
}

/// What a server of `clt` has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum ServerEvent {
    /// It is ready at this address.
    Listening {
        /// The address, with the port that was chosen if none was asked for.
        address: SocketAddr,
    },
    /// A connection came in.
    Accepted {
        /// Its number.
        connection: u64,
        /// Where it came from.
        remote: SocketAddr,
        /// Where it was sent to.
        local: SocketAddr,
    },
    /// A connection is over.
    Closed {
        /// Its number.
        connection: u64,
        /// What came in.
        received: Amount,
        /// What was sent.
        sent: Amount,
        /// How the receiving ended.
        receive_end: End,
        /// How the sending ended.
        send_end: End,
    },
    /// A datagram came in.
    Datagram {
        /// Where it came from.
        remote: SocketAddr,
        /// How long it was.
        bytes: u64,
    },
}

/// What a client that holds idle connections has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum IdleEvent {
    /// All are open.
    Open {
        /// How many.
        connections: u64,
    },
    /// It was asked to check: how they are.
    Checked {
        /// Still open, and an echo came back on it.
        alive: u64,
        /// No longer open.
        dead: u64,
    },
}

/// What came of sending a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// What `connect()` failed with, where it was called.
    pub connect_errno: Option<i32>,
    /// What sending failed with.
    pub send_errno: Option<i32>,
}

/// Many short connections, measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateReport {
    /// Connections per second.
    pub per_second: f64,
    /// Median time of `connect()`, in microseconds.
    pub connect_p50_us: f64,
    /// 99th percentile of the time of `connect()`, in microseconds.
    pub connect_p99_us: f64,
    /// Median time from before `connect()` to the answer's end, in microseconds.
    pub total_p50_us: f64,
    /// 99th percentile of that.
    pub total_p99_us: f64,
    /// Connections that failed.
    pub errors: u64,
}

/// Bulk transfer, measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThroughputReport {
    /// Bytes that arrived.
    pub bytes: u64,
    /// Bits per second.
    pub bits_per_second: f64,
}
