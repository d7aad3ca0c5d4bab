//! The EndpointSlices of an Import: one set for each address family, with agents as endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    sync::Arc,
};

use clusterlink_crds::labels;
use clusterlink_model::ObjectName;
use k8s_openapi::{
    api::{
        core::v1::Service,
        discovery::v1::{
            Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode,
            ForZone,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Map, Value, json};

use super::{fleet::Agent, ownership, service::based_on};

/// How many endpoints a slice holds, as in the slices of Kubernetes' own controller.
const LARGEST: usize = 100;
/// How many nodes are noted as left out at most: names are up to 253 bytes long, and all annotations of an
/// object 256 KiB.
const MOST_NOTED: usize = 500;

/// What the slices of an Import are made from.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) import: &'a ObjectName,
    pub(crate) uid: &'a str,
    /// The families of the Service: whether each is IPv4.
    pub(crate) families: Vec<bool>,
    /// The name of the Service's port, which links it with the port of a slice.
    pub(crate) port_name: &'a str,
    pub(crate) target_port: NonZeroU16,
    /// The agents, and whether each may be given connections.
    pub(crate) endpoints: Vec<(&'a Agent, bool)>,
    /// Agents that reject the Import, in the order of their nodes.
    pub(crate) left_out: Vec<&'a Agent>,
}

impl Wanted<'_> {
    /// The slices by name. Each family has at least one, which may be empty.
    pub(crate) fn slices(&self) -> Vec<EndpointSlice> {
        let mut slices = Vec::new();
        for ipv4 in &self.families {
            let mut endpoints = self.endpoints(*ipv4);
            let mut number = 0;
            loop {
                let rest = endpoints.split_off(endpoints.len().min(LARGEST));
                slices.push(self.slice(*ipv4, number, endpoints));
                if rest.is_empty() {
                    break;
                }
                endpoints = rest;
                number += 1;
            }
        }
        slices
    }

    fn slice(&self, ipv4: bool, number: usize, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let family = if ipv4 { "ipv4" } else { "ipv6" };
        let mut name = format!("{}-clusterlink-{family}", self.import.name);
        if number > 0 {
            name = format!("{name}-{number}");
        }
        let own = [
            (labels::SERVICE_NAME, self.import.name.to_string()),
            (
                labels::ENDPOINT_SLICE_MANAGED_BY,
                labels::MANAGER.to_owned(),
            ),
        ];
        let all = own.into_iter().chain(ownership::import_labels(self.import));
        EndpointSlice {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(self.import.namespace.to_string()),
                labels: Some(all.map(|(key, value)| (key.to_owned(), value)).collect()),
                annotations: self.note(),
                owner_references: Some(vec![ownership::reference(self.import, self.uid, true)]),
                ..ObjectMeta::default()
            },
            address_type: if ipv4 { "IPv4" } else { "IPv6" }.to_owned(),
            endpoints: Some(endpoints),
            ports: Some(vec![EndpointPort {
                name: Some(self.port_name.to_owned()),
                port: Some(self.target_port.get().into()),
                protocol: Some("TCP".to_owned()),
                app_protocol: None,
            }]),
        }
    }

    fn note(&self) -> Option<BTreeMap<String, String>> {
        let nodes = self.left_out.iter().take(MOST_NOTED);
        let nodes: Vec<_> = nodes.map(|agent| &*agent.node).collect();
        (!nodes.is_empty()).then(|| [(labels::LEFT_OUT.to_owned(), nodes.join(","))].into())
    }

    fn endpoints(&self, ipv4: bool) -> Vec<Endpoint> {
        let endpoint = |(agent, ready): &(&Agent, bool)| {
            let zone = agent.zone.as_deref().map(str::to_owned);
            let for_zones = zone.clone().map(|name| vec![ForZone { name }]);
            Some(Endpoint {
                addresses: vec![agent.address(ipv4)?.to_string()],
                conditions: Some(EndpointConditions {
                    ready: Some(*ready && agent.serves()),
                    serving: Some(*ready && agent.ready),
                    terminating: Some(agent.terminating),
                }),
                node_name: Some(agent.node.to_string()),
                hints: Some(EndpointHints {
                    for_nodes: Some(vec![ForNode {
                        name: agent.node.to_string(),
                    }]),
                    for_zones,
                }),
                zone,
                ..Endpoint::default()
            })
        };
        self.endpoints.iter().filter_map(endpoint).collect()
    }
}

/// What has to change of a slice; `None` if nothing has to.
pub(crate) fn correct(observed: &EndpointSlice, wanted: &EndpointSlice) -> Option<Value> {
    let mut metadata = Map::new();
    let present = observed.metadata.labels.as_ref();
    let missing: BTreeMap<_, _> = wanted
        .metadata
        .labels
        .iter()
        .flatten()
        .filter(|(key, value)| present.and_then(|all| all.get(*key)) != Some(value))
        .collect();
    if !missing.is_empty() {
        metadata.insert("labels".to_owned(), json!(missing));
    }
    if note(observed) != note(wanted) {
        let note = json!({labels::LEFT_OUT: note(wanted)});
        metadata.insert("annotations".to_owned(), note);
    }
    if observed.metadata.owner_references != wanted.metadata.owner_references {
        let owners = json!(wanted.metadata.owner_references);
        metadata.insert("ownerReferences".to_owned(), owners);
    }
    let ports = (observed.ports != wanted.ports).then(|| json!(wanted.ports));
    let endpoints = (!same_endpoints(observed, wanted)).then(|| json!(wanted.endpoints));
    if metadata.is_empty() && ports.is_none() && endpoints.is_none() {
        return None;
    }
    let mut patch = based_on(&observed.metadata, metadata);
    if let Some(ports) = ports {
        patch["ports"] = ports;
    }
    if let Some(endpoints) = endpoints {
        patch["endpoints"] = endpoints;
    }
    Some(patch)
}

/// The nodes that an Import's slices say are left out.
pub(crate) fn left_out(slices: &[Arc<EndpointSlice>]) -> BTreeSet<Arc<str>> {
    let notes = slices.iter().filter_map(|slice| note(slice));
    let nodes = notes.flat_map(|note| note.split(','));
    nodes
        .filter(|node| !node.is_empty())
        .map(Into::into)
        .collect()
}

fn note(slice: &EndpointSlice) -> Option<&String> {
    slice.metadata.annotations.as_ref()?.get(labels::LEFT_OUT)
}

/// The families of a Service: whether each is IPv4.
pub(crate) fn families(service: &Service) -> Vec<bool> {
    let spec = service.spec.as_ref();
    let named = spec
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    if named.is_empty() {
        let addresses = super::service::addresses(service);
        return addresses.iter().map(std::net::IpAddr::is_ipv4).collect();
    }
    named.iter().map(|family| family == "IPv4").collect()
}

/// An API server that is older than `hints.forNodes` drops it, which is no reason to write again.
fn same_endpoints(observed: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let observed = observed.endpoints.as_deref().unwrap_or_default();
    let wanted = wanted.endpoints.as_deref().unwrap_or_default();
    let nodes_known = observed
        .iter()
        .any(|endpoint| for_nodes(endpoint).is_some());
    if nodes_known {
        return observed == wanted;
    }
    let without_nodes = |endpoint: &Endpoint| {
        let mut endpoint = endpoint.clone();
        let zones = endpoint.hints.take().and_then(|hints| hints.for_zones);
        endpoint.hints = zones.map(|for_zones| EndpointHints {
            for_zones: Some(for_zones),
            for_nodes: None,
        });
        endpoint
    };
    observed.len() == wanted.len()
        && observed
            .iter()
            .zip(wanted)
            .all(|(one, other)| without_nodes(one) == without_nodes(other))
}

fn for_nodes(endpoint: &Endpoint) -> Option<&Vec<ForNode>> {
    endpoint.hints.as_ref()?.for_nodes.as_ref()
}

#[cfg(test)]
mod tests;
