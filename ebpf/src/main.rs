//! The kernel programs of a node: they steer connects to imported addresses to the gateway, refuse
//! what no verdict allows, and carry the record of each connect to the socket that the gateway
//! accepts.
//!
//! ```text
//! connect4|6 ──▶ SERVICES ──▶ GATEWAYS, LISTENERS ──▶ IDENTITIES ──▶ VERDICTS
//!     │ rewrite, and a record in STEERED (on the client's socket)
//!     ▼
//! connections (TCP_CONNECT) ──▶ HANDOFF (by tuple) ──▶ connections (PASSIVE_ESTABLISHED)
//!     │                                                     │
//!     ▼ FLOWS                                               ▼ ORIGINS (on the accepted socket)
//! ```
//!
//! A connection that kube-proxy or a CNI brought to a leased port of this node takes no part in that:
//!
//! ```text
//! target_lookup ──▶ TARGETS ──▶ GATEWAYS ──▶ TARGET_SOCKETS
//! ```
//!
//! One file per hook. A hook calls a function that returns what happened; one match turns that
//! into a verdict and a count.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(
    not(target_arch = "bpf"),
    allow(dead_code, reason = "the hooks are only called in the kernel")
)]
#![expect(
    unsafe_code,
    reason = "contexts, helpers and map values are raw pointers"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the kernel's entry points own their context, and an answer uses its outcome up"
)]

mod connect;
mod connections;
mod context;
mod datagram;
mod features;
mod identity;
mod lookup;
mod maps;
mod peername;
mod verdict;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that are reserved for GPL-compatible programs refuse to load without this.
// SAFETY: the section and the symbol are what the kernel's loader reads; nothing else has the name.
#[unsafe(link_section = "license")]
// SAFETY: as above.
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
