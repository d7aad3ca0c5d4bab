//! Certificates that `clusterlink create` would not make, expired or of other names, and revocations.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, DistinguishedName, ExtendedKeyUsagePurpose,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use x509_parser::pem::parse_x509_pem;

use crate::fabric::Fabric;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The authority of a fabric, with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// What a certificate is to say.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Its DNS SANs.
    pub names: &'a [&'a str],
    /// Whether its time is over.
    pub expired: bool,
}

impl Authority {
    /// Takes certificate and key of a fabric.
    pub fn of(fabric: &Fabric) -> Result<Self> {
        let read = |name: &str| {
            let path = fabric.directory().join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let pem = read("cert.pem")?;
        let key = KeyPair::from_pem(&read("key.pem")?).context("the fabric's key")?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).context("the fabric's certificate")?;
        Ok(Self { issuer, pem })
    }

    /// The certificate of the authority, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues a certificate.
    pub fn leaf(&self, terms: Terms<'_>) -> Result<Leaf> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = terms.names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = SystemTime::now();
        let (from, until) = if terms.expired {
            (now - 3 * DAY, now - DAY)
        } else {
            (now - DAY, now + DAY)
        };
        params.not_before = from.into();
        params.not_after = until.into();
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Leaf {
            cert,
            key: key.serialize_pem(),
        })
    }

    /// A revocation list with one certificate that it has issued; both are PEM.
    pub fn revocation_list(&self, certificate: &str) -> Result<String> {
        let now = SystemTime::now();
        let revoked = RevokedCertParams {
            serial_number: serial_number(certificate)?,
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + DAY).into(),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

fn serial_number(certificate: &str) -> Result<SerialNumber> {
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).context("no PEM")?;
    let certificate = pem.parse_x509().context("no certificate")?;
    let serial = certificate.serial.to_bytes_be();
    Ok(SerialNumber::from(serial))
}

/// Writes a file of a certificate directory under another name and renames it.
pub fn put(directory: &Path, file: &str, content: &str) -> Result<()> {
    let temporary = directory.join(format!("{file}.new"));
    fs::write(&temporary, content)
        .with_context(|| format!("cannot write {}", temporary.display()))?;
    fs::rename(&temporary, directory.join(file))
        .with_context(|| format!("cannot put {file} in place"))
}
