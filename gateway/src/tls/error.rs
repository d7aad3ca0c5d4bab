//! What can go wrong, with the cure in the text and a stable word for metrics.

use std::{io, path::PathBuf, sync::Arc};

use clusterlink_model::PeerName;
use rustls::{AlertDescription, CertificateError, OtherError, pki_types::UnixTime};
use x509_parser::time::ASN1Time;

use super::{
    record::ChannelError,
    trust::{seconds, unix_time},
};

/// Why certificates cannot be loaded from a directory.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {}: is the directory complete and readable for this user?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is no PEM, or does not hold what it should.
    #[error("{} {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The key belongs to another certificate.
    #[error(
        "the key in {} does not belong to the first certificate in {}: write both files of one pair",
        key.display(), cert.display()
    )]
    KeyMismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// Other peers would refuse our certificate.
    #[error("the certificate in {} would be refused by other peers of the fabric in {}", cert.display(), ca.display())]
    Leaf {
        /// The certificate file.
        cert: PathBuf,
        /// The trust bundle.
        ca: PathBuf,
        /// Why.
        #[source]
        source: Untrusted,
    },
    /// The leaf names another peer than the one that runs.
    #[error(
        "the certificate in {} names the peer {to}, but this is {from}: restart to change the name, \
         or put a certificate of {from} there",
        cert.display()
    )]
    Renamed {
        /// The certificate file.
        cert: PathBuf,
        /// Our name.
        from: PeerName,
        /// The name in the file.
        to: PeerName,
    },
    /// The files changed while they were read.
    #[error("the certificates in {} are being replaced: they are read again shortly", .0.display())]
    Changing(PathBuf),
    /// The TLS library refuses to be set up.
    #[error("cannot set up TLS with the certificates in {}", dir.display())]
    Setup {
        /// The directory.
        dir: PathBuf,
        /// What the library said.
        #[source]
        source: rustls::Error,
    },
}

/// Why a certificate chain is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// No root of the trust bundle stands behind it.
    #[error("it is signed by no root in ca.pem: both peers need a certificate of the same fabric")]
    UnknownIssuer,
    /// It, or what signed it, is past its end.
    #[error("it expired at {}: issue a new one", date(*not_after))]
    Expired {
        /// The end, seconds since the epoch.
        not_after: i64,
    },
    /// It, or what signed it, is not valid yet.
    #[error("it is not valid before {}: compare the clocks of both hosts", date(*not_before))]
    NotYetValid {
        /// The beginning, seconds since the epoch.
        not_before: i64,
    },
    /// The revocation list names it.
    #[error(
        "it, or what signed it, is revoked by crl.pem: issue a new one if its peer is to return"
    )]
    Revoked,
    /// It names no peer, or several.
    #[error(
        "it must have exactly one DNS SAN, the name of its peer, but has {names:?}: \
         issue one with `clusterlink create peer-cert`"
    )]
    Names {
        /// What it has instead.
        names: Vec<String>,
    },
    /// It belongs to another peer.
    #[error("it belongs to {presented:?}, not to {expected}: is the address the one of that peer?")]
    NameMismatch {
        /// Who was dialled.
        expected: String,
        /// Who answered.
        presented: Vec<String>,
    },
    /// Its extended key usage forbids this use.
    #[error(
        "its extended key usage must allow both server and client authentication, or be absent"
    )]
    Purpose,
    /// Anything else that makes it unacceptable.
    #[error("it is not acceptable: {0}")]
    Invalid(String),
}

impl Untrusted {
    /// A stable word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::Names { .. } => "names",
            Self::NameMismatch { .. } => "name_mismatch",
            Self::Purpose => "purpose",
            Self::Invalid(_) => "invalid_certificate",
        }
    }

    /// Whether live sessions must end. Only a revocation does that: expiry and a root that left the
    /// bundle refuse new sessions, and let those that exist go on.
    pub fn ends_live_sessions(&self) -> bool {
        match self {
            Self::Revoked => true,
            Self::UnknownIssuer
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::Names { .. }
            | Self::NameMismatch { .. }
            | Self::Purpose
            | Self::Invalid(_) => false,
        }
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The certificate of the other end is refused here.
    #[error("the certificate of the other end is refused")]
    Untrusted(#[source] Untrusted),
    /// The other end has no certificate.
    #[error("the other end presented no certificate: peers are known by theirs alone")]
    NoCertificate,
    /// The other end refuses us.
    #[error("the other end refused the handshake: {}", explain(*.0))]
    Refused(AlertDescription),
    /// The other end does not speak our protocol.
    #[error("the other end does not speak clusterlink/1: is another service at this address?")]
    Alpn,
    /// What arrived is not the TLS that we speak.
    #[error("the other end does not speak TLS 1.3 as expected: {0}")]
    Protocol(String),
    /// The name cannot be dialled.
    #[error("{0} cannot be used as a TLS server name: its last label must not be a number")]
    ServerName(PeerName),
    /// The other end took too long.
    #[error("no handshake within {} seconds", super::HANDSHAKE_DEADLINE.as_secs())]
    Timeout,
    /// The other end closed the connection.
    #[error("the other end closed the connection during the handshake")]
    Closed,
    /// The socket failed.
    #[error("the connection failed during the handshake")]
    Io(#[source] io::Error),
}

impl HandshakeError {
    /// A stable word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Untrusted(why) => why.reason(),
            Self::NoCertificate => "no_certificate",
            Self::Refused(_) => "refused_by_peer",
            Self::Alpn => "alpn",
            Self::Protocol(_) => "protocol",
            Self::ServerName(_) => "server_name",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Io(_) => "io",
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl From<ChannelError> for HandshakeError {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Alert(alert) => Self::Refused(alert),
            ChannelError::Tls(error) => error.into(),
            ChannelError::Closed => Self::Closed,
            ChannelError::Oversized | ChannelError::NoRoom { .. } => {
                Self::Protocol(error.to_string())
            }
        }
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(why) => Self::Untrusted(why.into()),
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::AlertReceived(alert) => Self::Refused(alert),
            rustls::Error::NoApplicationProtocol => Self::Alpn,
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// The way into rustls: its own variants where it has them, for the sake of the alert that the other
/// end gets, and ourselves carried along where not.
impl From<Untrusted> for CertificateError {
    fn from(why: Untrusted) -> Self {
        match why {
            Untrusted::UnknownIssuer => Self::UnknownIssuer,
            Untrusted::Expired { not_after } => Self::ExpiredContext {
                time: UnixTime::now(),
                not_after: unix_time(not_after),
            },
            Untrusted::NotYetValid { not_before } => Self::NotValidYetContext {
                time: UnixTime::now(),
                not_before: unix_time(not_before),
            },
            Untrusted::Revoked => Self::Revoked,
            Untrusted::Purpose => Self::InvalidPurpose,
            carried @ (Untrusted::Names { .. }
            | Untrusted::NameMismatch { .. }
            | Untrusted::Invalid(_)) => Self::Other(OtherError(Arc::new(carried))),
        }
    }
}

/// The way back.
impl From<CertificateError> for Untrusted {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired {
                not_after: seconds(not_after),
            },
            CertificateError::NotValidYetContext { not_before, .. } => Self::NotYetValid {
                not_before: seconds(not_before),
            },
            CertificateError::Revoked => Self::Revoked,
            CertificateError::InvalidPurpose => Self::Purpose,
            CertificateError::Other(other) => match other.0.downcast_ref::<Self>() {
                Some(why) => why.clone(),
                None => Self::Invalid(other.to_string()),
            },
            other => Self::Invalid(other.to_string()),
        }
    }
}

/// Seconds since the epoch as a date.
pub(super) fn date(seconds: i64) -> String {
    ASN1Time::from_timestamp(seconds).map_or_else(
        |_| format!("second {seconds} of the epoch"),
        |time| time.to_string(),
    )
}

fn explain(alert: AlertDescription) -> String {
    let cure = match alert {
        AlertDescription::UnknownCA => "its ca.pem does not hold the root of our certificate",
        AlertDescription::CertificateExpired => {
            "our certificate is expired or not valid yet by its clock"
        }
        AlertDescription::CertificateRevoked => "its crl.pem revokes our certificate",
        AlertDescription::CertificateRequired => "it saw no certificate of ours",
        AlertDescription::NoApplicationProtocol => "it does not speak clusterlink/1",
        AlertDescription::ProtocolVersion => "it does not speak TLS 1.3",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => "it does not accept our certificate; its log says why",
        _ => "its log says why",
    };
    format!("{cure} (TLS alert {alert:?})")
}
