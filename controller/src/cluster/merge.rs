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
mod tests {
    use clusterlink_model::PeerName;
    use clusterlink_proto::PeerReport;
    use serde_json::{Value, json};

    use super::*;

    fn import(annotation: Option<&str>) -> Import {
        let mut import = json!({
            "apiVersion": "clusterlink.net/v1alpha1", "kind": "Import",
            "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"port": 80, "sources": []},
        });
        if let Some(text) = annotation {
            import["metadata"]["annotations"] =
                json!({"import.clusterlink.net/merge-endpoints": text});
        }
        serde_json::from_value(import).unwrap()
    }

    fn service(spec: &Value) -> Service {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn endpoints(family: &str, count: usize) -> Arc<EndpointSlice> {
        let endpoints: Vec<_> = (0..count)
            .map(|n| json!({"addresses": [n.to_string()], "conditions": {"ready": n != 0}}))
            .collect();
        let slice = json!({"addressType": family, "endpoints": endpoints});
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    #[test]
    fn the_service_decides_whether_and_under_which_port_name_an_import_joins() {
        let name = ObjectName::new("ns", "web");
        let address = "10.96.0.7";
        let dual = ["IPv4", "IPv6"];
        let cases = [
            ("missing", None, Err(reasons::MERGE_SERVICE_NOT_FOUND)),
            (
                "headless",
                Some(json!({"clusterIP": "None", "ports": [{"port": 80}]})),
                Err(reasons::MERGE_SERVICE_HEADLESS),
            ),
            (
                "ExternalName",
                Some(
                    json!({"type": "ExternalName", "externalName": "a.b", "ports": [{"port": 80}]}),
                ),
                Err(reasons::MERGE_SERVICE_HEADLESS),
            ),
            (
                "another port",
                Some(json!({"clusterIP": address, "ports": [{"port": 81}]})),
                Err(reasons::PORT_NOT_FOUND),
            ),
            (
                "UDP",
                Some(json!({"clusterIP": address, "ports": [{"port": 80, "protocol": "UDP"}]})),
                Err(reasons::PORT_NOT_FOUND),
            ),
            (
                "no name",
                Some(json!({"clusterIP": address, "ports": [{"port": 80}]})),
                Ok(("", vec![true])),
            ),
            (
                "named, dual stack",
                Some(
                    json!({"clusterIP": address, "ipFamilies": dual, "ports": [{"port": 81}, {"port": 80, "name": "http"}]}),
                ),
                Ok(("http", vec![true, false])),
            ),
            (
                "NodePort, IPv6",
                Some(json!({"type": "NodePort", "clusterIP": "fd00::7", "ports": [{"port": 80}]})),
                Ok(("", vec![false])),
            ),
        ];
        for (what, spec, wanted) in cases {
            let service = spec.as_ref().map(service);
            let found = join(&name, &import(None), service.as_ref(), &[]);
            let found = found
                .as_ref()
                .map(|joined| (joined.port_name.as_str(), joined.families.clone()));
            assert_eq!(found.map_err(|(reason, _)| *reason), wanted, "{what}");
        }
    }

    #[test]
    fn about_half_of_the_endpoints_are_agents() {
        // The first endpoint of each slice is not ready.
        for (annotation, ipv4, ipv6, wanted, remarks) in [
            (None, 0, 0, 2, false),
            (None, 2, 0, 2, false),
            (None, 6, 6, 5, false),
            (None, 3, 9, 8, false),
            (None, 40, 0, 16, false),
            (Some("1"), 6, 0, 1, false),
            (Some("40"), 6, 0, 40, false),
            (Some("0"), 6, 0, 5, true),
            (Some("many"), 6, 0, 5, true),
        ] {
            let others = [endpoints("IPv4", ipv4), endpoints("IPv6", ipv6)];
            let (count, remark) = count(&import(annotation), &others);
            assert_eq!(
                (count, !remark.is_empty()),
                (wanted, remarks),
                "{annotation:?} {ipv4} {ipv6}"
            );
        }
    }

    #[test]
    fn a_source_is_usable_where_its_peer_is_reached() {
        let [east, west] = ["east", "west"].map(|name| PeerName::new(name).unwrap());
        let report = NodeReport {
            peers: [(&east, true), (&west, false)]
                .map(|(name, reachable)| PeerReport {
                    name: name.clone(),
                    reachable,
                    rtt: None,
                    last_seen_ms: None,
                    software: None,
                    labels: Default::default(),
                    error: None,
                })
                .into(),
            ..NodeReport::default()
        };
        let from = |peer: &PeerName| Source {
            peer: peer.clone(),
            export: ObjectName::new("ns", "web"),
        };
        for (sources, wanted) in [
            (vec![], false),
            (vec![from(&west)], false),
            (vec![from(&west), from(&east)], true),
        ] {
            assert_eq!(is_usable(&sources, &report), wanted, "{sources:?}");
        }
    }
}
