use std::os::unix::fs::PermissionsExt;

use clap::Parser;

use super::*;
use crate::create::{CreateCommand, fabric::FabricArgs};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: CreateCommand,
}

fn fabric_in(path: &Path) {
    let args = FabricArgs {
        name: DEFAULT_FABRIC.to_owned(),
        path: path.to_owned(),
    };
    fabric::create(&args).unwrap();
}

fn args(path: &Path, extra: &[&str]) -> PeerCertArgs {
    let path = path.to_str().unwrap();
    let start = ["create", "peer-cert", "--path", path];
    let line = start.iter().chain(extra);
    match Cli::try_parse_from(line).unwrap().command {
        CreateCommand::PeerCert(args) => args,
        other @ CreateCommand::Fabric(_) => panic!("{other:?}"),
    }
}

#[test]
fn gateways_accept_the_certificates_of_both_key_types() {
    let temp = tempfile::tempdir().unwrap();
    fabric_in(temp.path());
    for (name, key_type) in [("peer1", "ecdsa-p256"), ("peer2.example.com", "ed25519")] {
        create(&args(
            temp.path(),
            &["--name", name, "--key-type", key_type],
        ))
        .unwrap();
        let dir = temp.path().join(DEFAULT_FABRIC).join(name);
        let credentials = Credentials::load(&dir, 1).unwrap();
        assert_eq!(credentials.name().as_str(), name);
        assert_eq!(credentials.warnings(), &[] as &[String]);
        let left = credentials
            .not_after()
            .duration_since(SystemTime::now())
            .unwrap();
        assert!(left <= Duration::from_secs(365 * 86_400));
        assert!(left > Duration::from_secs(364 * 86_400));
        let mode = fs::metadata(dir.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read(dir.join(CA)).unwrap(),
            fs::read(temp.path().join(DEFAULT_FABRIC).join("cert.pem")).unwrap()
        );
    }
}

#[test]
fn a_certificate_never_outlives_its_fabric_and_says_so() {
    let temp = tempfile::tempdir().unwrap();
    fabric_in(temp.path());
    let report = create(&args(temp.path(), &["--name", "p", "--validity", "36000d"])).unwrap();
    assert!(report.contains("sooner than asked for"), "{report}");
    let dir = temp.path().join(DEFAULT_FABRIC);
    let credentials = Credentials::load(&dir.join("p"), 1).unwrap();
    assert_eq!(credentials.not_after(), credentials.roots()[0].not_after);
    let report = create(&args(temp.path(), &["--name", "q", "--validity", "8760h"])).unwrap();
    assert!(!report.contains("sooner"), "{report}");
}

#[test]
fn an_existing_file_is_named_and_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    fabric_in(temp.path());
    let args = args(temp.path(), &["--name", "p"]);
    create(&args).unwrap();
    let dir = temp.path().join(DEFAULT_FABRIC).join("p");
    let before = fs::read(dir.join(CERT)).unwrap();
    let error = create(&args).unwrap_err().to_string();
    assert!(error.contains("p/cert.pem exists"), "{error}");
    assert_eq!(fs::read(dir.join(CERT)).unwrap(), before);
}

#[test]
fn a_missing_or_wrong_fabric_is_named_with_the_cure() {
    let temp = tempfile::tempdir().unwrap();
    let create_in = |path: &Path| {
        let error = create(&args(path, &["--name", "p"])).unwrap_err();
        assert!(!path.join(DEFAULT_FABRIC).join("p").exists());
        format!("{error:#}")
    };
    let error = create_in(temp.path());
    assert!(error.contains("create fabric"), "{error}");

    fabric_in(temp.path());
    let dir = temp.path().join(DEFAULT_FABRIC);
    let other = tempfile::tempdir().unwrap();
    fabric_in(other.path());
    let key = fs::read(dir.join(KEY)).unwrap();
    fs::copy(other.path().join(DEFAULT_FABRIC).join(KEY), dir.join(KEY)).unwrap();
    let error = create_in(temp.path());
    assert!(error.contains("does not belong"), "{error}");

    fs::write(dir.join(KEY), key).unwrap();
    create(&args(temp.path(), &["--name", "leaf"])).unwrap();
    fs::copy(dir.join("leaf").join(CERT), dir.join(CERT)).unwrap();
    let error = create_in(temp.path());
    assert!(error.contains("not a certificate authority"), "{error}");

    fs::write(dir.join(CERT), "no PEM").unwrap();
    let error = create_in(temp.path());
    assert!(error.contains("holds no PEM certificate"), "{error}");
}

#[test]
fn names_that_tls_cannot_ask_for_are_refused_before_anything_is_written() {
    for name in [
        "",
        "a b",
        "-a",
        "10.0.0.1",
        "*.example.com",
        "under_score",
        "a.7",
    ] {
        let line = ["create", "peer-cert", "--name", name];
        assert!(Cli::try_parse_from(line).is_err(), "{name:?}");
    }
    assert!(
        Cli::try_parse_from(["create", "peer-cert"]).is_err(),
        "--name is required"
    );
}

#[test]
fn names_are_folded_to_lower_case() {
    let temp = tempfile::tempdir().unwrap();
    fabric_in(temp.path());
    create(&args(temp.path(), &["--name", "Peer-A"])).unwrap();
    let dir = temp.path().join(DEFAULT_FABRIC).join("peer-a");
    assert_eq!(
        Credentials::load(&dir, 1).unwrap().name().as_str(),
        "peer-a"
    );
}
