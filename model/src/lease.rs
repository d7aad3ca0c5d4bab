//! What an import holds for as long as it exists: its addresses and its target port.
//!
//! Both are pure tables. The caller writes their state down before anyone uses what it was given,
//! reads it back at the next start, and brings randomness and knowledge of the host.

mod address;
mod port;

pub use self::{
    address::{AddressLease, AddressLeaseState, AddressLeases, AddressesExhausted},
    port::{PortClaim, PortLease, PortLeases, PortRefused, PortRules},
};
