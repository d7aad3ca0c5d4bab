//! What the kernel programs and user space share: the layouts of map entries, the names and sizes
//! of maps and programs, and the rules that both sides must agree on.
//!
//! Everything is plain data and pure functions, so the rules are tested on the host although they
//! run in the kernel. Layouts are `repr(C)`, without implicit padding; addresses and ports are kept
//! in network order.

#![cfg_attr(not(test), no_std)]

pub mod address;
pub mod layout;
pub mod maps;
pub mod programs;
pub mod reason;
pub mod rule;

#[cfg(feature = "user")]
mod pod;

/// The version of all layouts together: raised whenever a map's meaning or shape changes, so that
/// a new process never reads an old one's entries.
pub const LAYOUT: u32 = 2;

/// The port of a gateway address that no connection ever reaches: the connect hook answers it.
pub const PROBE_PORT: u16 = 1;

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
