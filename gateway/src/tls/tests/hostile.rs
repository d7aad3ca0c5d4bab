//! Callers that do not mean to talk: garbage, silence, half messages, endless ones.

use std::time::Duration;

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    pki::{Ca, credentials},
    sessions::{name, sockets},
};
use crate::tls::{
    Channel, Credentials, HANDSHAKE_DEADLINE, HandshakeError, MAX_HANDSHAKE_BYTES, accept, connect,
};

fn someone() -> Credentials {
    let ca = Ca::new("ca");
    credentials(&ca.leaf("b"), &ca.pem)
}

fn client_hello(acceptor: &Credentials) -> Vec<u8> {
    let mut channel = Channel::client(acceptor.client_config(), acceptor.name()).unwrap();
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    channel.decrypt(&mut [], &mut plain, &mut out).unwrap();
    out
}

/// Sends `bytes`, ends the stream if asked to, and reads all that comes back.
async fn sends(bytes: &[u8], then_ends: bool, acceptor: &Credentials) -> (HandshakeError, Vec<u8>) {
    let (mut caller, accepted) = sockets().await;
    let caller = async {
        // The acceptor may have said no and gone before everything is written.
        let _ = caller.write_all(bytes).await;
        if then_ends {
            let _ = caller.shutdown().await;
        }
        let mut heard = Vec::new();
        let _ = caller.read_to_end(&mut heard).await;
        heard
    };
    let acceptor = async {
        let error = accept(&accepted, acceptor)
            .await
            .expect_err("this is no handshake");
        drop(accepted);
        error
    };
    let (heard, error) = tokio::join!(caller, acceptor);
    (error, heard)
}

/// A fatal TLS alert in the clear, with this description.
fn alert(description: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, description]
}

#[tokio::test]
async fn garbage_is_answered_with_an_alert() {
    let acceptor = someone();
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"[..],
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        &[0; 100],
        &[0xff; 5],
    ] {
        let (error, heard) = sends(bytes, false, &acceptor).await;
        assert!(matches!(error, HandshakeError::Protocol(_)), "{error:?}");
        assert_eq!(heard.first(), Some(&21), "an alert: {heard:?}");
    }
}

#[tokio::test]
async fn an_alert_arrives_although_more_was_sent_than_was_read() {
    let acceptor = someone();
    let mut bytes = b"SSH-2.0-OpenSSH_9.6\r\n".to_vec();
    bytes.resize(MAX_HANDSHAKE_BYTES / 2, 0);
    let (error, heard) = sends(&bytes, true, &acceptor).await;
    assert!(matches!(error, HandshakeError::Protocol(_)), "{error:?}");
    assert_eq!(heard.len(), 7, "{heard:?}");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let acceptor = someone();
    let mut hello = client_hello(&acceptor);
    let versions = [0, 43, 0, 3, 2, 3, 4];
    let at = hello
        .windows(versions.len())
        .position(|w| w == versions)
        .unwrap();
    hello[at + versions.len() - 1] = 3;
    let (error, heard) = sends(&hello, false, &acceptor).await;
    assert!(matches!(error, HandshakeError::Protocol(_)), "{error:?}");
    let protocol_version = 70;
    assert_eq!(heard, alert(protocol_version));
}

#[tokio::test]
async fn a_stream_that_ends_early_is_a_closed_connection() {
    let acceptor = someone();
    let hello = client_hello(&acceptor);
    for end in [0, 1, 5, 100, hello.len() - 1, hello.len()] {
        let (error, _) = sends(&hello[..end], true, &acceptor).await;
        assert!(
            matches!(error, HandshakeError::Closed),
            "after {end} bytes: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_handshake_without_end_is_cut_off() {
    let acceptor = someone();
    // A ClientHello that announces 65,000 bytes, sent in records of 100.
    let mut bytes = Vec::new();
    let mut message = vec![1, 0, 0xfd, 0xe8];
    message.resize(65_004, 0);
    for fragment in message.chunks(100) {
        bytes.extend([22, 3, 1, 0, fragment.len() as u8]);
        bytes.extend(fragment);
    }
    assert!(bytes.len() > MAX_HANDSHAKE_BYTES);
    let (error, _) = sends(&bytes[..bytes.len() - 1], false, &acceptor).await;
    assert!(matches!(error, HandshakeError::Protocol(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline_on_both_sides() {
    let someone = someone();
    let (dialled, accepted) = sockets().await;
    let start = Instant::now();
    let error = accept(&accepted, &someone).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Timeout), "{error:?}");
    let waited = start.elapsed();
    assert!(waited >= HANDSHAKE_DEADLINE && waited < HANDSHAKE_DEADLINE + Duration::from_secs(2));
    let error = connect(&dialled, &someone, &name("b")).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Timeout), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_is_no_tls_is_refused() {
    let someone = someone();
    let (dialled, mut accepted) = sockets().await;
    let answer = async {
        accepted
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let mut heard = Vec::new();
        let _ = accepted.read_to_end(&mut heard).await;
    };
    let dial = async {
        let error = connect(&dialled, &someone, &name("b")).await.unwrap_err();
        drop(dialled);
        error
    };
    let ((), error) = tokio::join!(answer, dial);
    assert!(matches!(error, HandshakeError::Protocol(_)), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_finish_or_upset_a_handshake(
        start in 0usize..1400,
        change in prop::option::of((0usize..1400, any::<u8>())),
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        piece in 1usize..700,
    ) {
        thread_local! {
            static ACCEPTOR: Credentials = someone();
        }
        let (mut channel, mut hello) = ACCEPTOR.with(|acceptor| {
            (Channel::server(acceptor.server_config()).unwrap(), client_hello(acceptor))
        });
        // The beginning of a good greeting, a changed byte, then anything.
        hello.truncate(start);
        if let Some((at, value)) = change
            && let Some(byte) = hello.get_mut(at)
        {
            *byte = value;
        }
        hello.extend(bytes);
        let (mut plain, mut out, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
        for piece in hello.chunks(piece) {
            buffer.extend_from_slice(piece);
            match channel.decrypt(&mut buffer, &mut plain, &mut out) {
                Ok(step) => drop(buffer.drain(..step.consumed)),
                Err(_) => break,
            }
        }
        prop_assert!(channel.state().is_handshaking());
        prop_assert!(plain.is_empty());
        prop_assert!(out.len() < 64 * 1024);
    }
}
