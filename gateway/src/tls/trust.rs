//! The trust bundle: roots, revocation lists, and the judgement of chains.

use std::time::Duration;

use rustls::{
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime},
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use super::{
    error::Untrusted,
    identity::{self, LeafFacts},
};

/// Everything that a chain is judged against.
#[derive(Debug)]
pub(super) struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    /// Parallel to `anchors`.
    roots: Vec<Root>,
    revoked: Vec<RevocationList>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What is worth knowing of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) subject: String,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

/// The part that the other end plays, which its extended key usage must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Caller,
    Called,
}

#[derive(Debug, PartialEq, Eq)]
struct RevocationList {
    /// The issuer's name, DER.
    issuer: Vec<u8>,
    /// Sorted.
    serials: Vec<Vec<u8>>,
}

impl Trust {
    /// Compiles a bundle. An error says which item is wrong, and how.
    pub(super) fn new(
        roots: &[CertificateDer<'static>],
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, String> {
        let mut trust = Self {
            anchors: Vec::new(),
            roots: Vec::new(),
            revoked: Vec::new(),
            algorithms,
        };
        for (index, der) in roots.iter().enumerate() {
            let number = index + 1;
            let anchor = webpki::anchor_from_trusted_cert(der)
                .map_err(|error| format!("certificate {number} cannot be a root: {error}"))?
                .to_owned();
            let certificate =
                identity::parse(der).map_err(|error| format!("certificate {number}: {error}"))?;
            trust.anchors.push(anchor);
            trust.roots.push(Root {
                subject: certificate.subject().to_string(),
                not_before: certificate.validity().not_before.timestamp(),
                not_after: certificate.validity().not_after.timestamp(),
            });
        }
        Ok(trust)
    }

    /// Whether both judge by the same roots and revocations.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (&self.anchors, &self.roots, &self.revoked)
            == (&other.anchors, &other.roots, &other.revoked)
    }

    /// The roots, in the order of the bundle.
    pub(super) fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Adds a revocation list. If one of `issuers` has the issuer's name, one of them must have
    /// signed it; a list of an issuer that is not at hand (an intermediate of another peer) is
    /// believed as the administrator's word, since it can only refuse. Tells when the next is due.
    pub(super) fn revoke(
        &mut self,
        der: &CertificateRevocationListDer<'_>,
        issuers: &[CertificateDer<'_>],
    ) -> Result<Option<i64>, String> {
        let (_, list) = CertificateRevocationList::from_der(der.as_ref())
            .map_err(|error| format!("its encoding is wrong ({error})"))?;
        let unsupported = |what: &str, oid: String| {
            Err(format!(
                "its {what} {oid} is not supported: publish one complete list per issuer"
            ))
        };
        if let Some(extension) = list.extensions().iter().find(|e| e.critical) {
            return unsupported("critical extension", extension.oid.to_id_string());
        }
        let mut named = false;
        let mut signed = false;
        for issuer in issuers.iter().filter_map(|der| identity::parse(der).ok()) {
            if issuer.subject().as_raw() == list.issuer().as_raw() {
                named = true;
                signed |= list.verify_signature(issuer.public_key()).is_ok();
            }
        }
        if named && !signed {
            return Err(format!(
                "it is not signed by {}: remove it, or take the current one of that issuer",
                list.issuer()
            ));
        }
        let mut serials = Vec::new();
        for entry in list.iter_revoked_certificates() {
            if let Some(extension) = entry.extensions().iter().find(|e| e.critical) {
                return unsupported("critical entry extension", extension.oid.to_id_string());
            }
            serials.push(entry.raw_serial().to_vec());
        }
        serials.sort_unstable();
        self.revoked.push(RevocationList {
            issuer: list.issuer().as_raw().to_vec(),
            serials,
        });
        Ok(list.next_update().map(|time| time.timestamp()))
    }

    /// Judges a chain, leaf first, as of `now`.
    pub(super) fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<LeafFacts, Untrusted> {
        let (leaf, intermediates) = chain
            .split_first()
            .ok_or_else(|| Untrusted::Invalid("the chain is empty".to_owned()))?;
        self.check_path(leaf, intermediates, role, now)?;
        self.check_revocation(chain)?;
        identity::leaf_facts(leaf)
    }

    /// Whether a revocation list names any certificate of the chain.
    pub(super) fn check_revocation(&self, chain: &[CertificateDer<'_>]) -> Result<(), Untrusted> {
        if self.revoked.is_empty() {
            return Ok(());
        }
        for der in chain {
            let certificate = identity::parse(der)?;
            let listed = self.revoked.iter().any(|list| {
                list.issuer == certificate.issuer().as_raw()
                    && list
                        .serials
                        .binary_search_by(|serial| serial.as_slice().cmp(certificate.raw_serial()))
                        .is_ok()
            });
            if listed {
                return Err(Untrusted::Revoked);
            }
        }
        Ok(())
    }

    fn check_path(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<(), Untrusted> {
        let leaf = EndEntityCert::try_from(leaf).map_err(|error| untrusted(&error))?;
        let usage = match role {
            Role::Caller => KeyUsage::client_auth(),
            Role::Called => KeyUsage::server_auth(),
        };
        // A trust anchor has no validity of its own for webpki, but an expired root must end trust.
        let root_is_current = |path: &VerifiedPath<'_>| self.check_root(path.anchor(), now);
        leaf.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            usage,
            None,
            Some(&root_is_current),
        )
        .map(|_| ())
        .map_err(|error| untrusted(&error))
    }

    /// Whether a root with this name and key is valid now; a renewed root may share both with an
    /// expired one.
    fn check_root(&self, anchor: &TrustAnchor<'_>, time: UnixTime) -> Result<(), webpki::Error> {
        let now = seconds(time);
        let mut refusal = webpki::Error::UnknownIssuer;
        for (root, candidate) in self.roots.iter().zip(&self.anchors) {
            if candidate.subject != anchor.subject
                || candidate.subject_public_key_info != anchor.subject_public_key_info
            {
                continue;
            }
            if now > root.not_after {
                refusal = webpki::Error::CertExpired {
                    time,
                    not_after: unix_time(root.not_after),
                };
            } else if now < root.not_before {
                refusal = webpki::Error::CertNotValidYet {
                    time,
                    not_before: unix_time(root.not_before),
                };
            } else {
                return Ok(());
            }
        }
        Err(refusal)
    }
}

/// Seconds since the epoch as rustls counts them.
pub(super) fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// The other way round.
pub(super) fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn untrusted(error: &webpki::Error) -> Untrusted {
    match error {
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            Untrusted::UnknownIssuer
        }
        webpki::Error::CertExpired { not_after, .. } => Untrusted::Expired {
            not_after: seconds(*not_after),
        },
        webpki::Error::CertNotValidYet { not_before, .. } => Untrusted::NotYetValid {
            not_before: seconds(*not_before),
        },
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension => {
            Untrusted::Purpose
        }
        webpki::Error::CaUsedAsEndEntity => {
            Untrusted::Invalid("it is a CA certificate, not the one of a peer".to_owned())
        }
        other => Untrusted::Invalid(other.to_string()),
    }
}
