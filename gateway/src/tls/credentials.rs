//! What this peer shows to others and judges them by: one immutable generation.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use clusterlink_model::PeerName;
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, DnsName, UnixTime},
    sign::CertifiedKey,
    time_provider::{DefaultTimeProvider, TimeProvider},
};

use super::{
    config::{self, Configs},
    error::{CredentialsError, Untrusted, date},
    files::{self, Files, Fingerprint},
    identity::{LeafFacts, PeerIdentity},
    trust::{self, Role, Trust},
};

/// Our certificate and key, the trust bundle and the revocation lists, as of one moment.
pub struct Credentials {
    generation: u64,
    leaf: LeafFacts,
    trust: Arc<Trust>,
    configs: Configs,
    clock: Arc<dyn TimeProvider>,
    warnings: Vec<String>,
}

/// A root of the trust bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootCertificate {
    /// Its subject, as text.
    pub subject: String,
    /// When trust in it ends.
    pub not_after: SystemTime,
}

impl Credentials {
    /// Loads `cert.pem`, `key.pem`, `ca.pem` and, if present, `crl.pem` of a directory. What other
    /// peers would refuse is refused here already.
    pub fn load(dir: &Path, generation: u64) -> Result<Self, CredentialsError> {
        Self::load_with_clock(dir, generation, Arc::new(DefaultTimeProvider)).map(|(this, _)| this)
    }

    /// The name of our peer: the only DNS SAN of the leaf.
    pub fn name(&self) -> &PeerName {
        &self.leaf.name
    }

    /// The generation that the caller of [`Credentials::load`] chose.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> SystemTime {
        system_time(self.leaf.not_after)
    }

    /// The leaf's notBefore, seconds since the epoch.
    pub fn leaf_issued_at(&self) -> i64 {
        self.leaf.not_before
    }

    /// The roots of the bundle, in its order.
    pub fn roots(&self) -> Vec<RootCertificate> {
        self.trust
            .roots()
            .iter()
            .map(|root| RootCertificate {
                subject: root.subject.clone(),
                not_after: system_time(root.not_after),
            })
            .collect()
    }

    /// What works but should be looked at: a key that others can read, an expired root or
    /// an overdue revocation list.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Judges a peer again, by the bundle and the revocation lists of this generation. To be asked
    /// of every live session when the generation changes; [`Untrusted::ends_live_sessions`] says
    /// whether the answer cuts it or only bars new ones.
    pub fn still_trusted(&self, peer: &PeerIdentity, now: SystemTime) -> Result<(), Untrusted> {
        // Revocation first: a chain that is expired as well must still be cut.
        self.trust.check_revocation(&peer.chain)?;
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let role = if peer.is_caller {
            Role::Caller
        } else {
            Role::Called
        };
        self.trust
            .judge(&peer.chain, role, UnixTime::since_unix_epoch(since_epoch))
            .map(|_| ())
    }

    /// As [`Credentials::load`], with the clock that certificates are judged by.
    pub(super) fn load_with_clock(
        dir: &Path,
        generation: u64,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<(Self, Fingerprint), CredentialsError> {
        let (files, fingerprint) = Files::read(dir)?;
        let provider = config::provider();
        let algorithms = provider.signature_verification_algorithms;
        let (cert, key, ca) = (
            dir.join(files::CERT),
            dir.join(files::KEY),
            dir.join(files::CA),
        );
        let now = clock.current_time().unwrap_or_else(UnixTime::now);

        let mut warnings = Vec::new();
        if files.key_mode & 0o077 != 0 {
            warnings.push(format!(
                "{} is readable by others (mode {:04o}): set it to 0600",
                key.display(),
                files.key_mode
            ));
        }

        let signing_key = provider
            .key_provider
            .load_private_key(files.key)
            .map_err(|_| CredentialsError::Content {
                path: key.clone(),
                problem: "holds a private key of an unsupported kind: use ECDSA P-256 or Ed25519"
                    .to_owned(),
            })?;
        let certified = CertifiedKey::new(files.chain.clone(), signing_key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                return Err(CredentialsError::KeyMismatch { cert, key });
            }
            Err(source) => {
                return Err(CredentialsError::Content {
                    path: cert,
                    problem: format!("cannot be used with its key: {source}"),
                });
            }
        }

        let mut trust =
            Trust::new(&files.roots, algorithms).map_err(|problem| CredentialsError::Content {
                path: ca.clone(),
                problem,
            })?;
        let crl = dir.join(files::CRL);
        let issuers: Vec<CertificateDer<'_>> = files
            .roots
            .iter()
            .chain(files.chain.iter().skip(1))
            .cloned()
            .collect();
        for (index, list) in files.revocations.iter().enumerate() {
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

        let refused = |source| CredentialsError::Leaf {
            cert: cert.clone(),
            ca: ca.clone(),
            source,
        };
        let leaf = trust
            .judge(&files.chain, Role::Called, now)
            .map_err(refused)?;
        trust
            .judge(&files.chain, Role::Caller, now)
            .map_err(refused)?;
        if DnsName::try_from(leaf.name.as_str()).is_err() {
            return Err(CredentialsError::Content {
                path: cert,
                problem: format!(
                    "names the peer {}, which no TLS client can ask for: its last label must \
                     not be a number",
                    leaf.name
                ),
            });
        }

        let trust = Arc::new(trust);
        let configs = config::configs(certified, &trust, &clock).map_err(|source| {
            CredentialsError::Setup {
                dir: dir.to_owned(),
                source,
            }
        })?;
        Ok((
            Self {
                generation,
                leaf,
                trust,
                configs,
                clock,
                warnings,
            },
            fingerprint,
        ))
    }

    /// Judges the chain of a finished handshake.
    pub(super) fn judge_peer(
        &self,
        chain: &[CertificateDer<'static>],
        role: Role,
    ) -> Result<PeerIdentity, Untrusted> {
        let now = self.clock.current_time().unwrap_or_else(UnixTime::now);
        let facts = self.trust.judge(chain, role, now)?;
        Ok(PeerIdentity {
            name: facts.name,
            issued_at: facts.not_before,
            not_after: facts.not_after,
            serial: facts.serial,
            credentials_generation: self.generation,
            is_caller: role == Role::Caller,
            chain: chain.into(),
        })
    }

    pub(super) fn client_config(&self) -> Arc<ClientConfig> {
        self.configs.client.clone()
    }

    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        self.configs.server.clone()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.leaf.name)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

fn system_time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
