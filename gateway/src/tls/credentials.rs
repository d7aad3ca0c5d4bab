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
    time_provider::{DefaultTimeProvider, TimeProvider},
};

use super::{
    config::{self, Configs},
    error::{CredentialsError, Untrusted},
    files::{self, Files, Fingerprint},
    identity::{LeafFacts, PeerIdentity},
    material::{Judges, Own},
    trust::{Role, Trust},
};

/// Our certificate and key, the trust bundle and the revocation lists, as of one moment.
pub struct Credentials {
    generation: u64,
    leaf: LeafFacts,
    trust: Arc<Trust>,
    configs: Configs,
    clock: Arc<dyn TimeProvider>,
    warnings: Vec<String>,
    own: Own,
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
        let now = now(&clock);
        let own = Own::new(dir, files.pair?)?;
        let judges = Judges::new(dir, &files.bundle?, &own.certified, now)?;
        let loaded = Self::assemble(dir, generation, own, judges, clock)?;
        Ok((loaded, fingerprint))
    }

    /// Our certificate and key as they are, with the bundle and revocation lists of `dir`.
    pub(super) fn with_bundle_of(&self, dir: &Path) -> Result<Self, CredentialsError> {
        let (files, _) = Files::read(dir)?;
        let clock = self.clock.clone();
        let judges = Judges::new(dir, &files.bundle?, &self.own.certified, now(&clock))?;
        Self::assemble(dir, self.generation + 1, self.own.clone(), judges, clock)
    }

    /// Whether others are judged by the same roots and revocations as in `other`.
    pub(super) fn judges_like(&self, other: &Self) -> bool {
        self.trust.is_like(&other.trust)
    }

    fn assemble(
        dir: &Path,
        generation: u64,
        own: Own,
        judges: Judges,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, CredentialsError> {
        let now = now(&clock);
        let trust = judges.trust;
        let refused = |source| CredentialsError::Leaf {
            cert: dir.join(files::CERT),
            ca: dir.join(files::CA),
            source,
        };
        let chain = &own.certified.cert;
        let leaf = trust.judge(chain, Role::Called, now).map_err(refused)?;
        trust.judge(chain, Role::Caller, now).map_err(refused)?;
        if DnsName::try_from(leaf.name.as_str()).is_err() {
            return Err(CredentialsError::Content {
                path: dir.join(files::CERT),
                problem: format!(
                    "names the peer {}, which no TLS client can ask for: its last label must \
                     not be a number",
                    leaf.name
                ),
            });
        }
        let trust = Arc::new(trust);
        let configs = config::configs(own.certified.clone(), &trust, &clock).map_err(|source| {
            CredentialsError::Setup {
                dir: dir.to_owned(),
                source,
            }
        })?;
        let warnings = own.warning.iter().cloned().chain(judges.warnings).collect();
        Ok(Self {
            generation,
            leaf,
            trust,
            configs,
            clock,
            warnings,
            own,
        })
    }

    /// Judges the chain of a finished handshake.
    pub(super) fn judge_peer(
        &self,
        chain: &[CertificateDer<'static>],
        role: Role,
    ) -> Result<PeerIdentity, Untrusted> {
        let facts = self.trust.judge(chain, role, now(&self.clock))?;
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

fn now(clock: &Arc<dyn TimeProvider>) -> UnixTime {
    clock.current_time().unwrap_or_else(UnixTime::now)
}

fn system_time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
