//! Imports that join a Service of the cluster instead of getting one of their own.

use std::{collections::BTreeSet, sync::Arc};

use clusterlink_crds::{Import, conditions::reasons, labels};
use clusterlink_model::{ObjectName, Source};
use clusterlink_proto::NodeReport;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use super::{placement::MOST, slices};

/// The smallest number of agents behind a Service: the loss of one must not be that of all.
const LEAST: usize = 2;
/// What the annotation may ask for, as many as a slice holds.
const ANNOTATED_MOST: usize = 100;

/// How an Import's slices join the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) port_name: String,
    pub(crate) families: Vec<bool>,
    /// How many agents stand beside the local endpoints.
    pub(crate) count: usize,
    /// What the user should know; empty if nothing.
    pub(crate) remark: String,
}

/// Why an Import cannot join: the reason, and the text for people.
pub(crate) type Refusal = (&'static str, String);

/// Judges the Service of the Import's name; `others` are its slices that are not ours.
pub(crate) fn join(
    name: &ObjectName,
    import: &Import,
    service: Option<&Service>,
    others: &[Arc<EndpointSlice>],
) -> Result<Joined, Refusal> {
    let Some(service) = service else {
        let message = format!(
            "no Service {name} exists to merge into: create it, or remove the label {}",
            labels::IMPORT_MERGE
        );
        return Err((reasons::MERGE_SERVICE_NOT_FOUND, message));
    };
    if super::service::addresses(service).is_empty() {
        let message = format!(
            "Service {name} is headless or of type ExternalName, so no endpoints can join it: give it a cluster address, or remove the label {}",
            labels::IMPORT_MERGE
        );
        return Err((reasons::MERGE_SERVICE_HEADLESS, message));
    }
    let spec = service.spec.as_ref();
    let ports = spec
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let wanted = i32::from(import.spec.port);
    let port = ports
        .iter()
        .find(|port| port.port == wanted && matches!(port.protocol.as_deref(), None | Some("TCP")));
    let Some(port) = port else {
        let message = format!(
            "Service {name} has no TCP port {wanted}: change spec.port of the Import, or add the port to the Service"
        );
        return Err((reasons::PORT_NOT_FOUND, message));
    };
    let (count, remark) = count(import, others);
    Ok(Joined {
        port_name: port.name.clone().unwrap_or_default(),
        families: slices::families(service),
        count,
        remark,
    })
}

/// Whether some source can be reached from the node that says this. What a peer answered when it
/// was last asked does not count: without connections nobody would ask again.
pub(crate) fn is_usable(sources: &[Source], report: &NodeReport) -> bool {
    let reachable: BTreeSet<_> = report
        .peers
        .iter()
        .filter(|peer| peer.reachable)
        .map(|peer| &peer.name)
        .collect();
    sources
        .iter()
        .any(|source| reachable.contains(&source.peer))
}

/// As many agents as the Service has endpoints of its own, so that about half of the connections
/// go to other peers.
fn count(import: &Import, others: &[Arc<EndpointSlice>]) -> (usize, String) {
    let annotations = import.metadata.annotations.as_ref();
    let mut remark = String::new();
    if let Some(text) = annotations.and_then(|all| all.get(labels::MERGE_ENDPOINTS)) {
        match text.parse() {
            Ok(count) if (1..=ANNOTATED_MOST).contains(&count) => return (count, remark),
            _ => {
                remark = format!(
                    "annotation {} is {text:?}, which is no number from 1 to {ANNOTATED_MOST}, and is ignored",
                    labels::MERGE_ENDPOINTS
                );
            }
        }
    }
    // An endpoint of a dual-stack Service is in a slice of each family.
    let local = ["IPv4", "IPv6"].map(|family| ready(others, family).len());
    let [ipv4, ipv6] = local;
    (ipv4.max(ipv6).clamp(LEAST, MOST), remark)
}

fn ready<'a>(slices: &'a [Arc<EndpointSlice>], family: &str) -> BTreeSet<&'a str> {
    slices
        .iter()
        .filter(|slice| slice.address_type == family)
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|all| all.ready).unwrap_or(true)
        })
        .filter_map(|endpoint| endpoint.addresses.first().map(String::as_str))
        .collect()
}

#[cfg(test)]
mod tests;
