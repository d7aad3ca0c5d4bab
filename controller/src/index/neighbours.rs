//! Who has which address in a cluster, so that no Export is delivered to what is not its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use clusterlink_crds::conditions::{EXPORT_VALID, reasons};
use clusterlink_model::{Backend, Export, ObjectName};
use k8s_openapi::api::core::v1::{Pod, Service};

use super::{Index, Links, Provider, store::Changed};
use crate::{
    cluster::service_addresses,
    status::Finding,
    translate::{
        backend::permitted::{self, Backed, Occupant, Place},
        node,
    },
};

/// The Service of the API server, and its slices, are known by this name.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// Addresses of pods, nodes and the API server, and the Exports that they matter to.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    pods: Links<IpAddr>,
    nodes: BTreeMap<IpAddr, Arc<str>>,
    api_server: BTreeSet<IpAddr>,
    exports: Links<IpAddr>,
    delivered: BTreeMap<ObjectName, BTreeSet<IpAddr>>,
}

impl Index {
    /// Notes a pod's addresses, and the Exports that are to be looked at again for them.
    pub(super) fn pod_moved(&mut self, changed: &Changed<Pod>) {
        if !self.judges_backends() {
            return;
        }
        let addresses =
            |pod: &Option<Arc<Pod>>| pod.as_deref().map(pod_addresses).unwrap_or_default();
        let (old, new) = (addresses(&changed.old), addresses(&changed.new));
        let neighbours = &mut self.neighbours;
        neighbours.pods.relink_all(&changed.name, &old, &new);
        for address in old.union(&new) {
            let exports = neighbours.exports.get(address).cloned();
            self.dirty.exports.extend(exports);
        }
    }

    /// Notes the addresses of all nodes and of the API server.
    pub(super) fn settle_neighbours(&mut self) {
        if !std::mem::take(&mut self.dirty.neighbours) || !self.judges_backends() {
            return;
        }
        let nodes = self.nodes.iter().flat_map(|(object, node)| {
            let node = node::translate(&object.name, node);
            let addresses = node.addresses.into_iter();
            addresses
                .map(|address| (address, Arc::clone(&object.name)))
                .collect::<Vec<_>>()
        });
        let nodes = nodes.collect();
        let name = ObjectName::new(API_SERVER.0, API_SERVER.1);
        let service = self.services.get(&name);
        let mut api_server: BTreeSet<IpAddr> = service
            .into_iter()
            .flat_map(|service| service_addresses(service))
            .collect();
        for slice in self.slices_by_service.get(&name) {
            let slice = self.endpoint_slices.get(slice);
            let endpoints = slice
                .into_iter()
                .flat_map(|slice| slice.endpoints.iter().flatten());
            let texts = endpoints.flat_map(|endpoint| &endpoint.addresses);
            api_server.extend(texts.filter_map(|text| text.parse::<IpAddr>().ok()));
        }
        let neighbours = &mut self.neighbours;
        if neighbours.nodes != nodes || neighbours.api_server != api_server {
            neighbours.nodes = nodes;
            neighbours.api_server = api_server;
            self.dirty.exports.extend(self.exports.names().cloned());
        }
    }

    /// Whether an object of that name says where the API server is.
    pub(super) fn is_api_server(name: &ObjectName) -> bool {
        (&*name.namespace, &*name.name) == API_SERVER
    }

    /// Takes out the endpoints that connections may not be delivered to, and says which.
    pub(super) fn permit(
        &mut self,
        name: &ObjectName,
        service: Option<&Service>,
        export: &mut Export,
        finding: &mut Finding,
    ) {
        let Provider::Cluster(cluster) = &self.provider else {
            return;
        };
        let mut addresses = BTreeSet::new();
        if let (Some(service), Backend::Endpoints(endpoints)) = (service, &mut export.backend) {
            let spec = service.spec.as_ref();
            let backed = Backed {
                namespace: &name.namespace,
                selector: spec.and_then(|spec| spec.selector.as_ref()),
            };
            let mut refused = None;
            endpoints.retain(|endpoint| {
                // An IPv4 address may be written as an IPv6 one.
                let address = endpoint.address.ip().to_canonical();
                addresses.insert(address);
                let place = place(&self.neighbours, &self.pods, address);
                let why = permitted::refusal(address, backed, &place, cluster.allowed_backends());
                let permitted = why.is_none();
                refused = refused
                    .take()
                    .or(why.map(|why| format!("endpoint {address} {why}")));
                permitted
            });
            if let Some(refused) = refused {
                explain(name, endpoints.is_empty(), &refused, finding);
            }
        }
        let before = self.neighbours.delivered.remove(name).unwrap_or_default();
        self.neighbours
            .exports
            .relink_all(name, &before, &addresses);
        if !addresses.is_empty() {
            self.neighbours.delivered.insert(name.clone(), addresses);
        }
    }

    /// An Export is gone.
    pub(super) fn withdraw(&mut self, name: &ObjectName) {
        if let Some(before) = self.neighbours.delivered.remove(name) {
            self.neighbours
                .exports
                .relink_all(name, &before, &BTreeSet::new());
        }
    }

    fn judges_backends(&self) -> bool {
        matches!(self.provider, Provider::Cluster(_))
    }
}

fn explain(name: &ObjectName, all: bool, refused: &str, finding: &mut Finding) {
    let cure =
        "export a Service of pods in its own namespace, or let an administrator allow the range";
    if all {
        let message =
            format!("Export {name}: connections may not be delivered there: {refused}: {cure}");
        *finding = Finding::invalid(EXPORT_VALID, reasons::ENDPOINTS_REFUSED, message);
    } else {
        finding.message = format!("{refused}, and is left out: {cure}");
    }
}

fn place<'a>(
    neighbours: &'a Neighbours,
    pods: &'a super::Store<Pod>,
    address: IpAddr,
) -> Place<'a> {
    let occupants = neighbours.pods.get(&address).filter_map(|name| {
        Some(Occupant {
            namespace: &name.namespace,
            name: &name.name,
            labels: pods.get(name)?.metadata.labels.as_ref(),
        })
    });
    Place {
        pods: occupants.collect(),
        node: neighbours.nodes.get(&address).map(|node| &**node),
        api_server: neighbours.api_server.contains(&address),
    }
}

/// The addresses of a pod that has not ended, those of its node if it is in the host network.
fn pod_addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let Some(status) = &pod.status else {
        return BTreeSet::new();
    };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return BTreeSet::new();
    }
    let all = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    all.chain(&status.pod_ip)
        .filter_map(|text| text.parse().ok())
        .collect()
}
