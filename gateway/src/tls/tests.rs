//! Tests over real sockets and in memory, with certificates made on the spot.

mod bundle;
mod channel;
mod hostile;
mod pki;
mod refusals;
mod resumption;
mod sessions;
mod watching;
