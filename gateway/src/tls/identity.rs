//! Who is at the other end, read from a certificate chain.

use std::sync::Arc;

use clusterlink_model::PeerName;
use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::error::Untrusted;

/// The other end of a session, as its certificate names it.
///
/// The chain is kept, so that [`super::Credentials::still_trusted`] can judge it again whenever the
/// bundle, the revocation list or the clock moves on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The only DNS SAN of the leaf.
    pub name: PeerName,
    /// The leaf's notBefore, seconds since the epoch: what a Peer's `notIssuedBefore` looks at.
    pub issued_at: i64,
    /// The leaf's notAfter, seconds since the epoch.
    pub not_after: i64,
    /// The leaf's serial number, big-endian.
    pub serial: Vec<u8>,
    /// The generation of the credentials that the chain was judged with.
    pub credentials_generation: u64,
    /// Whether the other end dialled us.
    pub is_caller: bool,
    /// Leaf first, as presented.
    pub chain: Arc<[CertificateDer<'static>]>,
}

/// What the leaf of a chain says of itself; believed only after the chain was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeafFacts {
    pub(super) name: PeerName,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    pub(super) serial: Vec<u8>,
}

/// Reads the facts of a leaf. The one DNS SAN rule is applied here, for both directions.
pub(super) fn leaf_facts(leaf: &CertificateDer<'_>) -> Result<LeafFacts, Untrusted> {
    let certificate = parse(leaf)?;
    let names = dns_names(&certificate);
    let name = match names.as_slice() {
        [only] => PeerName::new(only).ok(),
        _ => None,
    };
    let name = name.ok_or(Untrusted::Names { names })?;
    Ok(LeafFacts {
        name,
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
        serial: certificate.raw_serial().to_vec(),
    })
}

/// Parses one certificate.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Untrusted> {
    match X509Certificate::from_der(der.as_ref()) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(Untrusted::Invalid(format!(
            "its encoding is wrong ({error})"
        ))),
    }
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect(),
        Ok(None) | Err(_) => Vec::new(),
    }
}
