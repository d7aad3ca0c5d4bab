//! Resumed sessions are judged like new ones.

use std::time::SystemTime;

use super::{
    pki::{Ca, Clock, HOUR, LeafSpec, YEAR, credentials, credentials_at, dir},
    sessions::{End, handshake},
};
use crate::tls::{Credentials, HandshakeError, Untrusted};

/// A session that leaves the caller with tickets, followed by another one.
async fn twice(
    caller: &Credentials,
    first: &Credentials,
    between: impl FnOnce(),
    second: &Credentials,
) -> (End, End) {
    let (mut near, mut far) = handshake(caller, first.name().as_str(), first).await;
    assert!(!near.established().resumed);
    // The tickets come in front of what the acceptor says first.
    far.send(b"x").await;
    near.receive(1).await.unwrap();
    between();
    handshake(caller, second.name().as_str(), second).await
}

#[tokio::test]
async fn a_second_session_is_resumed_with_its_identity() {
    let ca = Ca::new("ca");
    let (a, b) = (
        credentials(&ca.leaf("a"), &ca.pem),
        credentials(&ca.leaf("b"), &ca.pem),
    );
    let (mut near, mut far) = twice(&a, &b, || {}, &b).await;
    assert!(near.established().resumed && far.established().resumed);
    assert_eq!(far.established().peer.name, *a.name());
    assert_eq!(near.established().peer.name, *b.name());
    near.send(b"still here").await;
    assert_eq!(far.receive(10).await.unwrap(), b"still here");
}

#[tokio::test]
async fn a_resumed_caller_that_has_expired_meanwhile_is_refused() {
    let ca = Ca::new("ca");
    let clock = Clock::new();
    let short = LeafSpec {
        valid_for: HOUR,
        ..LeafSpec::named("a")
    };
    let a = credentials(&ca.issue(&short), &ca.pem);
    let b = credentials_at(&ca.leaf("b"), &ca.pem, &clock);
    let (mut near, far) = twice(&a, &b, || clock.advance(2 * HOUR), &b).await;
    assert!(
        near.established().resumed,
        "it is the ticket that is put to the test"
    );
    match far.error() {
        HandshakeError::Untrusted(why) => assert_eq!(why.reason(), "expired"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_resumed_gateway_that_has_expired_meanwhile_is_refused() {
    let ca = Ca::new("ca");
    let clock = Clock::new();
    let short = LeafSpec {
        valid_for: HOUR,
        ..LeafSpec::named("b")
    };
    let a = credentials_at(&ca.leaf("a"), &ca.pem, &clock);
    let b = credentials(&ca.issue(&short), &ca.pem);
    let (near, mut far) = twice(&a, &b, || clock.advance(2 * HOUR), &b).await;
    assert!(
        far.established().resumed,
        "it is the ticket that is put to the test"
    );
    match near.error() {
        HandshakeError::Untrusted(why) => assert_eq!(why.reason(), "expired"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tickets_are_useless_after_the_acceptors_credentials_changed() {
    let ca = Ca::new("ca");
    let a = credentials(&ca.leaf("a"), &ca.pem);
    let b = ca.leaf("b");
    let (before, after) = (credentials(&b, &ca.pem), credentials(&b, &ca.pem));
    let (mut near, mut far) = twice(&a, &before, || {}, &after).await;
    assert!(!near.established().resumed && !far.established().resumed);
}

#[tokio::test]
async fn a_ticket_does_not_help_a_leaf_whose_root_was_removed() {
    let (old, new) = (Ca::new("fabric"), Ca::new("fabric"));
    let both = format!("{}{}", old.pem, new.pem);
    let a = credentials(&old.leaf("a"), &both);
    let b = new.leaf("b");
    let (before, after) = (credentials(&b, &both), credentials(&b, &new.pem));
    let (_near, far) = twice(&a, &before, || {}, &after).await;
    match far.error() {
        HandshakeError::Untrusted(why) => assert_eq!(*why, Untrusted::UnknownIssuer),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_ticket_does_not_help_a_leaf_that_was_revoked() {
    let ca = Ca::new("ca");
    let a = credentials(
        &ca.issue(&LeafSpec {
            serial: 12,
            ..LeafSpec::named("a")
        }),
        &ca.pem,
    );
    let b = ca.leaf("b");
    let before = credentials(&b, &ca.pem);
    let after = dir(&b, &ca.pem, Some(&ca.crl(&[12], SystemTime::now() + YEAR)));
    let after = Credentials::load(after.path(), 2).unwrap();
    let (_near, far) = twice(&a, &before, || {}, &after).await;
    match far.error() {
        HandshakeError::Untrusted(why) => assert_eq!(*why, Untrusted::Revoked),
        other => panic!("{other:?}"),
    }
}
