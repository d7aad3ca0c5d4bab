//! The tunnel protocol `clusterlink/1`, without sockets.
//!
//! Two gateways speak it inside one TLS connection. [`Session`] is a state machine: it is fed with
//! the plaintext that was decrypted and with the time, it tells what happened as [`Event`]s, and it
//! queues the plaintext to encrypt. It owns no socket, no timer and no clock, so it is
//! property-tested and fuzzed alone.
//!
//! ```text
//! frame    8 bytes of header (stream u32, type u8, length u24, big-endian), then the payload
//! stream   one connection of a client: OPEN ─▶ ACCEPT or REJECT; DATA and FIN each way; RESET
//! credit   absolute offsets, per stream: a reader that stops stalls its own stream only
//! end      only FIN ends a direction in order, and it carries the direction's byte count
//! ```

mod code;
mod config;
mod dictionary;
mod event;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod liveness;
pub mod message;
mod rate;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod violation;
mod window;

pub use code::{RejectCode, ResetCode};
pub use config::{Bounds, SessionConfig, Side};
pub use event::Event;
pub use frame::MAX_DATA;
pub use message::{Hello, Limits, VERSION};
pub use session::{OpenError, Session, StreamError};
pub use violation::Violation;

/// The ALPN protocol name.
pub const ALPN: &[u8] = b"clusterlink/1";

/// How many gateways a connection may pass.
pub const MAX_HOPS: u32 = 4;

/// How many bytes of a stream may be under way before it was accepted.
pub const EARLY_DATA: u64 = 16 * 1024;
