//! Who may talk to whom between peers, and the encrypted channel they talk over.
//!
//! ```text
//! cert.pem key.pem ca.pem crl.pem ─▶ Credentials (one generation, replaced as a whole by Watcher)
//!                                        │
//!            TcpStream ─ connect/accept ─┴─▶ Established { Channel, PeerIdentity }
//! ```
//!
//! TLS 1.3 only, mutual, with the ALPN protocol [`ALPN`] and never early data. The name of a caller
//! is the only DNS SAN of its certificate. Session tickets belong to one generation of
//! credentials, and every handshake is judged against the trust bundle and the clock, a resumed one
//! too: rustls restores a resumed identity from the ticket without looking at it again.
//!
//! Handshakes cost CPU time on the task that runs them; how many run at once is for the caller to
//! bound.

mod config;
mod credentials;
mod error;
mod files;
mod handshake;
mod identity;
mod material;
mod record;
mod trust;
mod verifier;
mod watch;

#[cfg(test)]
mod tests;

pub use credentials::{Credentials, RootCertificate};
pub use error::{CredentialsError, HandshakeError, Untrusted};
pub use handshake::{
    Established, HANDSHAKE_DEADLINE, MAX_HANDSHAKE_BYTES, accept, connect, warm_up,
};
pub use identity::PeerIdentity;
pub use record::{Channel, ChannelError, Decrypted};
pub use watch::Watcher;

/// The application protocol that both ends must name in the handshake.
pub const ALPN: &[u8] = b"clusterlink/1";
