//! The attribute keys that policies select by, parsed once so that no decision compares key texts.

use super::{DestinationAttributes, SourceAttributes};

/// `from` and `to`: the name of the importing, or exporting, peer.
pub const PEER_NAME: &str = "peer.clusterlink.net/name";
/// `from` and `to`: prefix of that peer's labels.
pub const PEER_LABELS: &str = "peer.clusterlink.net/labels.";
/// `from`: the namespace of the client pod.
pub const CLIENT_NAMESPACE: &str = "client.clusterlink.net/namespace";
/// `from`: the service account of the client pod.
pub const CLIENT_SERVICE_ACCOUNT: &str = "client.clusterlink.net/service-account";
/// `from`: prefix of the client pod's labels.
pub const CLIENT_LABELS: &str = "client.clusterlink.net/labels.";
/// `to`: the name of the Export.
pub const EXPORT_NAME: &str = "export.clusterlink.net/name";
/// `to`: the namespace of the Export.
pub const EXPORT_NAMESPACE: &str = "export.clusterlink.net/namespace";
/// `to`: prefix of the labels of the Import (egress) or of the Export (ingress).
pub const EXPORT_LABELS: &str = "export.clusterlink.net/labels.";

/// A key as it is used on one side of a policy.
pub(super) trait Key: Sized {
    /// Reads a key; one that no connection can have becomes a key without a value.
    fn parse(text: &str) -> Self;
}

/// An attribute of the source of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SourceKey {
    PeerName,
    PeerLabel(Box<str>),
    ClientNamespace,
    ClientServiceAccount,
    ClientLabel(Box<str>),
    /// No source has it.
    Absent,
}

impl Key for SourceKey {
    fn parse(text: &str) -> Self {
        if let Some(label) = text.strip_prefix(PEER_LABELS) {
            Self::PeerLabel(label.into())
        } else if let Some(label) = text.strip_prefix(CLIENT_LABELS) {
            Self::ClientLabel(label.into())
        } else {
            match text {
                PEER_NAME => Self::PeerName,
                CLIENT_NAMESPACE => Self::ClientNamespace,
                CLIENT_SERVICE_ACCOUNT => Self::ClientServiceAccount,
                _ => Self::Absent,
            }
        }
    }
}

impl<'a> SourceAttributes<'a> {
    pub(super) fn value(&self, key: &SourceKey) -> Option<&'a str> {
        match key {
            SourceKey::PeerName => Some(self.peer.as_str()),
            SourceKey::PeerLabel(label) => self.peer_labels.get(&**label).map(String::as_str),
            SourceKey::ClientNamespace => self.workload.map(|w| &*w.namespace),
            SourceKey::ClientServiceAccount => self.workload.map(|w| &*w.service_account),
            SourceKey::ClientLabel(label) => {
                self.workload?.labels.get(&**label).map(String::as_str)
            }
            SourceKey::Absent => None,
        }
    }
}

/// An attribute of the destination of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DestinationKey {
    ExportName,
    ExportNamespace,
    ExportLabel(Box<str>),
    PeerName,
    PeerLabel(Box<str>),
    /// No destination has it.
    Absent,
}

impl Key for DestinationKey {
    fn parse(text: &str) -> Self {
        if let Some(label) = text.strip_prefix(EXPORT_LABELS) {
            Self::ExportLabel(label.into())
        } else if let Some(label) = text.strip_prefix(PEER_LABELS) {
            Self::PeerLabel(label.into())
        } else {
            match text {
                EXPORT_NAME => Self::ExportName,
                EXPORT_NAMESPACE => Self::ExportNamespace,
                PEER_NAME => Self::PeerName,
                _ => Self::Absent,
            }
        }
    }
}

impl<'a> DestinationAttributes<'a> {
    pub(super) fn value(&self, key: &DestinationKey) -> Option<&'a str> {
        match key {
            DestinationKey::ExportName => Some(&self.export.name),
            DestinationKey::ExportNamespace => Some(&self.export.namespace),
            DestinationKey::ExportLabel(label) => {
                self.export_labels.get(&**label).map(String::as_str)
            }
            DestinationKey::PeerName => Some(self.peer.as_str()),
            DestinationKey::PeerLabel(label) => self.peer_labels.get(&**label).map(String::as_str),
            DestinationKey::Absent => None,
        }
    }
}
