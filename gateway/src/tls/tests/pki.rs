//! Certificate authorities, leaves, directories and clocks for the tests.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, RevokedCertParams, SerialNumber,
};
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use tempfile::TempDir;

use crate::tls::credentials::Credentials;

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A certificate authority, root or intermediate.
pub(super) struct Ca {
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// How a leaf differs from an ordinary one.
#[derive(Clone, Debug)]
pub(super) struct LeafSpec {
    pub(super) names: Vec<String>,
    pub(super) valid_for: Duration,
    pub(super) serial: u64,
    pub(super) ed25519: bool,
    pub(super) usages: Vec<ExtendedKeyUsagePurpose>,
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub(super) struct Leaf {
    pub(super) cert: String,
    pub(super) key: String,
}

/// A clock that tests turn.
#[derive(Debug)]
pub(super) struct Clock(AtomicU64);

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        Self::valid_for(name, 10 * YEAR)
    }

    pub(super) fn valid_for(name: &str, life: Duration) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(name, life);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    pub(super) fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(name, 9 * YEAR);
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    pub(super) fn leaf(&self, name: &str) -> Leaf {
        self.issue(&LeafSpec::named(name))
    }

    pub(super) fn issue(&self, spec: &LeafSpec) -> Leaf {
        let algorithm = if spec.ed25519 {
            &PKCS_ED25519
        } else {
            &PKCS_ECDSA_P256_SHA256
        };
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(spec.names.clone()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from(spec.serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clone_from(&spec.usages);
        params.not_before = (SystemTime::now() - HOUR).into();
        params.not_after = (SystemTime::now() + spec.valid_for).into();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Leaf {
            cert,
            key: key.serialize_pem(),
        }
    }

    pub(super) fn crl(&self, serials: &[u64], next_update: SystemTime) -> String {
        self.sign_crl(
            serials.iter().map(|serial| SerialNumber::from(*serial)),
            next_update,
        )
    }

    pub(super) fn crl_of_raw(&self, serial: &[u8], next_update: SystemTime) -> String {
        self.sign_crl([SerialNumber::from_slice(serial)].into_iter(), next_update)
    }

    fn sign_crl(
        &self,
        serials: impl Iterator<Item = SerialNumber>,
        next_update: SystemTime,
    ) -> String {
        let revoked_certs = serials
            .map(|serial_number| RevokedCertParams {
                serial_number,
                revocation_time: SystemTime::now().into(),
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        CertificateRevocationListParams {
            this_update: (SystemTime::now() - 2 * HOUR).into(),
            next_update: next_update.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .unwrap()
        .pem()
        .unwrap()
    }
}

fn ca_params(name: &str, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (SystemTime::now() - HOUR).into();
    params.not_after = (SystemTime::now() + life).into();
    params
}

impl LeafSpec {
    pub(super) fn named(name: &str) -> Self {
        Self {
            names: vec![name.to_owned()],
            valid_for: YEAR,
            serial: 7,
            ed25519: false,
            usages: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        }
    }
}

impl Clock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(UnixTime::now().as_secs())))
    }

    pub(super) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    pub(super) fn go_back(&self, by: Duration) {
        self.0.fetch_sub(by.as_secs(), Ordering::SeqCst);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(
            self.0.load(Ordering::SeqCst),
        )))
    }
}

/// Writes a directory as the gateway expects it.
pub(super) fn write_dir(dir: &Path, leaf: &Leaf, ca: &str, crl: Option<&str>) {
    fs::write(dir.join("cert.pem"), &leaf.cert).unwrap();
    fs::write(dir.join("ca.pem"), ca).unwrap();
    let key = dir.join("key.pem");
    let mut open = fs::OpenOptions::new();
    let mut file = open
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(key)
        .unwrap();
    std::io::Write::write_all(&mut file, leaf.key.as_bytes()).unwrap();
    match crl {
        Some(crl) => fs::write(dir.join("crl.pem"), crl).unwrap(),
        None => {
            let _ = fs::remove_file(dir.join("crl.pem"));
        }
    }
}

/// A new directory with the given content.
pub(super) fn dir(leaf: &Leaf, ca: &str, crl: Option<&str>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_dir(dir.path(), leaf, ca, crl);
    dir
}

/// Credentials with the given content.
pub(super) fn credentials(leaf: &Leaf, ca: &str) -> Credentials {
    Credentials::load(dir(leaf, ca, None).path(), 1).unwrap()
}

/// Credentials whose clock the test turns.
pub(super) fn credentials_at(leaf: &Leaf, ca: &str, clock: &Arc<Clock>) -> Credentials {
    let dir = dir(leaf, ca, None);
    Credentials::load_with_clock(dir.path(), 1, clock.clone())
        .unwrap()
        .0
}
