//! How a session starts, and what it allows.

use crate::tunnel::message::Hello;

/// Which side of the TLS connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that connected; it opens streams with odd ids.
    Dialler,
    /// The one that accepted; it opens streams with even ids.
    Acceptor,
}

/// What this side allows itself and the peer, besides what HELLO announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The largest receive window of a stream, in bytes.
    pub window: u64,
    /// Control frames that the peer may send per second.
    pub control_frames_per_second: u32,
    /// Streams that the peer may open per second, those that it resets at once included.
    pub opens_per_second: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            window: 16 << 20,
            control_frames_per_second: 400_000,
            opens_per_second: 50_000,
        }
    }
}

/// How a session starts.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Which side of the TLS connection this is.
    pub side: Side,
    /// What this side says of itself; limits below the protocol's minimum are raised to it.
    pub hello: Hello,
    /// Further bounds, which the peer is not told.
    pub bounds: Bounds,
    /// Stream ids start here or just above, because they are unique in the association; 0 for a
    /// new one.
    pub first_stream: u32,
    /// Random bits: for ping jitter and the stream table.
    pub seed: u64,
}
