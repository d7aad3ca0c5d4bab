//! The encrypted channel: bytes in, bytes out, no socket.
//!
//! This module and the one below it are the only ones that know rustls' unbuffered API. Two of its
//! rules are kept here and not shown to callers. First, rustls reassembles handshake messages inside the buffer that it is
//! given, and must find them there again: it is only ever shown whole records, and what it still
//! needs of them moves into `held`. Second, it indexes that buffer by what it has processed before,
//! so each call, one that only encrypts too, must pass `held` and never something shorter.

mod connection;

use std::sync::Arc;

use clusterlink_model::PeerName;
use rustls::{
    AlertDescription, ClientConfig, CommonState, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::{DnsName, ServerName},
    server::UnbufferedServerConnection,
};

use connection::{Connection, Say, Step};

/// The most plaintext that one record carries.
const MAX_FRAGMENT: usize = 16 * 1024;
/// Record header, inner content type and AEAD tag: what a record adds to its plaintext.
const RECORD_OVERHEAD: usize = 5 + 1 + 16;
/// The most ciphertext that one record may announce.
const MAX_CIPHERTEXT: usize = MAX_FRAGMENT + 256;
/// How many bytes of unfinished handshake messages are kept. Ours fit in a few KiB.
const MAX_HELD: usize = 64 * 1024;
/// Room beside the records for what rustls wants to say itself, such as a key update.
const SLACK: usize = 256;

/// One TLS connection after or during its handshake.
pub struct Channel {
    connection: Connection,
    /// Whole records whose handshake message is not complete yet.
    held: Vec<u8>,
    /// Records that rustls made of its own accord while there was no room for them.
    pending: Vec<u8>,
    close_sent: bool,
    close_received: bool,
    failed: bool,
}

/// What a call of [`Channel::decrypt`] used up and saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decrypted {
    /// How many bytes at the front of the ciphertext are done with.
    pub consumed: usize,
    /// Whether the other end has said close_notify: nothing it sends afterwards counts.
    pub closed: bool,
}

/// Why a channel cannot go on. Every error is final for the channel.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ChannelError {
    /// The other end sent a fatal alert.
    #[error("the other end ended the session with the TLS alert {0:?}")]
    Alert(AlertDescription),
    /// What arrived is no valid TLS, or was changed on its way.
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
    /// An unfinished handshake message grew past what is kept of it.
    #[error("a TLS handshake message is larger than {MAX_HELD} bytes")]
    Oversized,
    /// The destination has too little room; nothing was encrypted.
    #[error("{required} bytes of room are needed for the records")]
    NoRoom {
        /// How large the destination must be.
        required: usize,
    },
    /// The channel was closed by us, or has failed before.
    #[error("the TLS session is closed")]
    Closed,
}

impl From<rustls::Error> for ChannelError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) => Self::Alert(alert),
            other => Self::Tls(other),
        }
    }
}

impl Channel {
    /// Encrypts `plaintext` in records of 16 KiB and appends them to `out`.
    pub fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), ChannelError> {
        let start = out.len();
        let mut room = Self::sealed_len(plaintext.len()) + self.pending.len();
        loop {
            out.resize(start + room, 0);
            match self.encrypt_into(plaintext, &mut out[start..]) {
                Ok(written) => {
                    out.truncate(start + written);
                    return Ok(());
                }
                Err(ChannelError::NoRoom { required }) => room = required,
                Err(error) => {
                    out.truncate(start);
                    return Err(error);
                }
            }
        }
    }

    /// Encrypts `plaintext` into the front of `out`, which should have [`Channel::sealed_len`]
    /// bytes, and tells how many were written. Spares the zeroing that [`Channel::encrypt`] needs.
    pub fn encrypt_into(
        &mut self,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, ChannelError> {
        if self.failed || self.close_sent {
            return Err(ChannelError::Closed);
        }
        self.write(Say::Data(plaintext), out)
    }

    /// How much room the records of `plaintext` bytes need.
    pub const fn sealed_len(plaintext: usize) -> usize {
        plaintext + plaintext.div_ceil(MAX_FRAGMENT) * RECORD_OVERHEAD + SLACK
    }

    /// Decrypts every whole record at the front of `ciphertext` (in place) and appends what they
    /// carry to `plain`. `out` receives what the other end must be sent in answer, also when the
    /// call fails: the alert that tells it why.
    pub fn decrypt(
        &mut self,
        ciphertext: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Decrypted, ChannelError> {
        // Once close_notify is sent, rustls (with debug assertions) panics at a bad record.
        if self.failed || self.close_sent {
            return Err(ChannelError::Closed);
        }
        if self.close_received {
            return Ok(Decrypted {
                consumed: ciphertext.len(),
                closed: true,
            });
        }
        let whole = whole_records(ciphertext);
        let result = if self.held.is_empty() {
            self.advance(&mut ciphertext[..whole], plain, out)
                .map(|used| {
                    self.held.extend_from_slice(&ciphertext[used..whole]);
                })
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(&ciphertext[..whole]);
            self.advance(&mut held, plain, out).map(|used| {
                held.drain(..used);
                self.held = held;
            })
        };
        let result = match result {
            Ok(()) if self.held.len() > MAX_HELD => Err(ChannelError::Oversized),
            other => other,
        };
        match result {
            Ok(()) => Ok(Decrypted {
                consumed: whole,
                closed: self.close_received,
            }),
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }

    /// Appends the record that tells the other end that nothing follows. The channel is then done:
    /// it neither sends nor receives.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        if self.failed || self.close_sent {
            return;
        }
        let start = out.len();
        let mut room = SLACK + self.pending.len();
        loop {
            out.resize(start + room, 0);
            match self.write(Say::Close, &mut out[start..]) {
                Err(ChannelError::NoRoom { required }) => room = required,
                Ok(written) => {
                    out.truncate(start + written);
                    break;
                }
                Err(_) => {
                    out.truncate(start);
                    break;
                }
            }
        }
        self.close_sent = true;
    }

    /// A channel that is about to dial `peer`.
    pub(super) fn client(
        config: Arc<ClientConfig>,
        peer: &PeerName,
    ) -> Result<Self, rustls::Error> {
        let name = DnsName::try_from(peer.as_str().to_owned())
            .map_err(|_| rustls::Error::UnsupportedNameType)?;
        let connection = UnbufferedClientConnection::new(config, ServerName::DnsName(name))?;
        Ok(Self::new(Connection::Client(Box::new(connection))))
    }

    /// A channel for a caller whose first bytes are still to come.
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(Connection::Server(Box::new(connection))))
    }

    /// Replaces the sending key now; rustls does it by itself after as much data as a key may see.
    #[cfg(test)]
    pub(super) fn update_keys(&mut self, out: &mut Vec<u8>) -> Result<(), ChannelError> {
        self.connection.update_keys(&mut self.held)?;
        self.encrypt(&[], out)
    }

    /// What rustls knows of the connection, such as the certificates of the other end.
    pub(super) fn state(&self) -> &CommonState {
        self.connection.state()
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            held: Vec::new(),
            pending: Vec::new(),
            close_sent: false,
            close_received: false,
            failed: false,
        }
    }

    /// Shows `records` to rustls until it wants more, and tells how many bytes it is done with.
    fn advance(
        &mut self,
        records: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, ChannelError> {
        out.append(&mut self.pending);
        let mut used = 0;
        loop {
            let (discard, step) = self.connection.process(&mut records[used..], plain, out);
            used += discard;
            match step {
                Ok(Step::Continue) => {}
                Ok(Step::Wait) => return Ok(used),
                Ok(Step::Closed) => {
                    self.close_received = true;
                    return Ok(records.len());
                }
                Err(error) => {
                    self.connection.take_alert(&mut records[used..], out);
                    return Err(error.into());
                }
            }
        }
    }

    /// Says `what`, behind what rustls wants to say first, and tells how many bytes that took.
    fn write(&mut self, what: Say<'_>, out: &mut [u8]) -> Result<usize, ChannelError> {
        loop {
            let first = self.pending.len();
            let room = out.get_mut(first..).unwrap_or_default();
            let written = self
                .connection
                .say(&mut self.held, what, &mut self.pending, room);
            match written {
                Ok(Some(written)) => {
                    let total = first + written;
                    out.get_mut(..first)
                        .ok_or(ChannelError::NoRoom { required: total })?
                        .copy_from_slice(&self.pending);
                    self.pending.clear();
                    return Ok(total);
                }
                Ok(None) => {}
                Err(ChannelError::NoRoom { required }) => {
                    return Err(ChannelError::NoRoom {
                        required: required + first,
                    });
                }
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("handshaking", &self.state().is_handshaking())
            .field("close_sent", &self.close_sent)
            .field("close_received", &self.close_received)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// How many bytes at the front of `buffer` are whole records. A header that no record can have
/// counts as whole, with all that follows it, so that rustls sees and refuses it at once.
fn whole_records(buffer: &[u8]) -> usize {
    let mut end = 0;
    while let Some([kind, major, _, high, low, rest @ ..]) = buffer.get(end..) {
        let length = usize::from(*high) << 8 | usize::from(*low);
        if !(20..=24).contains(kind) || *major != 3 || length > MAX_CIPHERTEXT {
            return buffer.len();
        }
        if rest.len() < length {
            break;
        }
        end += 5 + length;
    }
    end
}
