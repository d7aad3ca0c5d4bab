//! The certificate authority of the push server, and the certificates that it shows.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// How long the authority is valid.
const AUTHORITY: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// How long a certificate is valid; another one is made when a third of that is over.
const CERTIFICATE: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Signs the certificates that agents see.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    names: Vec<String>,
    current: Mutex<Option<Issued>>,
}

struct Issued {
    renew: SystemTime,
    key: Arc<CertifiedKey>,
}

/// A certificate could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// It could not be made, or what was kept is not a certificate and its key.
    #[error(
        "the push server's certificate authority: {attempt}; delete what was kept to have it made anew"
    )]
    Certificate {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: rcgen::Error,
    },
    /// The key of a certificate could not be used.
    #[error("the key of the push server's certificate cannot be used")]
    Key(#[source] rustls::Error),
}

impl Authority {
    /// The name that agents expect of a controller in a namespace.
    pub fn server_name(namespace: &str) -> String {
        format!("clusterlink-controller.{namespace}.svc")
    }

    /// A new authority with a new key, for a controller in a namespace.
    ///
    /// # Errors
    /// When no key or certificate can be made.
    pub fn new(namespace: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(failed("cannot make a key"))?;
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        (params.distinguished_name).push(DnType::CommonName, Self::server_name(namespace));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (now - HOUR).into();
        params.not_after = (now + AUTHORITY).into();
        let certificate = (params.self_signed(&key)).map_err(failed("cannot sign itself"))?;
        Self::with(namespace, certificate.pem(), key)
    }

    /// The authority that another replica, or an earlier process, has made.
    ///
    /// # Errors
    /// When these are not a certificate and its key.
    pub fn from_pem(namespace: &str, certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key).map_err(failed("the key is not one"))?;
        Self::with(namespace, certificate.to_owned(), key)
    }

    fn with(namespace: &str, certificate: String, key: KeyPair) -> Result<Self, AuthorityError> {
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .map_err(failed("the certificate is not one"))?;
        let authority = Self {
            issuer,
            certificate,
            names: vec![Self::server_name(namespace)],
            current: Mutex::new(None),
        };
        // What cannot work is found at the start.
        authority.certified_key(SystemTime::now())?;
        Ok(authority)
    }

    /// What agents have to trust, PEM. Agents trust several: those of all replicas.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The secret of the authority, PEM, for a Secret that replicas share.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    fn certified_key(&self, now: SystemTime) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(issued) = current.as_ref().filter(|issued| now < issued.renew) {
            return Ok(Arc::clone(&issued.key));
        }
        let key = Arc::new(self.issue(now)?);
        *current = Some(Issued {
            renew: now + CERTIFICATE / 3,
            key: Arc::clone(&key),
        });
        Ok(key)
    }

    fn issue(&self, now: SystemTime) -> Result<CertifiedKey, AuthorityError> {
        let key = KeyPair::generate().map_err(failed("cannot make a key"))?;
        let mut params =
            CertificateParams::new(self.names.clone()).map_err(failed("cannot name a server"))?;
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = (now - DAY).into();
        params.not_after = (now + CERTIFICATE).into();
        let certificate: CertificateDer<'static> = (params.signed_by(&key, &self.issuer))
            .map_err(failed("cannot sign a certificate"))?
            .into();
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| AuthorityError::Key(rustls::Error::General(error.to_owned())))?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
            .map_err(AuthorityError::Key)?;
        Ok(CertifiedKey::new(vec![certificate], key))
    }
}

fn failed(attempt: &'static str) -> impl FnOnce(rcgen::Error) -> AuthorityError {
    move |source| AuthorityError::Certificate { attempt, source }
}

impl std::fmt::Debug for Authority {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Authority {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match self.certified_key(SystemTime::now()) {
            Ok(key) => Some(key),
            Err(error) => {
                tracing::error!(%error, "agents cannot connect: no certificate for the push server");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_anew_long_before_it_ends() {
        let authority = Authority::new("clusterlink-system").unwrap();
        let now = SystemTime::now();
        let first = authority.certified_key(now).unwrap();
        let later = authority.certified_key(now + 29 * DAY).unwrap();
        assert!(Arc::ptr_eq(&first, &later));
        let renewed = authority.certified_key(now + 31 * DAY).unwrap();
        assert_ne!(first.cert, renewed.cert);
    }

    #[test]
    fn replicas_can_share_an_authority() {
        let one = Authority::new("clusterlink-system").unwrap();
        let other =
            Authority::from_pem("clusterlink-system", one.certificate_pem(), &one.key_pem())
                .unwrap();
        assert_eq!(one.certificate_pem(), other.certificate_pem());
        let error =
            Authority::from_pem("clusterlink-system", one.certificate_pem(), "x").unwrap_err();
        assert!(error.to_string().contains("the key is not one"), "{error}");
        assert!(!format!("{one:?}").contains("PRIVATE"));
    }
}
