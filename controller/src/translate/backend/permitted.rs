//! Which addresses an Export of a cluster may be delivered to. The gateway runs on the node's network
//! and must not lend what the node may reach; it checks again at every dial what only the node knows.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

/// What is known of an address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place<'a> {
    /// The pods that have it.
    pub(crate) pods: Vec<Occupant<'a>>,
    /// The node whose own it is.
    pub(crate) node: Option<&'a str>,
    /// It is one of the API server's.
    pub(crate) api_server: bool,
}

/// A pod at an address.
#[derive(Clone, Debug)]
pub(crate) struct Occupant<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) labels: Option<&'a BTreeMap<String, String>>,
}

/// The Service that an Export names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backed<'a> {
    pub(crate) namespace: &'a str,
    /// Absent or empty for a Service whose slices somebody else keeps.
    pub(crate) selector: Option<&'a BTreeMap<String, String>>,
}

/// Why connections may not be delivered to an address; `None` if they may.
pub(crate) fn refusal(
    address: IpAddr,
    service: Backed<'_>,
    place: &Place<'_>,
    allowed: &[IpNet],
) -> Option<String> {
    let address = address.to_canonical();
    if place.pods.iter().any(|pod| backs(pod, service)) {
        return None;
    }
    if allowed.iter().any(|range| range.contains(&address)) {
        return None;
    }
    if let Some(class) = special(address) {
        return Some(format!("is {class}"));
    }
    if let Some(node) = place.node {
        return Some(format!("is that of node {node}"));
    }
    if place.api_server {
        return Some("is that of the API server".to_owned());
    }
    let stranger = place
        .pods
        .iter()
        .find(|pod| pod.namespace != service.namespace)?;
    Some(format!(
        "is that of Pod {}/{} in another namespace",
        stranger.namespace, stranger.name
    ))
}

/// Whether a pod is one that the Service stands for.
fn backs(pod: &Occupant<'_>, service: Backed<'_>) -> bool {
    let selector = service.selector.into_iter().flatten();
    pod.namespace == service.namespace
        && selector
            .into_iter()
            .all(|(key, value)| pod.labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Addresses that mean something else on every node.
fn special(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        Some("unspecified")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if link_local {
        Some("a link-local address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_reaches_its_own_pods_and_nothing_that_only_the_node_may() {
        let web: BTreeMap<_, _> = [("app".to_owned(), "web".to_owned())].into();
        let db: BTreeMap<_, _> = [("app".to_owned(), "db".to_owned())].into();
        let pod = |namespace, labels| Occupant {
            namespace,
            name: "p",
            labels: Some(labels),
        };
        let place = |pods, node, api_server| Place {
            pods,
            node,
            api_server,
        };
        let node = Some("n1");
        type Row<'a> = (
            &'static str,
            &'static str,
            Place<'a>,
            bool,
            Option<&'static str>,
        );
        let rows: Vec<Row<'_>> = vec![
            (
                "its pod",
                "10.1.0.1",
                place(vec![pod("ns", &web)], None, false),
                true,
                None,
            ),
            (
                "its pod on the host network",
                "192.0.2.1",
                place(vec![pod("kube", &db), pod("ns", &web)], node, false),
                true,
                None,
            ),
            (
                "a pod of its namespace on the host network that it does not select",
                "192.0.2.1",
                place(vec![pod("ns", &db)], node, false),
                true,
                Some("is that of node n1"),
            ),
            (
                "the same without a selector",
                "192.0.2.1",
                place(vec![pod("ns", &db)], node, false),
                false,
                None,
            ),
            (
                "another pod of its namespace",
                "10.1.0.1",
                place(vec![pod("ns", &db)], None, false),
                true,
                None,
            ),
            (
                "a pod of another namespace",
                "10.1.0.1",
                place(vec![pod("kube", &web)], None, false),
                true,
                Some("is that of Pod kube/p in another namespace"),
            ),
            (
                "a node",
                "192.0.2.1",
                place(vec![], node, false),
                false,
                Some("is that of node n1"),
            ),
            (
                "the API server",
                "192.0.2.9",
                place(vec![], None, true),
                false,
                Some("is that of the API server"),
            ),
            (
                "outside of the cluster",
                "198.51.100.1",
                place(vec![], None, false),
                false,
                None,
            ),
            (
                "loopback",
                "127.0.0.53",
                place(vec![], None, false),
                false,
                Some("is a loopback address"),
            ),
            (
                "loopback, IPv6",
                "::1",
                place(vec![], None, false),
                false,
                Some("is a loopback address"),
            ),
            (
                "loopback in disguise",
                "::ffff:127.0.0.1",
                place(vec![], None, false),
                false,
                Some("is a loopback address"),
            ),
            (
                "cloud metadata",
                "169.254.169.254",
                place(vec![], None, false),
                false,
                Some("is a link-local address"),
            ),
            (
                "link-local, IPv6",
                "fe80::1",
                place(vec![], None, false),
                false,
                Some("is a link-local address"),
            ),
            (
                "multicast",
                "224.0.0.1",
                place(vec![], None, false),
                false,
                Some("is a multicast address"),
            ),
            (
                "multicast, IPv6",
                "ff02::1",
                place(vec![], None, false),
                false,
                Some("is a multicast address"),
            ),
            (
                "broadcast",
                "255.255.255.255",
                place(vec![], None, false),
                false,
                Some("is a link-local address"),
            ),
            (
                "unspecified",
                "0.0.0.0",
                place(vec![], None, false),
                false,
                Some("is unspecified"),
            ),
            (
                "unspecified, IPv6",
                "::",
                place(vec![], None, false),
                false,
                Some("is unspecified"),
            ),
        ];
        for (what, address, place, selects, wanted) in rows {
            let service = Backed {
                namespace: "ns",
                selector: selects.then_some(&web),
            };
            let address: IpAddr = address.parse().unwrap();
            let found = refusal(address, service, &place, &[]);
            assert_eq!(found.as_deref(), wanted, "{what}");
            let all = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
            assert_eq!(
                refusal(address, service, &place, &all),
                None,
                "{what}, allowed"
            );
        }
    }
}
