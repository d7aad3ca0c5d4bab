//! What the decoded files are worth: our certificate with its key, and what we judge others by.

use std::path::Path;

use rustls::{
    pki_types::{CertificateDer, UnixTime},
    sign::CertifiedKey,
};

use super::{
    config,
    error::{CredentialsError, date},
    files::{self, Bundle, Pair},
    trust::{self, Trust},
};

/// Our certificate with the key that belongs to it.
#[derive(Clone)]
pub(super) struct Own {
    pub(super) certified: CertifiedKey,
    pub(super) warning: Option<String>,
}

impl Own {
    pub(super) fn new(dir: &Path, pair: Pair) -> Result<Self, CredentialsError> {
        let (cert, key) = (dir.join(files::CERT), dir.join(files::KEY));
        let warning = (pair.key_mode & 0o077 != 0).then(|| {
            format!(
                "{} is readable by others (mode {:04o}): set it to 0600",
                key.display(),
                pair.key_mode
            )
        });
        let signing_key = config::provider()
            .key_provider
            .load_private_key(pair.key)
            .map_err(|_| CredentialsError::Content {
                path: key.clone(),
                problem: "holds a private key of an unsupported kind: use ECDSA P-256 or Ed25519"
                    .to_owned(),
            })?;
        let certified = CertifiedKey::new(pair.chain, signing_key);
        match certified.keys_match() {
            Ok(()) => Ok(Self { certified, warning }),
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                Err(CredentialsError::KeyMismatch { cert, key })
            }
            Err(source) => Err(CredentialsError::Content {
                path: cert,
                problem: format!("cannot be used with its key: {source}"),
            }),
        }
    }
}

/// What we judge others by.
pub(super) struct Judges {
    pub(super) trust: Trust,
    pub(super) warnings: Vec<String>,
}

impl Judges {
    /// `own` may bring intermediates that signed revocation lists.
    pub(super) fn new(
        dir: &Path,
        bundle: &Bundle,
        own: &CertifiedKey,
        now: UnixTime,
    ) -> Result<Self, CredentialsError> {
        let (ca, crl) = (dir.join(files::CA), dir.join(files::CRL));
        let algorithms = config::provider().signature_verification_algorithms;
        let mut trust =
            Trust::new(&bundle.roots, algorithms).map_err(|problem| CredentialsError::Content {
                path: ca.clone(),
                problem,
            })?;
        let mut warnings = Vec::new();
        let issuers: Vec<CertificateDer<'_>> = bundle
            .roots
            .iter()
            .chain(own.cert.iter().skip(1))
            .cloned()
            .collect();
        for (index, list) in bundle.revocations.iter().enumerate() {
            let next =
                trust
                    .revoke(list, &issuers)
                    .map_err(|problem| CredentialsError::Content {
                        path: crl.clone(),
                        problem: format!("cannot be used, list {}: {problem}", index + 1),
                    })?;
            if let Some(next) = next.filter(|next| *next < trust::seconds(now)) {
                warnings.push(format!(
                    "list {} in {} should have been renewed at {}: it stays in force",
                    index + 1,
                    crl.display(),
                    date(next)
                ));
            }
        }
        for root in trust
            .roots()
            .iter()
            .filter(|root| root.not_after < trust::seconds(now))
        {
            warnings.push(format!(
                "the root {} in {} expired at {}: remove it",
                root.subject,
                ca.display(),
                date(root.not_after)
            ));
        }
        Ok(Self { trust, warnings })
    }
}
