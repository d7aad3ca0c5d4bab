//! What a writer of status has to look at: each object with what was found out about that very
//! version of it.

#![cfg_attr(
    not(feature = "api-server"),
    expect(dead_code, reason = "without an API server nobody takes the news")
)]

use std::{collections::BTreeMap, sync::Arc};

use clusterlink_model::ObjectName;

use super::{ExportStatus, ImportStatus, PeerObjectStatus, PolicyStatus};

/// An object whose status is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Export(ObjectName),
    Import(ObjectName),
    Peer(ObjectName),
    AccessPolicy(ObjectName),
    /// The namespace is empty.
    PrivilegedAccessPolicy(ObjectName),
}

impl Key {
    /// The kind, as it is written in manifests.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Export(_) => "Export",
            Self::Import(_) => "Import",
            Self::Peer(_) => "Peer",
            Self::AccessPolicy(_) => "AccessPolicy",
            Self::PrivilegedAccessPolicy(_) => "PrivilegedAccessPolicy",
        }
    }

    /// Namespace and name.
    pub(crate) fn name(&self) -> &ObjectName {
        match self {
            Self::Export(name)
            | Self::Import(name)
            | Self::Peer(name)
            | Self::AccessPolicy(name)
            | Self::PrivilegedAccessPolicy(name) => name,
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PrivilegedAccessPolicy(name) => write!(f, "{} {}", self.kind(), name.name),
            other => write!(f, "{} {}", other.kind(), other.name()),
        }
    }
}

/// An object as it was read, and what was found out about it.
#[derive(Clone, Debug)]
pub(crate) struct Judged<S, K> {
    pub(crate) status: Arc<S>,
    pub(crate) object: Arc<K>,
}

impl<S, K> Judged<S, K> {
    /// What was found out about a version.
    pub(crate) fn of(status: Arc<S>, object: &Arc<K>) -> Self {
        Self {
            status,
            object: Arc::clone(object),
        }
    }
}

/// One object of any kind.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Export(Judged<ExportStatus, clusterlink_crds::Export>),
    Import(Judged<ImportStatus, clusterlink_crds::Import>),
    Peer(Judged<PeerObjectStatus, clusterlink_crds::Peer>),
    AccessPolicy(Judged<PolicyStatus, clusterlink_crds::AccessPolicy>),
    PrivilegedAccessPolicy(Judged<PolicyStatus, clusterlink_crds::PrivilegedAccessPolicy>),
}

/// What changed since it was last taken; none stands for an object that is gone.
pub(crate) type News = BTreeMap<Key, Option<Entry>>;

/// Collects news for the one who takes them, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    news: Option<News>,
}

impl Collector {
    /// Begins to collect; before that nobody would ever empty it.
    pub(crate) fn begin(&mut self) {
        self.news.get_or_insert_default();
    }

    /// Notes an object's new state.
    pub(crate) fn note(&mut self, key: Key, entry: Option<Entry>) {
        if let Some(news) = &mut self.news {
            news.insert(key, entry);
        }
    }

    /// What was noted since the last call.
    pub(crate) fn take(&mut self) -> News {
        self.news.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
