//! The API server as a source: one watch for each kind.
//!
//! ```text
//! watch ─▶ decode, or report and skip ─▶ what nobody reads is dropped ─▶ events
//!                │
//!             Problems: one for each object that cannot be decoded, one for each watch that fails
//! ```
//! A watch that breaks is begun again with growing pauses; until then what was read last holds. What
//! Services and slices are decided upon is listed anew then, all of it (`anew`).

mod anew;
mod lenient;
mod pauses;
mod told;

use std::{fmt::Debug, sync::Arc};

use clusterlink_crds::{AccessPolicy, Export, Import, Peer, PolicyAction, PrivilegedAccessPolicy};
use futures::{StreamExt as _, future, stream::BoxStream};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, NodeSpec, NodeStatus, Pod, PodSpec, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use self::{anew::Together, lenient::Lenient, pauses::Pauses, told::Told};
use super::{EventStream, Problems, Source, Streams};
use crate::cluster::fleet;

/// Watches the kinds that the controller reads.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "a client has nothing to show")]
pub struct ApiServer {
    client: Client,
    system_namespace: String,
}

impl ApiServer {
    /// A source that reads everywhere, except for Peers: those count in the system namespace only,
    /// since whoever may write them decides whom a name stands for.
    pub fn new(client: Client, system_namespace: impl Into<String>) -> Self {
        Self {
            client,
            system_namespace: system_namespace.into(),
        }
    }

    fn ours<K>(&self, told: &Arc<Told>, is_allow: fn(&K) -> bool) -> EventStream<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let watch = watch(Api::all(self.client.clone()));
        guarded(watch, told, is_allow)
    }

    /// A kind of Kubernetes' own, of which `trim` drops what nobody reads.
    fn core<K>(
        &self,
        together: Option<&Together>,
        told: &Arc<Told>,
        trim: fn(&mut K),
    ) -> EventStream<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let told = Arc::clone(told);
        let api = Api::<K>::all(self.client.clone());
        let watch = match together {
            Some(together) => watch_together(api, together),
            None => watch(api),
        };
        watch
            .filter_map(move |event| {
                let kind = K::kind(&());
                let event = match event {
                    Ok(event) => {
                        told.watch_works(&kind);
                        Some(event.modify(|object| {
                            object.managed_fields_mut().clear();
                            trim(object);
                        }))
                    }
                    Err(error) => {
                        told.watch_failed(&kind, &error);
                        None
                    }
                };
                future::ready(event)
            })
            .boxed()
    }
}

impl Source for ApiServer {
    fn start(self: Box<Self>) -> (Streams, Problems) {
        let (problems, receiver) = watch::channel(Arc::default());
        let told = Arc::new(Told::new(problems));
        let peers = Api::namespaced(self.client.clone(), &self.system_namespace);
        let imports = Api::all(self.client.clone());
        let together = Together::default();
        let streams = Streams {
            exports: self.ours::<Export>(&told, |_| false),
            imports: guarded::<Import>(watch_together(imports, &together), &told, |_| false),
            peers: guarded::<Peer>(watch(peers), &told, |_| false),
            access_policies: self
                .ours::<AccessPolicy>(&told, |policy| policy.spec.action == PolicyAction::Allow),
            privileged_access_policies: self.ours::<PrivilegedAccessPolicy>(&told, |policy| {
                policy.spec.0.action == PolicyAction::Allow
            }),
            services: self.core::<Service>(Some(&together), &told, |_| {}),
            endpoint_slices: self.core::<EndpointSlice>(Some(&together), &told, |_| {}),
            pods: self.core(Some(&together), &told, trim_pod),
            namespaces: self.core::<Namespace>(None, &told, |_| {}),
            nodes: self.core(Some(&together), &told, trim_node),
        };
        (streams, receiver)
    }
}

/// A watch that goes on from where it was when it broke.
fn watch<K>(api: Api<K>) -> BoxStream<'static, watcher::Result<watcher::Event<K>>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher(api, watcher::Config::default())
        .backoff(Pauses::default())
        .boxed()
}

/// A watch of what is decided upon together.
fn watch_together<K>(
    api: Api<K>,
    together: &Together,
) -> BoxStream<'static, watcher::Result<watcher::Event<K>>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let begin = move || watcher(api.clone(), watcher::Config::default()).boxed();
    together.watch(begin).boxed()
}

fn guarded<K>(
    watch: BoxStream<'static, watcher::Result<watcher::Event<DeserializeGuard<K>>>>,
    told: &Arc<Told>,
    is_allow: fn(&K) -> bool,
) -> EventStream<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let mut lenient = Lenient::new(Arc::clone(told), is_allow);
    watch
        .filter_map(move |event| future::ready(lenient.read(event)))
        .boxed()
}

/// Leaves what identity and placement need; a cluster's pods are most of what is held in memory.
fn trim_pod(pod: &mut Pod) {
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        node_name: spec.node_name,
        host_network: spec.host_network,
        service_account_name: spec.service_account_name,
        ..PodSpec::default()
    });
    let is_agent = fleet::is_labelled(pod);
    if let Some(status) = &mut pod.status {
        status.container_statuses = None;
        status.init_container_statuses = None;
        status.ephemeral_container_statuses = None;
        match &mut status.conditions {
            Some(conditions) if is_agent => conditions.retain(|one| one.type_ == fleet::READY),
            conditions => *conditions = None,
        }
    }
}

/// Leaves addresses, ranges and labels: the rest changes with every heartbeat of a kubelet.
fn trim_node(node: &mut Node) {
    node.metadata.annotations = None;
    node.spec = node.spec.take().map(|spec| NodeSpec {
        pod_cidr: spec.pod_cidr,
        pod_cidrs: spec.pod_cidrs,
        ..NodeSpec::default()
    });
    node.status = node.status.take().map(|status| NodeStatus {
        addresses: status.addresses,
        ..NodeStatus::default()
    });
}
