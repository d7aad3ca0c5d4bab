//! The boundary between where manifests come from and the controller.
//!
//! A [`Source`] gives one stream of watcher events per kind, just as a watch on an API server does:
//! `Init`, an `InitApply` per object, `InitDone`, then `Apply` and `Delete`; a later `Init` starts
//! over. Errors are handled inside a source and told as [`Problem`]s, which are a state (what is
//! wrong now) rather than a log. A source publishes its problems before the events that follow from
//! the same reading.

#[cfg(feature = "api-server")]
pub mod api_server;
pub mod directory;

use std::{fmt, sync::Arc};

use clusterlink_crds::{AccessPolicy, Export, Import, Peer, PrivilegedAccessPolicy};
use futures::stream::BoxStream;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::runtime::watcher::Event;
use serde::Serialize;
use tokio::sync::watch;

/// Watcher events of one kind. A stream that ends means that its source has stopped.
pub type EventStream<K> = BoxStream<'static, Event<K>>;

/// Gives manifests to the controller.
pub trait Source: Send + 'static {
    /// Starts reading, on the current tokio runtime; it stops when the streams are dropped.
    fn start(self: Box<Self>) -> (Streams, Problems);
}

/// What is wrong with the manifests right now, ordered by place.
pub type Problems = watch::Receiver<Arc<Vec<Problem>>>;

/// One stream of events for each kind that the controller reads.
#[expect(missing_debug_implementations, reason = "streams have nothing to show")]
pub struct Streams {
    /// Services that other peers may be given.
    pub exports: EventStream<Export>,
    /// Services of other peers.
    pub imports: EventStream<Import>,
    /// Other peers.
    pub peers: EventStream<Peer>,
    /// Policies of namespaces.
    pub access_policies: EventStream<AccessPolicy>,
    /// Policies of the whole cluster or host.
    pub privileged_access_policies: EventStream<PrivilegedAccessPolicy>,
    /// Services that Exports name.
    pub services: EventStream<Service>,
    /// Endpoints of those Services.
    pub endpoint_slices: EventStream<EndpointSlice>,
    /// Workloads.
    pub pods: EventStream<Pod>,
    /// Namespaces.
    pub namespaces: EventStream<Namespace>,
    /// Nodes of the cluster; a source without any gives an empty, complete list.
    pub nodes: EventStream<Node>,
}

/// One thing that is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// The kind of the object, where it can be read.
    pub kind: Option<String>,
    /// The object as `namespace/name`, or `name` if its kind has no namespace, where it can be read.
    pub object: Option<String>,
    /// The path of the field, such as `spec.sources[0].peer`.
    pub field: Option<String>,
    /// What is wrong, with the value and the cure.
    pub message: String,
    /// Whether an earlier content of the object stays in force because of this.
    pub stale: bool,
}

/// A place in the manifests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The file, or for a source without files what it reads from.
    pub file: String,
    /// Which document of the file, from 1.
    pub document: Option<u32>,
    /// Which line of the file, from 1.
    pub line: Option<u32>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match self.document {
            Some(document) => write!(f, " (document {document})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(kind) = &self.kind {
            write!(f, "{kind} ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object} ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)
    }
}
