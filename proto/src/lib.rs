//! What the controller and the agents of one cluster tell each other: messages, their translation
//! to and from the model, and the agent's side of the stream as a state machine without sockets.
//!
//! ```text
//! Resource ─▶ Encoded (name, version, bytes: made once) ─▶ Update ═▶ Replica ─▶ model::Update
//!                                                          nonce ◀═ Ack, rejected by name
//! ```
//! The first stream of an agent brings everything and ends it with a marker. A later one begins
//! with what the agent holds, and brings only what differs.
#![forbid(unsafe_code)]

pub mod encoded;
pub mod fuzzing;
mod invalid;
mod name;
pub mod parts;
pub mod ports;
pub mod replica;
pub mod report;
mod resource;
pub mod wire;

pub use encoded::{Encoded, Version};
pub use invalid::Invalid;
pub use name::describe;
pub use replica::Replica;
pub use report::{NodeReport, PeerReport, Rejected, SourceReport, SteeringReport};

/// The version of the protocol that this software speaks. Another one is refused: what can be
/// added as a field or a kind needs no new version.
pub const PROTOCOL: u32 = 1;
/// The audience of the tokens that agents show.
pub const AUDIENCE: &str = "clusterlink-controller";
/// Where a refused Report stream says which controller takes reports: `address:port`.
pub const LEADER_METADATA: &str = "clusterlink-leader";
/// A message to an agent is closed when it has this many bytes of resources.
pub const CHUNK: usize = 256 * 1024;
/// The largest resource that is sent.
pub const MAX_RESOURCE: usize = 8 * 1024 * 1024;
/// The largest message to an agent: one chunk that one more resource has gone into.
pub const MAX_TO_AGENT: usize = CHUNK + MAX_RESOURCE + 64 * 1024;
/// The largest message to a controller.
pub const MAX_TO_CONTROLLER: usize = 1024 * 1024;
/// How many held resources go into one message: each name has at most 63 + 253 characters.
pub const HELD_PER_MESSAGE: usize = 2048;
/// How many resources an agent may hold; the controller refuses more.
pub const MAX_HELD: usize = 262_144;
/// How many addresses may be asked about at once.
pub const MAX_LOOKUPS: usize = 256;
/// How many workloads that were asked for are kept current for one agent; the one that was asked
/// for first goes first.
pub const MAX_ON_DEMAND: usize = 1024;
/// Bytes of a reason, beyond which it is cut.
pub const MAX_REASON: usize = 1024;
