use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

fn args(path: &Path, name: &str) -> FabricArgs {
    FabricArgs {
        name: name.to_owned(),
        path: path.to_owned(),
    }
}

#[test]
fn a_fabric_is_a_certificate_authority_for_ten_years_with_a_private_key() {
    let temp = tempfile::tempdir().unwrap();
    let report = create(&args(temp.path(), "f1")).unwrap();
    assert!(report.contains("f1"), "{report}");
    let cert = fs::read(temp.path().join("f1/cert.pem")).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&cert).unwrap();
    let cert = pem.parse_x509().unwrap();
    assert!(cert.is_ca());
    let life = cert.validity().not_after.timestamp() - cert.validity().not_before.timestamp();
    assert_eq!(life, 3650 * 86_400 + 3600);
    let mode = fs::metadata(temp.path().join("f1/key.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let left: Vec<_> = fs::read_dir(temp.path().join("f1")).unwrap().collect();
    assert_eq!(left.len(), 2, "nothing but the two files: {left:?}");
}

#[test]
fn an_existing_file_is_named_and_left_alone() {
    for name in [CERT, KEY] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("f1");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(name), "mine").unwrap();
        let error = create(&args(temp.path(), "f1")).unwrap_err().to_string();
        assert!(error.contains(&format!("f1/{name} exists")), "{error}");
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), "mine");
        assert_eq!(
            fs::read_dir(&dir).unwrap().count(),
            1,
            "nothing else was written"
        );
    }
}

#[test]
fn a_file_that_appears_meanwhile_is_not_overwritten_and_the_rest_is_removed() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("b"), "mine").unwrap();
    let new = |name| NewFile {
        name,
        content: "new",
        mode: PUBLIC,
    };
    let result = files::write_all(temp.path(), &[new("a"), new("b"), new("c")]);
    assert!(result.is_err());
    drop(result);
    assert_eq!(fs::read_to_string(temp.path().join("b")).unwrap(), "mine");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn a_name_that_is_no_plain_directory_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["", ".", "..", "a/b", "/etc", "a/", "a\n", &"x".repeat(65)] {
        let error = create(&args(temp.path(), name)).unwrap_err().to_string();
        assert!(error.contains("cannot name a fabric"), "{name:?}: {error}");
    }
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}
