//! The streams of events that the controller reads, and their sending ends.

use clusterlink_crds::{AccessPolicy, Export, Import, Peer, PrivilegedAccessPolicy};
use futures::{StreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::runtime::watcher::Event;
use tokio::sync::mpsc;

use super::{catalog::Change, kinds::Object};
use crate::source::{EventStream, Streams};

/// How many events of one kind may wait to be read.
const WAITING: usize = 1024;

/// The reader of the streams has gone.
#[derive(Debug)]
pub(super) struct Closed;

/// Sends events to the streams of all kinds.
#[derive(Debug)]
pub(super) struct Outlet {
    exports: mpsc::Sender<Event<Export>>,
    imports: mpsc::Sender<Event<Import>>,
    peers: mpsc::Sender<Event<Peer>>,
    access_policies: mpsc::Sender<Event<AccessPolicy>>,
    privileged_access_policies: mpsc::Sender<Event<PrivilegedAccessPolicy>>,
    services: mpsc::Sender<Event<Service>>,
    endpoint_slices: mpsc::Sender<Event<EndpointSlice>>,
    pods: mpsc::Sender<Event<Pod>>,
    namespaces: mpsc::Sender<Event<Namespace>>,
}

/// Connected sending and reading ends.
pub(super) fn channels() -> (Outlet, Streams) {
    let (exports, read_exports) = channel();
    let (imports, read_imports) = channel();
    let (peers, read_peers) = channel();
    let (access_policies, read_access_policies) = channel();
    let (privileged_access_policies, read_privileged_access_policies) = channel();
    let (services, read_services) = channel();
    let (endpoint_slices, read_endpoint_slices) = channel();
    let (pods, read_pods) = channel();
    let (namespaces, read_namespaces) = channel();
    let outlet = Outlet {
        exports,
        imports,
        peers,
        access_policies,
        privileged_access_policies,
        services,
        endpoint_slices,
        pods,
        namespaces,
    };
    let streams = Streams {
        exports: read_exports,
        imports: read_imports,
        peers: read_peers,
        access_policies: read_access_policies,
        privileged_access_policies: read_privileged_access_policies,
        services: read_services,
        endpoint_slices: read_endpoint_slices,
        pods: read_pods,
        namespaces: read_namespaces,
        // A standalone peer is one host, which no manifest describes.
        nodes: stream::iter([Event::Init, Event::InitDone]).boxed(),
    };
    (outlet, streams)
}

fn channel<K: Send + 'static>() -> (mpsc::Sender<Event<K>>, EventStream<K>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let events = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|event| (event, receiver))
    });
    (sender, events.boxed())
}

/// Sends an object's event to the stream of its kind.
macro_rules! dispatch {
    ($self:ident, $object:expr, $event:path) => {
        match $object {
            Object::Export(object) => send(&$self.exports, $event(*object)).await,
            Object::Import(object) => send(&$self.imports, $event(*object)).await,
            Object::Peer(object) => send(&$self.peers, $event(*object)).await,
            Object::AccessPolicy(object) => send(&$self.access_policies, $event(*object)).await,
            Object::PrivilegedAccessPolicy(object) => {
                send(&$self.privileged_access_policies, $event(*object)).await
            }
            Object::Service(object) => send(&$self.services, $event(*object)).await,
            Object::EndpointSlice(object) => send(&$self.endpoint_slices, $event(*object)).await,
            Object::Pod(object) => send(&$self.pods, $event(*object)).await,
            Object::Namespace(object) => send(&$self.namespaces, $event(*object)).await,
        }
    };
}

/// Sends the same event to the streams of all kinds.
macro_rules! broadcast {
    ($self:ident, $event:path) => {{
        send(&$self.exports, $event).await?;
        send(&$self.imports, $event).await?;
        send(&$self.peers, $event).await?;
        send(&$self.access_policies, $event).await?;
        send(&$self.privileged_access_policies, $event).await?;
        send(&$self.services, $event).await?;
        send(&$self.endpoint_slices, $event).await?;
        send(&$self.pods, $event).await?;
        send(&$self.namespaces, $event).await
    }};
}

impl Outlet {
    /// Tells what is there at first.
    pub(super) async fn init(&self, changes: Vec<Change>) -> Result<(), Closed> {
        broadcast!(self, Event::Init)?;
        for change in changes {
            if let Change::Apply(object) = change {
                dispatch!(self, object, Event::InitApply)?;
            }
        }
        broadcast!(self, Event::InitDone)
    }

    /// Tells what has changed.
    pub(super) async fn send(&self, changes: Vec<Change>) -> Result<(), Closed> {
        for change in changes {
            match change {
                Change::Apply(object) => dispatch!(self, object, Event::Apply)?,
                Change::Delete(object) => dispatch!(self, object, Event::Delete)?,
            }
        }
        Ok(())
    }

    /// Waits until the streams are dropped.
    pub(super) async fn closed(&self) {
        self.exports.closed().await;
    }
}

async fn send<K>(sender: &mpsc::Sender<Event<K>>, event: Event<K>) -> Result<(), Closed> {
    sender.send(event).await.map_err(|_| Closed)
}
