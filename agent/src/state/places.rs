//! Who has an address, as far as nodes and the controller tell: all that is known of a client of the
//! Service path.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use clusterlink_model::{Client, Node, Workload};
use ipnet::IpNet;

use super::identities::pod;
use crate::control::Found;

/// The nodes' addresses, and the ranges of their pods.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// This node's own addresses.
    own: HashSet<IpAddr>,
    /// The addresses of all nodes.
    nodes: HashSet<IpAddr>,
    pod_ranges: Vec<IpNet>,
}

impl Places {
    /// `this` is the name of this node, `own` are addresses that it is known to have.
    pub(super) fn new(
        nodes: &BTreeMap<Arc<str>, Arc<Node>>,
        this: Option<&str>,
        own: &[IpAddr],
    ) -> Self {
        let mut places = Self {
            own: own.iter().map(IpAddr::to_canonical).collect(),
            ..Self::default()
        };
        for (name, node) in nodes {
            let addresses = || node.addresses.iter().map(IpAddr::to_canonical);
            places.nodes.extend(addresses());
            if Some(&**name) == this {
                places.own.extend(addresses());
            }
            places.pod_ranges.extend(&node.pod_ranges);
        }
        places
    }

    /// Whether pods' addresses come from here.
    pub(super) fn is_in_pod_range(&self, address: IpAddr) -> bool {
        self.pod_ranges.iter().any(|range| range.contains(&address))
    }

    /// Whether an address is this node's own.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.own.contains(&address)
    }

    /// Who has an address; `None` if only the controller may know.
    ///
    /// `workload` is what this node was told of it (the inner `None`: several pods claim it), `found`
    /// what the controller answered. Behind an address of a node may be its own processes, its pods, and
    /// whoever it masquerades; of this node's clients the sockets tell more.
    pub(super) fn client(
        &self,
        address: IpAddr,
        workload: Option<&Option<Arc<Workload>>>,
        found: Option<&Found>,
    ) -> Option<Client> {
        if self.is_own(address) || self.nodes.contains(&address) {
            return Some(Client::Unknown);
        }
        match workload {
            Some(Some(workload)) => return Some(pod(workload)),
            Some(None) => return Some(Client::Unknown),
            None => {}
        }
        let client = match found? {
            Found::Workload(workload) if has(workload, address) => pod(workload),
            Found::Workload(_) | Found::Node => Client::Unknown,
            // Its pod may not have been announced to the controller yet.
            Found::Nothing if self.is_in_pod_range(address) => Client::Unknown,
            Found::Nothing => Client::Outside,
        };
        Some(client)
    }
}

/// Whether an address is a workload's own, and not its node's.
pub(super) fn has(workload: &Workload, address: IpAddr) -> bool {
    !workload.host_network
        && (workload.addresses.iter()).any(|own| own.to_canonical() == address.to_canonical())
}

#[cfg(test)]
mod tests {
    use clusterlink_model::{Labels, ObjectName, WorkloadAttributes};

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn node(name: &str, addresses: &[&str], range: &str) -> (Arc<str>, Arc<Node>) {
        let node = Node {
            name: name.into(),
            addresses: addresses.iter().map(|text| address(text)).collect(),
            pod_ranges: vec![range.parse().unwrap()],
            zone: None,
        };
        (name.into(), Arc::new(node))
    }

    fn workload(at: &str, host_network: bool) -> Arc<Workload> {
        Arc::new(Workload {
            name: ObjectName::new("shop", "web"),
            attributes: Arc::new(WorkloadAttributes {
                namespace: "shop".into(),
                service_account: "default".into(),
                labels: Labels::new(),
            }),
            cgroup: None,
            addresses: vec![address(at)],
            uids: Vec::new(),
            node: None,
            host_network,
        })
    }

    #[test]
    fn an_address_says_who_the_client_is() {
        let nodes = BTreeMap::from([
            node("a", &["192.0.2.1", "fd00::1"], "10.244.1.0/24"),
            node("b", &["192.0.2.2"], "10.244.2.0/24"),
        ]);
        let places = Places::new(&nodes, Some("a"), &[address("192.0.2.9")]);
        let there = |at| Some(Found::Workload(workload(at, false)));
        let (nobody, several) = (None, Some(None));
        let told = |at| Some(Some(workload(at, false)));
        let is_pod = "pod";
        for (name, at, workload, found, expected) in [
            ("loopback", "127.0.0.1", nobody.clone(), None, "unknown"),
            ("this node", "192.0.2.1", nobody.clone(), None, "unknown"),
            (
                "as configured",
                "192.0.2.9",
                nobody.clone(),
                None,
                "unknown",
            ),
            ("another node", "192.0.2.2", nobody.clone(), None, "unknown"),
            (
                "another node that a pod claims",
                "192.0.2.2",
                told("192.0.2.2"),
                there("192.0.2.2"),
                "unknown",
            ),
            ("a pod", "10.244.1.5", told("10.244.1.5"), None, is_pod),
            ("two pods", "10.244.1.5", several.clone(), None, "unknown"),
            ("not told", "10.244.2.5", nobody.clone(), None, "ask"),
            (
                "a pod, as the controller says",
                "10.244.2.5",
                nobody.clone(),
                there("10.244.2.5"),
                is_pod,
            ),
            (
                "a pod without this address",
                "10.244.2.5",
                nobody.clone(),
                there("10.244.2.6"),
                "unknown",
            ),
            (
                "a pod of a node's network",
                "198.51.100.1",
                nobody.clone(),
                Some(Found::Workload(workload("198.51.100.1", true))),
                "unknown",
            ),
            (
                "a node that is new",
                "192.0.2.3",
                nobody.clone(),
                Some(Found::Node),
                "unknown",
            ),
            (
                "nobody in the pods' ranges",
                "10.244.2.5",
                nobody.clone(),
                Some(Found::Nothing),
                "unknown",
            ),
            (
                "nobody elsewhere",
                "198.51.100.1",
                nobody.clone(),
                Some(Found::Nothing),
                "outside",
            ),
        ] {
            let client = places.client(address(at), workload.as_ref(), found.as_ref());
            let shown = match client {
                Some(Client::Pod { .. }) => is_pod,
                Some(Client::Host) => panic!("{name}: no address says so"),
                Some(Client::Outside) => "outside",
                Some(Client::Unknown) => "unknown",
                None => "ask",
            };
            assert_eq!(shown, expected, "{name}: {at}");
        }
        for (at, own) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("192.0.2.1", true),
            ("fd00::1", true),
            ("192.0.2.9", true),
            ("192.0.2.2", false),
            ("10.244.1.5", false),
        ] {
            assert_eq!(places.is_own(address(at)), own, "{at}");
        }
    }
}
