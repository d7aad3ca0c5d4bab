//! Handshakes that succeed, and the tools to run one.

use std::time::Duration;

use clusterlink_model::PeerName;
use tokio::net::{TcpListener, TcpStream};

use super::pki::{Ca, LeafSpec, YEAR, credentials};
use crate::tls::{
    Channel, ChannelError, Credentials, Established, HandshakeError, accept, connect, warm_up,
};

/// One end of a session after its handshake.
pub(super) struct End {
    pub(super) socket: TcpStream,
    pub(super) result: Result<Established, HandshakeError>,
}

pub(super) fn name(text: &str) -> PeerName {
    PeerName::new(text).unwrap()
}

pub(super) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

/// A handshake between two ends over loopback: the dialler's and the acceptor's view.
pub(super) async fn handshake(
    dialler: &Credentials,
    peer: &str,
    acceptor: &Credentials,
) -> (End, End) {
    let (dialled, accepted) = sockets().await;
    let peer = name(peer);
    let (near, far) = tokio::join!(
        connect(&dialled, dialler, &peer),
        accept(&accepted, acceptor)
    );
    (
        End {
            socket: dialled,
            result: near,
        },
        End {
            socket: accepted,
            result: far,
        },
    )
}

impl End {
    pub(super) fn established(&mut self) -> &mut Established {
        self.result.as_mut().expect("the handshake succeeds")
    }

    pub(super) fn error(&self) -> &HandshakeError {
        self.result.as_ref().expect_err("the handshake fails")
    }

    pub(super) async fn send(&mut self, plain: &[u8]) {
        let mut out = Vec::new();
        self.established().channel.encrypt(plain, &mut out).unwrap();
        let mut sent = 0;
        while sent < out.len() {
            self.socket.writable().await.unwrap();
            match self.socket.try_write(&out[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Receives `count` bytes of plaintext.
    pub(super) async fn receive(&mut self, count: usize) -> Result<Vec<u8>, ChannelError> {
        let End { socket, result } = self;
        let established = result.as_mut().expect("the handshake succeeds");
        let Established {
            channel,
            leftover,
            early,
            ..
        } = established;
        let mut plain = std::mem::take(early);
        let mut out = Vec::new();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let step = channel.decrypt(leftover, &mut plain, &mut out)?;
            leftover.drain(..step.consumed);
            if plain.len() >= count {
                *early = plain.split_off(count);
                return Ok(plain);
            }
            assert!(
                !step.closed,
                "closed after {} bytes of {count}",
                plain.len()
            );
            tokio::time::timeout_at(deadline, socket.readable())
                .await
                .expect("in time")
                .unwrap();
            let start = leftover.len();
            leftover.resize(start + 65536, 0);
            let read = match socket.try_read(&mut leftover[start..]) {
                Ok(0) => panic!("end of stream after {} bytes of {count}", plain.len()),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                Err(error) => panic!("{error}"),
            };
            leftover.truncate(start + read);
        }
    }
}

/// Two channels that finished their handshake in memory: the dialler's and the acceptor's, and what
/// the acceptor has sent that the dialler has not read yet (its tickets).
pub(super) fn channels(mut client: Channel, mut server: Channel) -> (Channel, Channel, Vec<u8>) {
    let (mut to_server, mut to_client, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    while server.state().is_handshaking() {
        let step = client
            .decrypt(&mut to_client, &mut plain, &mut to_server)
            .unwrap();
        to_client.drain(..step.consumed);
        let step = server
            .decrypt(&mut to_server, &mut plain, &mut to_client)
            .unwrap();
        to_server.drain(..step.consumed);
    }
    assert!(!client.state().is_handshaking());
    (client, server, to_client)
}

pub(super) fn fresh_channels() -> (Channel, Channel, Vec<u8>) {
    let ca = Ca::new("ca");
    let (a, b) = (
        credentials(&ca.leaf("a"), &ca.pem),
        credentials(&ca.leaf("b"), &ca.pem),
    );
    channels(
        Channel::client(a.client_config(), &name("b")).unwrap(),
        Channel::server(b.server_config()).unwrap(),
    )
}

async fn assert_works(a: &Credentials, b: &Credentials) {
    let (mut near, mut far) = handshake(a, b.name().as_str(), b).await;
    assert_eq!(near.established().peer.name, *b.name());
    assert_eq!(far.established().peer.name, *a.name());
    assert_eq!(far.established().peer.issued_at, a.leaf_issued_at());
    assert!(far.established().peer.is_caller && !near.established().peer.is_caller);
    assert_eq!(
        near.established().channel.state().alpn_protocol(),
        Some(crate::tls::ALPN)
    );
    near.send(b"question").await;
    assert_eq!(far.receive(8).await.unwrap(), b"question");
    far.send(b"answer").await;
    assert_eq!(near.receive(6).await.unwrap(), b"answer");
}

#[tokio::test]
async fn both_ends_learn_the_others_name_and_talk() {
    let ca = Ca::new("ca");
    let (a, b) = (
        credentials(&ca.leaf("a"), &ca.pem),
        credentials(&ca.leaf("b"), &ca.pem),
    );
    assert_works(&a, &b).await;
    let (mut near, _far) = handshake(&a, "b", &b).await;
    let state = near.established().channel.state();
    assert_eq!(
        state.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let group = state
        .negotiated_key_exchange_group()
        .map(rustls::crypto::SupportedKxGroup::name);
    assert_eq!(group, Some(rustls::NamedGroup::X25519MLKEM768));
}

#[tokio::test]
async fn chains_with_intermediates_are_accepted_both_ways() {
    let root = Ca::new("root");
    let middle = root.intermediate("middle");
    let lower = middle.intermediate("lower");
    let mut leaf = lower.leaf("a");
    leaf.cert.push_str(&lower.pem);
    leaf.cert.push_str(&middle.pem);
    let (a, b) = (
        credentials(&leaf, &root.pem),
        credentials(&root.leaf("b"), &root.pem),
    );
    assert_works(&a, &b).await;
    assert_works(&b, &a).await;
}

#[tokio::test]
async fn several_roots_are_trusted_at_once() {
    // Of one name, as after a renewal of the fabric.
    let (old, new) = (Ca::new("fabric"), Ca::new("fabric"));
    let both = format!("{}{}", old.pem, new.pem);
    let (a, b) = (
        credentials(&old.leaf("a"), &both),
        credentials(&new.leaf("b"), &both),
    );
    assert_works(&a, &b).await;
    assert_works(&b, &a).await;
}

#[tokio::test]
async fn both_kinds_of_keys_work_with_each_other() {
    let ca = Ca::new("ca");
    let leaf = |name: &str, ed25519| {
        credentials(
            &ca.issue(&LeafSpec {
                ed25519,
                ..LeafSpec::named(name)
            }),
            &ca.pem,
        )
    };
    for (left, right) in [(true, true), (true, false), (false, true)] {
        assert_works(&leaf("a", left), &leaf("b", right)).await;
    }
}

#[tokio::test]
async fn a_leaf_without_extended_key_usage_serves_both_directions() {
    let ca = Ca::new("ca");
    let bare = LeafSpec {
        usages: Vec::new(),
        valid_for: YEAR,
        ..LeafSpec::named("a")
    };
    let (a, b) = (
        credentials(&ca.issue(&bare), &ca.pem),
        credentials(&ca.leaf("b"), &ca.pem),
    );
    assert_works(&a, &b).await;
    assert_works(&b, &a).await;
}

#[tokio::test]
async fn names_are_compared_without_case() {
    let ca = Ca::new("ca");
    let (a, b) = (
        credentials(&ca.leaf("A"), &ca.pem),
        credentials(&ca.leaf("Peer-B"), &ca.pem),
    );
    assert_eq!(b.name().as_str(), "peer-b");
    assert_works(&a, &b).await;
}

#[test]
fn warming_up_completes_a_handshake_with_oneself() {
    let ca = Ca::new("ca");
    warm_up(&credentials(&ca.leaf("a"), &ca.pem)).unwrap();
}
