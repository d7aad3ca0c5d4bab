//! `clusterlink create`: a fabric's certificate authority, and the certificates of its peers.
//!
//! ```text
//! <path>/<fabric>/cert.pem  key.pem                  create fabric
//! <path>/<fabric>/<peer>/cert.pem  key.pem  ca.pem   create peer-cert, from the two above
//! ```
//!
//! The second directory is what `clusterlink run --certs` takes. Nothing is ever overwritten.

mod fabric;
mod files;
mod peer_cert;
mod terms;

use clap::Subcommand;

pub use self::{
    fabric::FabricArgs,
    peer_cert::PeerCertArgs,
    terms::{KeyType, Validity},
};

/// What to create.
#[derive(Clone, Debug, Subcommand)]
pub enum CreateCommand {
    /// Create a fabric: the certificate authority that its peers trust.
    Fabric(FabricArgs),
    /// Create the certificate of a peer, signed by its fabric.
    PeerCert(PeerCertArgs),
}

impl CreateCommand {
    /// Creates it and prints where it is.
    pub fn run(self) -> anyhow::Result<()> {
        let report = match self {
            Self::Fabric(args) => fabric::create(&args)?,
            Self::PeerCert(args) => peer_cert::create(&args)?,
        };
        println!("{report}");
        Ok(())
    }
}
