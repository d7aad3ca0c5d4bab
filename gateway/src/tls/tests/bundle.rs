//! Loading a directory: every refusal names the file and the cure; judging live peers again.

use std::{fs, os::unix::fs::PermissionsExt, time::SystemTime};

use super::{
    pki::{Ca, Clock, HOUR, Leaf, LeafSpec, YEAR, credentials, dir, write_dir},
    sessions::handshake,
};
use crate::tls::{Credentials, PeerIdentity, Untrusted};

/// The whole text of an error, causes included.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn load_error(leaf: &Leaf, ca: &str, crl: Option<&str>) -> String {
    let dir = dir(leaf, ca, crl);
    chain(&Credentials::load(dir.path(), 1).expect_err("this must not load"))
}

fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is missing in: {error}");
    }
}

#[test]
fn a_good_directory_tells_who_we_are_and_until_when() {
    let ca = Ca::new("fabric one");
    let credentials = credentials(&ca.leaf("Peer-A"), &ca.pem);
    assert_eq!(credentials.name().as_str(), "peer-a");
    assert_eq!(credentials.generation(), 1);
    assert!(
        credentials.warnings().is_empty(),
        "{:?}",
        credentials.warnings()
    );
    let left = credentials
        .not_after()
        .duration_since(SystemTime::now())
        .unwrap();
    assert!(left > YEAR - HOUR && left <= YEAR);
    let roots = credentials.roots();
    assert_eq!(roots.len(), 1);
    assert_says(&roots[0].subject, &["fabric one"]);
}

#[test]
fn a_missing_file_is_named() {
    let ca = Ca::new("ca");
    for file in ["cert.pem", "key.pem", "ca.pem"] {
        let dir = dir(&ca.leaf("a"), &ca.pem, None);
        fs::remove_file(dir.path().join(file)).unwrap();
        let error = Credentials::load(dir.path(), 1).unwrap_err();
        assert_says(&chain(&error), &[file, "complete and readable"]);
    }
}

#[test]
fn a_file_of_the_wrong_content_is_named() {
    let ca = Ca::new("ca");
    let swapped = |file: &str, content: &str| {
        let dir = dir(&ca.leaf("a"), &ca.pem, None);
        fs::write(dir.path().join(file), content).unwrap();
        chain(&Credentials::load(dir.path(), 1).unwrap_err())
    };
    let key = ca.leaf("x").key;
    assert_says(
        &swapped("cert.pem", ""),
        &["cert.pem", "holds no PEM block", "CERTIFICATE"],
    );
    assert_says(
        &swapped("cert.pem", &key),
        &["cert.pem", "holds no PEM block"],
    );
    assert_says(
        &swapped("ca.pem", "text"),
        &["ca.pem", "holds no PEM block"],
    );
    assert_says(
        &swapped("key.pem", &ca.pem),
        &["key.pem", "holds no PEM private key"],
    );
    assert_says(&swapped("crl.pem", "text"), &["crl.pem", "X509 CRL"]);
    let cut = &ca.pem[..ca.pem.len() / 2];
    assert_says(&swapped("ca.pem", cut), &["ca.pem", "no valid PEM file"]);
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_says(&swapped("ca.pem", garbage), &["ca.pem", "certificate 1"]);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = Ca::new("ca");
    let mixed = Leaf {
        key: ca.leaf("a").key,
        ..ca.leaf("a")
    };
    assert_says(
        &load_error(&mixed, &ca.pem, None),
        &["key.pem", "cert.pem", "does not belong"],
    );
}

#[test]
fn a_leaf_that_others_would_refuse_is_refused_at_home() {
    let ca = Ca::new("ca");
    let issue = |spec: LeafSpec| load_error(&ca.issue(&spec), &ca.pem, None);
    let named = || LeafSpec::named("a");

    let error = load_error(&ca.leaf("a"), &Ca::new("ca").pem, None);
    assert_says(&error, &["cert.pem", "ca.pem", "signed by no root"]);
    let two = LeafSpec {
        names: vec!["a".into(), "b".into()],
        ..named()
    };
    assert_says(
        &issue(two),
        &["cert.pem", "exactly one DNS SAN", "\"a\", \"b\""],
    );
    assert_says(
        &issue(LeafSpec {
            names: vec![],
            ..named()
        }),
        &["exactly one DNS SAN"],
    );
    let half = LeafSpec {
        usages: vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth],
        ..named()
    };
    assert_says(&issue(half), &["extended key usage"]);
    let authority = Leaf {
        cert: ca.pem.clone(),
        key: ca.leaf("a").key,
    };
    assert_says(&load_error(&authority, &ca.pem, None), &["does not belong"]);

    for (turn, says) in [(2 * YEAR, "expired at"), (2 * HOUR, "")] {
        let dir = dir(&ca.leaf("a"), &ca.pem, None);
        let clock = Clock::new();
        clock.advance(turn);
        let loaded = Credentials::load_with_clock(dir.path(), 1, clock);
        match loaded {
            Err(error) => assert_says(&chain(&error), &["cert.pem", says]),
            Ok(_) => assert!(says.is_empty()),
        }
    }
    let future = dir(&ca.leaf("a"), &ca.pem, None);
    let clock = Clock::new();
    clock.go_back(YEAR);
    let error = Credentials::load_with_clock(future.path(), 1, clock).unwrap_err();
    assert_says(&chain(&error), &["not valid before", "clocks"]);
}

#[test]
fn a_revocation_list_must_be_signed_by_its_issuer() {
    let (ca, other) = (Ca::new("fabric"), Ca::new("fabric"));
    let forged = other.crl(&[1], SystemTime::now() + YEAR);
    let error = load_error(&ca.leaf("a"), &ca.pem, Some(&forged));
    assert_says(&error, &["crl.pem", "list 1", "not signed by", "fabric"]);
}

#[test]
fn one_directory_may_hold_the_lists_of_several_issuers() {
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let next = SystemTime::now() + YEAR;
    let lists = format!("{}{}", one.crl(&[1], next), two.crl(&[2], next));
    let dir = dir(
        &one.leaf("a"),
        &format!("{}{}", one.pem, two.pem),
        Some(&lists),
    );
    Credentials::load(dir.path(), 1).unwrap();
}

#[test]
fn our_own_revocation_is_noticed_at_home() {
    let ca = Ca::new("ca");
    let leaf = ca.issue(&LeafSpec {
        serial: 3,
        ..LeafSpec::named("a")
    });
    let list = ca.crl(&[3], SystemTime::now() + YEAR);
    assert_says(
        &load_error(&leaf, &ca.pem, Some(&list)),
        &["cert.pem", "revoked"],
    );
}

#[test]
fn what_works_but_is_doubtful_is_warned_about() {
    let ca = Ca::new("ca");
    let old = ca.crl(&[1], SystemTime::now() - HOUR);
    let dir = dir(&ca.leaf("a"), &ca.pem, Some(&old));
    let key = dir.path().join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let credentials = Credentials::load(dir.path(), 1).unwrap();
    let [mode, overdue] = credentials.warnings() else {
        panic!("{:?}", credentials.warnings())
    };
    assert_says(mode, &["key.pem", "0644", "0600"]);
    assert_says(overdue, &["crl.pem", "renewed"]);
}

async fn identity(ca: &Ca, leaf: &Leaf) -> PeerIdentity {
    let (caller, called) = (
        credentials(leaf, &ca.pem),
        credentials(&ca.leaf("z"), &ca.pem),
    );
    let (_near, far) = handshake(&caller, "z", &called).await;
    far.result.unwrap().peer
}

#[tokio::test]
async fn a_live_peer_is_cut_by_revocation_and_only_by_that() {
    let ca = Ca::new("fabric");
    let peer = identity(
        &ca,
        &ca.issue(&LeafSpec {
            serial: 77,
            ..LeafSpec::named("a")
        }),
    )
    .await;
    assert_eq!(peer.serial, [77]);
    let now = SystemTime::now();
    let home = dir(&ca.leaf("b"), &ca.pem, None);
    let load = |generation| Credentials::load(home.path(), generation).unwrap();

    assert_eq!(load(1).still_trusted(&peer, now), Ok(()));
    let expired = load(1).still_trusted(&peer, now + 2 * YEAR).unwrap_err();
    assert_eq!(
        (expired.reason(), expired.ends_live_sessions()),
        ("expired", false)
    );

    write_dir(
        home.path(),
        &ca.leaf("b"),
        &ca.pem,
        Some(&ca.crl(&[77], now + YEAR)),
    );
    let revoked = load(2).still_trusted(&peer, now).unwrap_err();
    assert_eq!(
        (revoked.clone(), revoked.ends_live_sessions()),
        (Untrusted::Revoked, true)
    );
    // Revoked stays revoked when it has expired as well.
    assert_eq!(
        load(2).still_trusted(&peer, now + 2 * YEAR),
        Err(Untrusted::Revoked)
    );

    let new = Ca::new("fabric");
    write_dir(home.path(), &new.leaf("b"), &new.pem, None);
    let removed = load(3).still_trusted(&peer, now).unwrap_err();
    assert_eq!(
        (removed.reason(), removed.ends_live_sessions()),
        ("unknown_issuer", false)
    );
}
