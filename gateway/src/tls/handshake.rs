//! Handshakes over a socket, with a deadline and a bound on what is read.

use std::{future::Future, io, net::Shutdown, time::Duration};

use clusterlink_model::PeerName;
use socket2::SockRef;
use tokio::{net::TcpStream, time::timeout};

use super::{
    ALPN,
    credentials::Credentials,
    error::{HandshakeError, Untrusted},
    identity::PeerIdentity,
    record::Channel,
    trust::Role,
};

/// How long a handshake may take.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How much is read before a handshake must be complete.
pub const MAX_HANDSHAKE_BYTES: usize = 64 * 1024;
/// How long the other end has to take the alert that says why it was refused.
const FAREWELL: Duration = Duration::from_millis(500);
/// How much is asked of the socket at once.
const READ: usize = 16 * 1024;

/// A session whose other end is known.
#[derive(Debug)]
pub struct Established {
    /// The encrypted channel.
    pub channel: Channel,
    /// Who is at the other end.
    pub peer: PeerIdentity,
    /// Whether the session resumed an earlier one.
    pub resumed: bool,
    /// Ciphertext that was read already: the beginning of a record that is not whole yet.
    pub leftover: Vec<u8>,
    /// Plaintext that came right behind the handshake.
    pub early: Vec<u8>,
}

/// Dials `peer` over a connected socket. The other end judges us after this returns: its refusal
/// is the first thing that [`Channel::decrypt`] reports.
pub async fn connect(
    socket: &TcpStream,
    credentials: &Credentials,
    peer: &PeerName,
) -> Result<Established, HandshakeError> {
    let channel = Channel::client(credentials.client_config(), peer)
        .map_err(|_| HandshakeError::ServerName(peer.clone()))?;
    establish(socket, channel, credentials, Some(peer)).await
}

/// Answers a caller on an accepted socket.
pub async fn accept(
    socket: &TcpStream,
    credentials: &Credentials,
) -> Result<Established, HandshakeError> {
    let channel = Channel::server(credentials.server_config())?;
    establish(socket, channel, credentials, None).await
}

/// Performs one handshake with ourselves in memory. The first one of a process starts its random
/// generator and costs some 60 ms, which is better spent before the process is ready.
pub fn warm_up(credentials: &Credentials) -> Result<(), HandshakeError> {
    let mut client = Channel::client(credentials.client_config(), credentials.name())
        .map_err(|_| HandshakeError::ServerName(credentials.name().clone()))?;
    let mut server = Channel::server(credentials.server_config())?;
    let (mut to_server, mut to_client, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    while client.state().is_handshaking() || server.state().is_handshaking() {
        let before = (to_server.len(), to_client.len());
        let taken = client
            .decrypt(&mut to_client, &mut plain, &mut to_server)?
            .consumed;
        to_client.drain(..taken);
        let taken = server
            .decrypt(&mut to_server, &mut plain, &mut to_client)?
            .consumed;
        to_server.drain(..taken);
        if before == (to_server.len(), to_client.len()) && before == (0, 0) {
            return Err(HandshakeError::Closed);
        }
    }
    Ok(())
}

async fn establish(
    socket: &TcpStream,
    channel: Channel,
    credentials: &Credentials,
    dialled: Option<&PeerName>,
) -> Result<Established, HandshakeError> {
    let mut exchange = Exchange {
        socket,
        channel,
        input: Vec::new(),
        received: 0,
        early: Vec::new(),
        output: Vec::new(),
    };
    let failure = match within_deadline(exchange.run()).await {
        Ok(()) => match judge(&exchange.channel, credentials, dialled) {
            Ok(peer) => {
                let resumed = exchange.channel.state().handshake_kind()
                    == Some(rustls::HandshakeKind::Resumed);
                return Ok(Established {
                    channel: exchange.channel,
                    peer,
                    resumed,
                    leftover: exchange.input,
                    early: exchange.early,
                });
            }
            Err(refusal) => {
                exchange.channel.close_notify(&mut exchange.output);
                refusal
            }
        },
        Err(failure) => failure,
    };
    exchange.farewell().await;
    Err(failure)
}

async fn within_deadline(
    exchange: impl Future<Output = Result<(), HandshakeError>>,
) -> Result<(), HandshakeError> {
    timeout(HANDSHAKE_DEADLINE, exchange)
        .await
        .unwrap_or(Err(HandshakeError::Timeout))
}

/// Who the other end is. rustls has judged a fresh chain already, but restores that of a resumed
/// session as it was.
fn judge(
    channel: &Channel,
    credentials: &Credentials,
    dialled: Option<&PeerName>,
) -> Result<PeerIdentity, HandshakeError> {
    let state = channel.state();
    if state.alpn_protocol() != Some(ALPN) {
        return Err(HandshakeError::Alpn);
    }
    let chain = state
        .peer_certificates()
        .ok_or(HandshakeError::NoCertificate)?;
    let role = if dialled.is_some() {
        Role::Called
    } else {
        Role::Caller
    };
    let peer = credentials
        .judge_peer(chain, role)
        .map_err(HandshakeError::Untrusted)?;
    match dialled {
        Some(expected) if *expected != peer.name => {
            Err(HandshakeError::Untrusted(Untrusted::NameMismatch {
                expected: expected.to_string(),
                presented: vec![peer.name.to_string()],
            }))
        }
        Some(_) | None => Ok(peer),
    }
}

/// A handshake in progress.
struct Exchange<'a> {
    socket: &'a TcpStream,
    channel: Channel,
    input: Vec<u8>,
    received: usize,
    early: Vec<u8>,
    output: Vec<u8>,
}

impl Exchange<'_> {
    async fn run(&mut self) -> Result<(), HandshakeError> {
        loop {
            let step = self
                .channel
                .decrypt(&mut self.input, &mut self.early, &mut self.output)?;
            self.input.drain(..step.consumed);
            self.flush().await?;
            if !self.channel.state().is_handshaking() {
                return Ok(());
            }
            if step.closed {
                return Err(HandshakeError::Closed);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), HandshakeError> {
        let room = READ.min(MAX_HANDSHAKE_BYTES - self.received);
        if room == 0 {
            return Err(HandshakeError::Protocol(format!(
                "its handshake is larger than {MAX_HANDSHAKE_BYTES} bytes"
            )));
        }
        let start = self.input.len();
        self.input.resize(start + room, 0);
        let read = loop {
            self.socket.readable().await?;
            match self.socket.try_read(&mut self.input[start..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => break other?,
            }
        };
        self.input.truncate(start + read);
        self.received += read;
        if read == 0 {
            Err(HandshakeError::Closed)
        } else {
            Ok(())
        }
    }

    async fn flush(&mut self) -> Result<(), HandshakeError> {
        let mut sent = 0;
        while sent < self.output.len() {
            self.socket.writable().await?;
            match self.socket.try_write(&self.output[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        Ok(())
    }

    /// Lets the other end read why it was refused. A socket that is closed with unread data resets
    /// the connection, and a reset overtakes the alert; so what still arrives is read, a while.
    async fn farewell(&mut self) {
        if self.output.is_empty() {
            return;
        }
        let goodbye = async {
            self.flush().await?;
            SockRef::from(self.socket).shutdown(Shutdown::Write)?;
            self.input.clear();
            self.received = 0;
            loop {
                self.read().await?;
                self.input.clear();
            }
        };
        // Whatever happens now, the handshake has failed already, and that is what is reported.
        let _: Result<Result<(), HandshakeError>, _> = timeout(FAREWELL, goodbye).await;
    }
}
