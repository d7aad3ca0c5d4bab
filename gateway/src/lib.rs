//! The gateway of a peer: accepts steered connections of local clients and carries them to other
//! peers over mutually authenticated TLS, and the other way round.
//!
//! ```text
//! client ──▶ steering listener ─▶ egress: who, policy, source ─▶ session ══ TLS ══▶ peer
//! backend ◀── relay ◀── ingress: policy, backend ◀── session ◀══ TLS ══ peer listener
//! ```

#![forbid(unsafe_code)]

pub mod flow;
pub mod status;
pub mod tls;
pub mod tunnel;
pub mod view;
