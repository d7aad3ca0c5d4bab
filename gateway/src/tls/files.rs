//! The files of a certificate directory, and whether they changed.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::error::CredentialsError;

/// Our leaf, with any intermediates after it.
pub(super) const CERT: &str = "cert.pem";
/// The private key of the leaf.
pub(super) const KEY: &str = "key.pem";
/// The roots that are trusted.
pub(super) const CA: &str = "ca.pem";
/// What they revoked; may be absent.
pub(super) const CRL: &str = "crl.pem";

/// The decoded files of one moment. Each half is usable without the other.
pub(super) struct Files {
    pub(super) pair: Result<Pair, CredentialsError>,
    pub(super) bundle: Result<Bundle, CredentialsError>,
}

/// What we show.
pub(super) struct Pair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// The permission bits of the key file.
    pub(super) key_mode: u32,
}

/// What we judge others by.
pub(super) struct Bundle {
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) revocations: Vec<CertificateRevocationListDer<'static>>,
}

/// Identifies one state of the files; equal exactly while nothing was written or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([Option<Stamp>; 4]);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// The state as of now. An absent file is a state too.
    pub(super) fn of(dir: &Path) -> Self {
        Self([CERT, KEY, CA, CRL].map(|name| {
            let metadata = fs::metadata(dir.join(name)).ok()?;
            Some(Stamp {
                device: metadata.dev(),
                inode: metadata.ino(),
                size: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            })
        }))
    }
}

impl Files {
    /// Reads and decodes the files of `dir`, all of one state.
    pub(super) fn read(dir: &Path) -> Result<(Self, Fingerprint), CredentialsError> {
        let before = Fingerprint::of(dir);
        let files = Self {
            pair: Pair::decode(dir),
            bundle: Bundle::decode(dir),
        };
        if Fingerprint::of(dir) != before {
            return Err(CredentialsError::Changing(dir.to_owned()));
        }
        Ok((files, before))
    }
}

impl Pair {
    fn decode(dir: &Path) -> Result<Self, CredentialsError> {
        let (cert, key) = (dir.join(CERT), dir.join(KEY));
        let chain = items(&cert, &read(&cert)?, "certificate")?;
        let key_bytes = read(&key)?;
        let key_mode = fs::metadata(&key)
            .map_err(|source| unreadable(&key, source))?
            .mode()
            & 0o777;
        let key = PrivateKeyDer::from_pem_slice(&key_bytes).map_err(|error| match error {
            pem::Error::NoItemsFound => CredentialsError::Content {
                path: key,
                problem: "holds no PEM private key (PKCS#8, SEC1 or PKCS#1, not encrypted)"
                    .to_owned(),
            },
            error => bad_pem(&key, &error),
        })?;
        Ok(Self {
            chain,
            key,
            key_mode,
        })
    }
}

impl Bundle {
    fn decode(dir: &Path) -> Result<Self, CredentialsError> {
        let (ca, crl) = (dir.join(CA), dir.join(CRL));
        let roots = items(&ca, &read(&ca)?, "certificate")?;
        let revocations = match fs::read(&crl) {
            Ok(bytes) => items(&crl, &bytes, "X509 CRL")?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(unreadable(&crl, source)),
        };
        Ok(Self { roots, revocations })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    fs::read(path).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> CredentialsError {
    CredentialsError::Read {
        path: path.to_owned(),
        source,
    }
}

/// Every item of one kind in a PEM file; at least one must be there.
fn items<T: PemObject>(path: &Path, bytes: &[u8], kind: &str) -> Result<Vec<T>, CredentialsError> {
    let items = T::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad_pem(path, &error))?;
    if items.is_empty() {
        return Err(CredentialsError::Content {
            path: path.to_owned(),
            problem: format!("holds no PEM block of kind \"{}\"", kind.to_uppercase()),
        });
    }
    Ok(items)
}

fn bad_pem(path: &Path, error: &pem::Error) -> CredentialsError {
    CredentialsError::Content {
        path: path.to_owned(),
        problem: format!("is no valid PEM file ({error}): write it anew"),
    }
}
