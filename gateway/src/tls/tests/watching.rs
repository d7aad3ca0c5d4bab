//! Credentials follow their files.

use std::{fs, os::unix::fs::symlink, sync::Arc};

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{
    pki::{Ca, Clock, LeafSpec, YEAR, dir, write_dir},
    sessions::handshake,
};
use crate::tls::{Watcher, error::Untrusted, tests::pki::credentials, trust::Role};

#[test]
fn unchanged_files_are_not_loaded_again() {
    let ca = Ca::new("ca");
    let dir = dir(&ca.leaf("a"), &ca.pem, None);
    let mut watcher = Watcher::open(dir.path(), 4).unwrap();
    assert_eq!(watcher.current().generation(), 4);
    assert!(watcher.poll().unwrap().is_none());
}

#[tokio::test]
async fn a_new_leaf_and_bundle_are_taken_over_as_a_new_generation() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let dir = dir(&old.leaf("a"), &old.pem, None);
    let mut watcher = Watcher::open(dir.path(), 1).unwrap();
    write_dir(dir.path(), &new.leaf("a"), &new.pem, None);
    let loaded = watcher.poll().unwrap().expect("the files changed");
    assert_eq!(loaded.generation(), 2);
    assert!(Arc::ptr_eq(&loaded, watcher.current()));
    let peer = credentials(&new.leaf("b"), &new.pem);
    let (_near, far) = handshake(&loaded, "b", &peer).await;
    assert_eq!(far.result.unwrap().peer.name.as_str(), "a");
    assert!(watcher.poll().unwrap().is_none());
}

#[test]
fn a_revocation_list_that_appears_or_goes_is_noticed() {
    let ca = Ca::new("ca");
    let dir = dir(&ca.leaf("a"), &ca.pem, None);
    let mut watcher = Watcher::open(dir.path(), 1).unwrap();
    let crl = dir.path().join("crl.pem");
    fs::write(&crl, ca.crl(&[1], std::time::SystemTime::now() + YEAR)).unwrap();
    assert_eq!(watcher.poll().unwrap().map(|c| c.generation()), Some(2));
    fs::remove_file(&crl).unwrap();
    assert_eq!(watcher.poll().unwrap().map(|c| c.generation()), Some(3));
}

#[test]
fn files_that_cannot_be_used_keep_the_old_ones_and_are_reported_once() {
    let ca = Ca::new("ca");
    let dir = dir(&ca.leaf("a"), &ca.pem, None);
    let mut watcher = Watcher::open(dir.path(), 1).unwrap();
    let next = ca.leaf("a");
    fs::write(dir.path().join("cert.pem"), &next.cert).unwrap();
    // The key may be about to follow.
    assert!(watcher.poll().unwrap().is_none());
    let error = watcher.poll().unwrap_err().to_string();
    assert!(error.contains("does not belong"), "{error}");
    assert!(watcher.poll().unwrap().is_none(), "once is enough");
    assert_eq!(watcher.current().generation(), 1);

    fs::write(dir.path().join("key.pem"), "").unwrap();
    assert!(watcher.poll().unwrap().is_none());
    let error = watcher.poll().unwrap_err().to_string();
    assert!(
        error.contains("key.pem"),
        "another state is another report: {error}"
    );

    fs::write(dir.path().join("key.pem"), &next.key).unwrap();
    assert_eq!(watcher.poll().unwrap().map(|c| c.generation()), Some(2));
}

#[test]
fn a_leaf_from_the_future_is_taken_over_when_its_time_has_come() {
    let ca = Ca::new("ca");
    let dir = dir(&ca.leaf("a"), &ca.pem, None);
    let clock = Clock::new();
    let mut watcher = Watcher::open_with_clock(dir.path(), 1, clock.clone()).unwrap();
    clock.go_back(YEAR);
    write_dir(dir.path(), &ca.leaf("a"), &ca.pem, None);
    assert!(watcher.poll().unwrap().is_none());
    assert!(watcher.poll().is_err());
    clock.advance(YEAR);
    assert_eq!(watcher.poll().unwrap().map(|c| c.generation()), Some(2));
}

#[test]
fn a_directory_swapped_by_symlink_is_noticed() {
    let ca = Ca::new("ca");
    let home = tempfile::tempdir().unwrap();
    let (one, two) = (
        dir(&ca.leaf("a"), &ca.pem, None),
        dir(&ca.leaf("a"), &ca.pem, None),
    );
    let data = home.path().join("..data");
    symlink(one.path(), &data).unwrap();
    for file in ["cert.pem", "key.pem", "ca.pem"] {
        symlink(format!("..data/{file}"), home.path().join(file)).unwrap();
    }
    let mut watcher = Watcher::open(home.path(), 1).unwrap();
    symlink(two.path(), home.path().join("next")).unwrap();
    fs::rename(home.path().join("next"), &data).unwrap();
    assert_eq!(watcher.poll().unwrap().map(|c| c.generation()), Some(2));
}

#[test]
fn a_leaf_of_another_name_is_not_taken_over_but_the_bundle_and_revocations_beside_it_are() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let own = ca.leaf("a");
    let dir = dir(&own, &ca.pem, None);
    let mut watcher = Watcher::open(dir.path(), 1).unwrap();
    let crl = ca.crl(&[77], std::time::SystemTime::now() + YEAR);
    let both = format!("{}{}", ca.pem, other.pem);
    write_dir(dir.path(), &ca.leaf("b"), &both, Some(&crl));

    let loaded = watcher.poll().unwrap().expect("the bundle changed");
    assert_eq!(loaded.name().as_str(), "a");
    assert_eq!(loaded.generation(), 2);
    assert_eq!(loaded.roots().len(), 2);
    let revoked = ca.issue(&LeafSpec {
        serial: 77,
        ..LeafSpec::named("c")
    });
    let chain = CertificateDer::from_pem_slice(revoked.cert.as_bytes()).unwrap();
    assert_eq!(
        loaded.judge_peer(&[chain], Role::Caller),
        Err(Untrusted::Revoked)
    );
    let error = watcher.poll().unwrap_err().to_string();
    assert!(error.contains("names the peer b"), "{error}");
    assert!(watcher.poll().unwrap().is_none(), "once is enough");

    write_dir(dir.path(), &own, &ca.pem, None);
    assert_eq!(watcher.poll().unwrap().map(|c| c.generation()), Some(3));
}

#[test]
fn a_revocation_beside_a_key_that_does_not_fit_is_taken_over() {
    let ca = Ca::new("ca");
    let dir = dir(&ca.leaf("a"), &ca.pem, None);
    let mut watcher = Watcher::open(dir.path(), 1).unwrap();
    fs::write(dir.path().join("cert.pem"), ca.leaf("a").cert).unwrap();
    assert!(watcher.poll().unwrap().is_none(), "nothing to take over");
    let crl = ca.crl(&[77], std::time::SystemTime::now() + YEAR);
    fs::write(dir.path().join("crl.pem"), crl).unwrap();
    assert_eq!(watcher.poll().unwrap().map(|c| c.generation()), Some(2));
    assert!(watcher.poll().is_err());
}
