//! One authority: a certificate that agents trust, and its key.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use x509_parser::pem::parse_x509_pem;

use super::{Authority, AuthorityError, DAY};

/// How long an authority is valid.
const LIFETIME: Duration = Duration::from_secs(2 * 365 * 24 * 3_600);
/// How much earlier it is valid than it is made, for agents whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(3_600);
/// How long a certificate is valid; another one is made when a third of that is over.
const LEAF: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Signs the certificates that agents see.
pub(super) struct Root {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    /// When it was made.
    made: SystemTime,
    /// When it is valid no more.
    ends: SystemTime,
}

/// A certificate of the push server.
pub(super) struct Leaf {
    /// When another one is made.
    pub(super) renew: SystemTime,
    pub(super) key: Arc<CertifiedKey>,
}

impl Root {
    /// A new authority with a new key, for the controllers of a namespace.
    pub(super) fn generate(namespace: &str, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(failed("cannot make a key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        (params.distinguished_name).push(DnType::CommonName, Authority::server_name(namespace));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + LIFETIME).into();
        let certificate = (params.self_signed(&key)).map_err(failed("cannot sign itself"))?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// An authority that another replica, or an earlier process, has made.
    pub(super) fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let wrong = |why: &str| AuthorityError::Content(why.to_owned());
        let key = KeyPair::from_pem(key).map_err(|_| wrong("a private key cannot be read"))?;
        let (_, pem) = parse_x509_pem(certificate.as_bytes())
            .map_err(|_| wrong("a certificate cannot be read"))?;
        let parsed = pem
            .parse_x509()
            .map_err(|_| wrong("a certificate cannot be read"))?;
        if !parsed.is_ca() {
            return Err(wrong("a certificate is not that of an authority"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(wrong("a private key is not that of its certificate"));
        }
        let validity = parsed.validity();
        let (begins, ends) = (
            time(validity.not_before.timestamp()),
            time(validity.not_after.timestamp()),
        );
        let issuer = Issuer::from_ca_cert_pem(certificate, key)
            .map_err(failed("the certificate is not one"))?;
        Ok(Self {
            issuer,
            certificate: certificate.to_owned(),
            made: begins + BACKDATED,
            ends,
        })
    }

    /// What agents trust, PEM.
    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The secret, PEM.
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Whether it has been there for so long.
    pub(super) fn is_older_than(&self, age: Duration, now: SystemTime) -> bool {
        self.made + age <= now
    }

    /// Whether half of its life is over, and a next one has to be there.
    pub(super) fn is_to_be_followed(&self, now: SystemTime) -> bool {
        self.ends <= now + LIFETIME / 2
    }

    /// Whether it is valid no more.
    pub(super) fn has_ended(&self, now: SystemTime) -> bool {
        self.ends <= now
    }

    /// A certificate for a server of that name, which ends no later than its authority.
    pub(super) fn issue(&self, name: &str, now: SystemTime) -> Result<Leaf, AuthorityError> {
        let key = KeyPair::generate().map_err(failed("cannot make a key"))?;
        let mut params =
            CertificateParams::new([name.to_owned()]).map_err(failed("cannot name a server"))?;
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let left = self.ends.duration_since(now).unwrap_or_default().min(LEAF);
        params.not_before = (now - DAY).into();
        params.not_after = (now + left).into();
        let certificate: CertificateDer<'static> = (params.signed_by(&key, &self.issuer))
            .map_err(failed("cannot sign a certificate"))?
            .into();
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| AuthorityError::Key(rustls::Error::General(error.to_owned())))?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
            .map_err(AuthorityError::Key)?;
        Ok(Leaf {
            renew: now + left / 3,
            key: Arc::new(CertifiedKey::new(vec![certificate], key)),
        })
    }
}

/// What a certificate says in seconds; before 1970 is as good as 1970.
fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

fn failed(attempt: &'static str) -> impl FnOnce(rcgen::Error) -> AuthorityError {
    move |source| AuthorityError::Certificate { attempt, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_certificate_outlives_its_authority() {
        let now = SystemTime::now();
        let root = Root::generate("system", now).unwrap();
        let leaf = root.issue("server", now + LIFETIME - 3 * DAY).unwrap();
        let parsed = x509_parser::parse_x509_certificate(&leaf.key.cert[0])
            .unwrap()
            .1;
        assert!(time(parsed.validity().not_after.timestamp()) <= root.ends);
        assert!(leaf.renew < root.ends);
    }
}
