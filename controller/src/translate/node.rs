//! Node → Node of the model.

use std::{net::IpAddr, sync::Arc};

use clusterlink_model::Node;
use ipnet::IpNet;
use k8s_openapi::api::core::v1;

/// The well-known label that names a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// The node; what is no address or range is left out.
pub(crate) fn translate(name: &Arc<str>, node: &v1::Node) -> Node {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref());
    let mut own: Vec<IpAddr> = Vec::new();
    for address in addresses.unwrap_or_default() {
        // Of the types only the addresses parse; the others are names.
        if let Ok(address) = address.address.parse()
            && !own.contains(&address)
        {
            own.push(address);
        }
    }
    let spec = node.spec.as_ref();
    let ranges = spec.and_then(|spec| spec.pod_cidrs.as_deref());
    let first = spec.and_then(|spec| spec.pod_cidr.as_ref());
    let mut pod_ranges: Vec<IpNet> = Vec::new();
    for range in ranges.unwrap_or_default().iter().chain(first) {
        if let Ok(range) = range.parse()
            && !pod_ranges.contains(&range)
        {
            pod_ranges.push(range);
        }
    }
    Node {
        name: Arc::clone(name),
        addresses: own,
        pod_ranges,
        zone: zone(node),
    }
}

/// The zone that a node says it is in.
pub(crate) fn zone(node: &v1::Node) -> Option<Arc<str>> {
    let labels = node.metadata.labels.as_ref()?;
    let zone = labels.get(ZONE).filter(|zone| !zone.is_empty())?;
    Some(zone.as_str().into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_has_addresses_ranges_and_a_zone() {
        let node = json!({
            "metadata": {"labels": {"topology.kubernetes.io/zone": "z1"}},
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/120", "x"]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "2001:db8::1"},
                {"type": "InternalIP", "address": "192.0.2.1"},
            ]},
        });
        let node = translate(&"n1".into(), &serde_json::from_value(node).unwrap());
        let addresses: Vec<_> = node.addresses.iter().map(IpAddr::to_string).collect();
        let ranges: Vec<_> = node.pod_ranges.iter().map(IpNet::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(ranges, ["10.1.0.0/24", "fd00::/120"]);
        assert_eq!(node.zone.as_deref(), Some("z1"));
    }

    #[test]
    fn a_node_that_says_nothing_has_nothing() {
        let node = translate(&"n1".into(), &v1::Node::default());
        assert!(node.addresses.is_empty() && node.pod_ranges.is_empty() && node.zone.is_none());
    }
}
