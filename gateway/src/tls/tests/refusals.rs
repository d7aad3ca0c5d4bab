//! Handshakes that must fail, what both ends are told, and what they say.

use std::{io::Read, io::Write, sync::Arc};

use rustls::{
    AlertDescription, ClientConfig, ServerConfig,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::{
    pki::{Ca, Clock, Leaf, LeafSpec, YEAR, credentials, credentials_at, dir},
    sessions::{handshake, name, sockets},
};
use crate::tls::{
    ALPN, ChannelError, Credentials, HandshakeError, Untrusted, accept, config, connect,
};

/// Dials with a caller that must be refused: what the acceptor says, and the alert that the caller
/// hears, which comes after its own handshake succeeded.
async fn refused_caller(
    caller: &Credentials,
    acceptor: &Credentials,
) -> (Untrusted, AlertDescription) {
    let (mut near, far) = handshake(caller, acceptor.name().as_str(), acceptor).await;
    let alert = match near.receive(1).await {
        Err(ChannelError::Alert(alert)) => alert,
        other => panic!("{other:?}"),
    };
    match far.error() {
        HandshakeError::Untrusted(why) => (why.clone(), alert),
        other => panic!("{other:?}"),
    }
}

/// Dials an acceptor that must be refused.
async fn refused_acceptor(
    caller: &Credentials,
    peer: &str,
    acceptor: &Credentials,
) -> (Untrusted, AlertDescription) {
    let (near, far) = handshake(caller, peer, acceptor).await;
    match (near.result, far.result) {
        (Err(HandshakeError::Untrusted(why)), Err(HandshakeError::Refused(alert))) => (why, alert),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_of_another_fabric_is_refused() {
    // Of the same name, so that only the key tells them apart.
    let (ours, theirs) = (Ca::new("fabric"), Ca::new("fabric"));
    let a = credentials(&ours.leaf("a"), &ours.pem);
    let b = credentials(&theirs.leaf("b"), &theirs.pem);
    let expected = (Untrusted::UnknownIssuer, AlertDescription::UnknownCA);
    assert_eq!(refused_acceptor(&a, "b", &b).await, expected);

    let both = format!("{}{}", ours.pem, theirs.pem);
    let stranger = credentials(&theirs.leaf("c"), &both);
    assert_eq!(refused_caller(&stranger, &a).await, expected);
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let ca = Ca::new("ca");
    let clock = Clock::new();
    let (a, b) = (ca.leaf("a"), ca.leaf("b"));
    let late = credentials_at(&a, &ca.pem, &clock);
    clock.advance(2 * YEAR);
    let b = credentials(&b, &ca.pem);
    for (why, alert) in [
        refused_acceptor(&late, "b", &b).await,
        refused_caller(&b, &late).await,
    ] {
        assert_eq!(why.reason(), "expired");
        assert_eq!(alert, AlertDescription::CertificateExpired);
    }
}

#[tokio::test]
async fn a_certificate_from_the_future_is_refused() {
    let ca = Ca::new("ca");
    let clock = Clock::new();
    let early = credentials_at(&ca.leaf("a"), &ca.pem, &clock);
    clock.go_back(YEAR);
    let b = credentials(&ca.leaf("b"), &ca.pem);
    for (why, alert) in [
        refused_acceptor(&early, "b", &b).await,
        refused_caller(&b, &early).await,
    ] {
        assert_eq!(why.reason(), "not_yet_valid");
        assert_eq!(alert, AlertDescription::CertificateExpired);
    }
}

#[tokio::test]
async fn an_expired_root_is_refused_although_the_leaf_is_not() {
    let ca = Ca::valid_for("ca", YEAR / 2);
    let clock = Clock::new();
    let a = credentials_at(&ca.leaf("a"), &ca.pem, &clock);
    clock.advance(YEAR / 2 + YEAR / 4);
    let b = credentials(&ca.leaf("b"), &ca.pem);
    assert_eq!(refused_caller(&b, &a).await.0.reason(), "expired");
    assert_eq!(refused_acceptor(&a, "b", &b).await.0.reason(), "expired");
}

#[tokio::test]
async fn a_gateway_of_another_name_is_refused_naming_both() {
    let ca = Ca::new("ca");
    let (a, b) = (
        credentials(&ca.leaf("a"), &ca.pem),
        credentials(&ca.leaf("b"), &ca.pem),
    );
    let (why, _) = refused_acceptor(&a, "c", &b).await;
    let expected = Untrusted::NameMismatch {
        expected: "c".into(),
        presented: vec!["b".into()],
    };
    assert_eq!(why, expected);
    let text = why.to_string();
    assert!(
        text.contains("\"b\"") && text.contains("not to c"),
        "{text}"
    );
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let ca = Ca::new("ca");
    let spec = LeafSpec {
        serial: 99,
        ..LeafSpec::named("b")
    };
    let b = credentials(&ca.issue(&spec), &ca.pem);
    let list = ca.crl(&[5, 99, 1000], std::time::SystemTime::now() + YEAR);
    let a = dir(&ca.leaf("a"), &ca.pem, Some(&list));
    let a = Credentials::load(a.path(), 1).unwrap();
    let expected = (Untrusted::Revoked, AlertDescription::CertificateRevoked);
    assert_eq!(refused_caller(&b, &a).await, expected);
    assert_eq!(refused_acceptor(&a, "b", &b).await, expected);
    let other = credentials(&ca.leaf("c"), &ca.pem);
    let (_near, far) = handshake(&other, "a", &a).await;
    assert_eq!(far.result.unwrap().peer.name, name("c"));
}

#[tokio::test]
async fn a_revoked_intermediate_takes_its_leaves_along() {
    let root = Ca::new("root");
    let middle = root.intermediate("middle");
    let mut leaf = middle.leaf("b");
    leaf.cert.push_str(&middle.pem);
    let (_, pem) = x509_parser::pem::parse_x509_pem(middle.pem.as_bytes()).unwrap();
    let serial = pem.parse_x509().unwrap().raw_serial().to_vec();
    let now = std::time::SystemTime::now();
    let b = credentials(&leaf, &root.pem);
    let list = root.crl_of_raw(&serial, now + YEAR);
    let a = dir(&root.leaf("a"), &root.pem, Some(&list));
    let a = Credentials::load(a.path(), 1).unwrap();
    assert_eq!(refused_caller(&b, &a).await.0, Untrusted::Revoked);
}

/// A caller that is not ours: `config` decides what it presents. Returns what the acceptor says
/// and the error that the caller ends with.
async fn foreign_caller(
    config: ClientConfig,
    acceptor: &Credentials,
) -> (HandshakeError, std::io::Error) {
    let (dialled, accepted) = sockets().await;
    let dialled = dialled.into_std().unwrap();
    dialled.set_nonblocking(false).unwrap();
    let peer = acceptor.name().to_string();
    let caller = tokio::task::spawn_blocking(move || {
        let server_name = ServerName::try_from(peer).unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(config), server_name).unwrap();
        let mut socket = dialled;
        let mut stream = rustls::Stream::new(&mut tls, &mut socket);
        let mut byte = [0];
        stream
            .write_all(b"hello")
            .and_then(|()| stream.flush())
            .and_then(|()| stream.read_exact(&mut byte))
            .expect_err("a foreign caller gets nothing")
    });
    let error = accept(&accepted, acceptor)
        .await
        .expect_err("a foreign caller is refused");
    drop(accepted);
    (error, caller.await.unwrap())
}

fn foreign_config(leaf: Option<&Leaf>, alpn: &[&[u8]]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(config::provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(
            config::provider().signature_verification_algorithms,
        )));
    let mut config = match leaf {
        Some(leaf) => {
            let (chain, key) = decoded(leaf);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

fn decoded(leaf: &Leaf) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(leaf.cert.as_bytes()).collect::<Result<_, _>>();
    (
        chain.unwrap(),
        PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap(),
    )
}

/// Believes every server.
#[derive(Debug)]
struct Gullible(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(
            "TLS 1.2 in a test of TLS 1.3".into(),
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    let ca = Ca::new("ca");
    let b = credentials(&ca.leaf("b"), &ca.pem);
    let (error, heard) = foreign_caller(foreign_config(None, &[ALPN]), &b).await;
    assert!(matches!(error, HandshakeError::NoCertificate), "{error:?}");
    assert!(heard.to_string().contains("CertificateRequired"), "{heard}");
}

#[tokio::test]
async fn a_caller_with_no_name_or_with_several_is_refused() {
    let ca = Ca::new("ca");
    let b = credentials(&ca.leaf("b"), &ca.pem);
    for names in [
        vec!["a".to_owned(), "b".to_owned()],
        vec![],
        vec!["*.example".to_owned()],
    ] {
        let leaf = ca.issue(&LeafSpec {
            names: names.clone(),
            ..LeafSpec::named("x")
        });
        let (error, heard) = foreign_caller(foreign_config(Some(&leaf), &[ALPN]), &b).await;
        match &error {
            HandshakeError::Untrusted(Untrusted::Names { names: seen }) => assert_eq!(*seen, names),
            other => panic!("{names:?}: {other:?}"),
        }
        assert!(heard.to_string().contains("CertificateUnknown"), "{heard}");
    }
}

#[tokio::test]
async fn another_application_protocol_or_none_is_refused() {
    let ca = Ca::new("ca");
    let (a, b) = (ca.leaf("a"), credentials(&ca.leaf("b"), &ca.pem));
    let (error, heard) = foreign_caller(foreign_config(Some(&a), &[b"h2"]), &b).await;
    assert!(matches!(error, HandshakeError::Alpn), "{error:?}");
    assert!(
        heard.to_string().contains("NoApplicationProtocol"),
        "{heard}"
    );
    let (error, heard) = foreign_caller(foreign_config(Some(&a), &[]), &b).await;
    assert!(matches!(error, HandshakeError::Alpn), "{error:?}");
    assert_eq!(heard.kind(), std::io::ErrorKind::UnexpectedEof, "{heard}");
}

#[tokio::test]
async fn a_gateway_that_does_not_choose_our_protocol_is_refused() {
    let ca = Ca::new("ca");
    let a = credentials(&ca.leaf("a"), &ca.pem);
    let (chain, key) = decoded(&ca.leaf("b"));
    let server = ServerConfig::builder_with_provider(config::provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (dialled, accepted) = sockets().await;
    let accepted = accepted.into_std().unwrap();
    accepted.set_nonblocking(false).unwrap();
    let answering = tokio::task::spawn_blocking(move || {
        let mut socket = accepted;
        let mut tls = rustls::ServerConnection::new(Arc::new(server)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok::<_, std::io::Error>(())
    });
    let error = connect(&dialled, &a, &name("b"))
        .await
        .expect_err("no ALPN was chosen");
    assert!(matches!(error, HandshakeError::Alpn), "{error:?}");
    answering.await.unwrap().unwrap();
}
