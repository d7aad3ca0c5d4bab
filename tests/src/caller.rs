//! A caller of a gateway that is no gateway: TLS by hand, to see who is let in.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, Stream};

use crate::network;
use crate::pki::Leaf;
use crate::place::Place;

/// How long the gateway may take to say something.
const PATIENCE: Duration = Duration::from_secs(10);

/// A TLS client with an identity and a memory for tickets.
#[derive(Clone, Debug)]
pub struct Caller {
    config: Arc<ClientConfig>,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The gateway spoke its protocol to us; `resumed` tells whether an earlier session was resumed.
    LetIn {
        /// Whether the handshake was a resumption.
        resumed: bool,
    },
    /// The gateway ended the session; the text says how.
    Refused(String),
}

impl Caller {
    /// A caller that shows `leaf`, if any, trusts `roots` (PEM) and asks for the ALPN protocol.
    pub fn new(leaf: Option<&Leaf>, roots: &[&str], protocol: &str) -> Result<Self> {
        let mut store = RootCertStore::empty();
        for pem in roots {
            store.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(store);
        let mut config = match leaf {
            Some(leaf) => {
                let chain =
                    CertificateDer::pem_slice_iter(leaf.cert.as_bytes())
                        .collect::<Result<Vec<_>, _>>()?;
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
                builder.with_client_auth_cert(chain, key)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config.resumption = Resumption::in_memory_sessions(16);
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Calls a gateway from a place and waits until it says something or hangs up.
    pub fn call(&self, from: &Place, gateway: SocketAddr, name: &str) -> Result<Answer> {
        let name = ServerName::try_from(name.to_owned()).context("the peer's name")?;
        network::within(from.namespace(), || {
            let mut socket = TcpStream::connect_timeout(&gateway, PATIENCE)
                .with_context(|| format!("cannot connect to {gateway}"))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let mut connection = ClientConnection::new(self.config.clone(), name)?;
            // Our certificate is judged after our side of the handshake is done: the first bytes of
            // the gateway's own protocol are the proof of being let in.
            let heard = Stream::new(&mut connection, &mut socket).read(&mut [0; 1]);
            Ok(match heard {
                Ok(0) => Answer::Refused("closed".to_owned()),
                Ok(_) => Answer::LetIn {
                    resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    anyhow::bail!("the gateway said nothing within {} s", PATIENCE.as_secs())
                }
                Err(error) => Answer::Refused(error.to_string()),
            })
        })?
    }
}

/// Sends bytes that are no TLS to a gateway and waits until it hangs up.
pub fn garbage(from: &Place, gateway: SocketAddr, bytes: &[u8]) -> Result<()> {
    network::within(from.namespace(), || {
        let mut socket = TcpStream::connect_timeout(&gateway, PATIENCE)
            .with_context(|| format!("cannot connect to {gateway}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(bytes)?;
        let mut answer = Vec::new();
        match socket.read_to_end(&mut answer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                anyhow::bail!("the gateway did not hang up; it said {answer:?}")
            }
            // A reset is as good as an end.
            Ok(_) | Err(_) => Ok(()),
        }
    })?
}
