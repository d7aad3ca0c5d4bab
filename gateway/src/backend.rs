//! Dials the backend of an export.

use std::{
    borrow::Cow,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clusterlink_model::{Backend, Export};
use tokio::{net::TcpStream, time::timeout};

use crate::view::{DialRules, View};

/// How long one backend may take to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// How many backends are tried for one connection.
const TRIES: usize = 3;

/// Why no backend took the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackendError {
    #[error("export {export}: no ready endpoint")]
    NoEndpoint { export: String },
    #[error("export {export}: {reason}")]
    Unavailable { export: String, reason: String },
    #[error("export {export}: cannot resolve {host}")]
    Resolve {
        export: String,
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("export {export}: {address} may not be a backend: it is {class}")]
    Refused {
        export: String,
        address: IpAddr,
        class: Cow<'static, str>,
    },
    #[error("export {export}: cannot reach {address}")]
    Dial {
        export: String,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

impl BackendError {
    /// Whether a backend exists but did not take the connection.
    pub(crate) fn is_dial(&self) -> bool {
        matches!(self, Self::Dial { .. })
    }
}

/// Dials one of the export's backends; `random` picks where to begin.
pub(crate) async fn dial(
    export: &Export,
    view: &View,
    random: u64,
) -> Result<(TcpStream, SocketAddr), BackendError> {
    let name = || export.name.to_string();
    let addresses: Vec<SocketAddr> = match &export.backend {
        Backend::Endpoints(endpoints) => endpoints.iter().map(|e| e.address).collect(),
        Backend::Name(target) => tokio::net::lookup_host((target.host.as_ref(), target.port.get()))
            .await
            .map_err(|source| BackendError::Resolve {
                export: name(),
                host: target.host.to_string(),
                source,
            })?
            .collect(),
        Backend::Import(import) => {
            return Err(BackendError::Unavailable {
                export: name(),
                reason: format!("it names Import {import}; relaying imports is not supported yet"),
            });
        }
        Backend::Unavailable(reason) => {
            return Err(BackendError::Unavailable {
                export: name(),
                reason: reason.to_string(),
            });
        }
    };
    if addresses.is_empty() {
        return Err(BackendError::NoEndpoint { export: name() });
    }
    let first = usize::try_from(random % addresses.len() as u64).unwrap_or(0);
    let order = addresses
        .iter()
        .cycle()
        .skip(first)
        .take(addresses.len().min(TRIES));
    let mut failure = None;
    for &address in order {
        let named = matches!(export.backend, Backend::Name(_));
        if let Some(class) = refused(address.ip(), named, view) {
            // A refusal by rule is a matter for the operator: it is told rather than another failure.
            failure = Some(BackendError::Refused {
                export: name(),
                address: address.ip(),
                class,
            });
            continue;
        }
        match dial_one(&name, address).await {
            Ok(socket) => return Ok((socket, address)),
            Err(error) => drop(failure.get_or_insert(error)),
        }
    }
    Err(failure.unwrap_or_else(|| BackendError::NoEndpoint { export: name() }))
}

async fn dial_one(
    export: &impl Fn() -> String,
    address: SocketAddr,
) -> Result<TcpStream, BackendError> {
    let failed = |source| BackendError::Dial {
        export: export(),
        address,
        source,
    };
    match timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| failed(explain(error))),
        Err(_) => Err(failed(io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer within 3 s; is a network policy or firewall in the way?",
        ))),
    }
}

/// Names the usual cause of errors that speak of something else.
fn explain(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        return io::Error::new(
            error.kind(),
            "this host has no free port left towards the backend (net.ipv4.ip_local_port_range)",
        );
    }
    error
}

/// Why an address may not be dialled: the gateway must not lend its host's rights. A `named` one is what
/// a name resolves to; it backs no Service of the export's namespace, so pods and nodes are none of its
/// business. An endpoint may well be a pod, of the node's own network too: which one it is, the controller
/// knows.
fn refused(address: IpAddr, named: bool, view: &View) -> Option<Cow<'static, str>> {
    let address = address.to_canonical();
    let rules = &view.dial_rules;
    if let Some(class) = refused_class(address, rules) {
        return Some(class.into());
    }
    if !named || rules.allow.iter().any(|range| range.contains(&address)) {
        return None;
    }
    for node in view.snapshot.nodes.values() {
        if (node.addresses.iter()).any(|own| own.to_canonical() == address) {
            return Some(format!("an address of node {}", node.name).into());
        }
        if node.pod_ranges.iter().any(|range| range.contains(&address)) {
            return Some(format!("in the pod range of node {}", node.name).into());
        }
    }
    let range = rules.refuse.iter().find(|range| range.contains(&address))?;
    Some(format!("in {range}, which no name may resolve to").into())
}

/// Which of the classes an address is in that no host lends.
fn refused_class(address: IpAddr, rules: &DialRules) -> Option<&'static str> {
    let allowed = rules.allow.iter().any(|range| range.contains(&address));
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() {
        Some("unspecified")
    } else if address.is_multicast() {
        Some("multicast")
    } else if broadcast {
        Some("broadcast")
    } else if allowed {
        None
    } else if link_local {
        Some("link-local")
    } else if address.is_loopback() && !rules.allow_local {
        Some("loopback")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clusterlink_model::{Labels, LocalPeer, Node, PeerName, Snapshot};

    use super::*;

    #[test]
    fn addresses_that_lend_the_hosts_rights_are_refused() {
        let local = DialRules {
            allow_local: true,
            ..DialRules::default()
        };
        let strict = DialRules::default();
        let opened = DialRules {
            allow: ["169.254.169.254/32".parse().unwrap()].into(),
            ..DialRules::default()
        };
        for (address, rules, expected) in [
            ("169.254.169.254", &opened, None),
            ("169.254.169.253", &opened, Some("link-local")),
            ("224.0.0.1", &opened, Some("multicast")),
            ("10.0.0.1", &strict, None),
            ("fd00::1", &strict, None),
            ("127.0.0.1", &strict, Some("loopback")),
            ("::1", &strict, Some("loopback")),
            ("::ffff:127.0.0.1", &strict, Some("loopback")),
            ("127.0.0.1", &local, None),
            ("169.254.169.254", &local, Some("link-local")),
            ("::ffff:169.254.169.254", &local, Some("link-local")),
            ("fe80::1", &local, Some("link-local")),
            ("0.0.0.0", &local, Some("unspecified")),
            ("::", &local, Some("unspecified")),
            ("224.0.0.1", &local, Some("multicast")),
            ("ff02::1", &local, Some("multicast")),
            ("255.255.255.255", &local, Some("broadcast")),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let view = view(rules.clone());
            for named in [false, true] {
                let why = refused(address, named, &view);
                assert_eq!(why.as_deref(), expected, "{address}, named: {named}");
            }
        }
    }

    #[test]
    fn a_name_leads_to_no_pod_and_no_node_and_an_endpoint_may() {
        let strict = DialRules {
            refuse: ["10.96.0.0/12".parse().unwrap()].into(),
            ..DialRules::default()
        };
        let opened = DialRules {
            allow: ["192.0.2.7/32".parse().unwrap()].into(),
            ..strict.clone()
        };
        for (address, rules, expected) in [
            ("198.51.100.1", &strict, None),
            ("192.0.2.7", &strict, Some("an address of node a")),
            ("192.0.2.7", &opened, None),
            ("::ffff:192.0.2.7", &strict, Some("an address of node a")),
            ("192.0.2.8", &opened, Some("an address of node b")),
            ("fd00::8", &strict, Some("an address of node b")),
            ("10.244.1.9", &strict, Some("in the pod range of node a")),
            ("fd01::1:9", &strict, Some("in the pod range of node b")),
            (
                "10.96.0.1",
                &strict,
                Some("in 10.96.0.0/12, which no name may resolve to"),
            ),
        ] {
            let view = view(rules.clone());
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(
                refused(address, true, &view).as_deref(),
                expected,
                "{address}"
            );
            assert_eq!(
                refused(address, false, &view),
                None,
                "{address} as endpoint"
            );
        }
    }

    fn view(rules: DialRules) -> View {
        let local = LocalPeer {
            name: PeerName::new("west").unwrap(),
            labels: Labels::new(),
        };
        let node = |name: &str, addresses: &[&str], range: &str| {
            let node = Node {
                name: name.into(),
                addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
                pod_ranges: vec![range.parse().unwrap()],
                zone: None,
            };
            (node.name.clone(), Arc::new(node))
        };
        let mut snapshot = Snapshot::default();
        snapshot.nodes.extend([
            node("a", &["192.0.2.7"], "10.244.1.0/24"),
            node("b", &["192.0.2.8", "fd00::8"], "fd01::1:0/112"),
        ]);
        let mut view = View::not_ready(local);
        view.dial_rules = rules;
        view.snapshot = Arc::new(snapshot);
        view
    }
}
