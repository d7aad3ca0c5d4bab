//! Clients of this node itself: whoever has the socket, masqueraded or not.

use std::{
    io,
    sync::{Mutex, OnceLock},
};

use super::*;
use crate::host::Ends;

/// A node with a pod of its network, another process of its own, and a pod with its own network.
struct Own {
    node: Node,
    cgroups: [u64; 3],
}

impl Own {
    fn new() -> Self {
        let mut node = Node::new();
        let cgroups = ["proxy", "kubelet.service", "web"].map(|path| node.cgroup(path));
        node.state.apply(complete(vec![
            self::node("here", "192.0.2.7", "10.244.1.0/24"),
            self::node("there", "192.0.2.8", "10.244.2.0/24"),
            Resource::Workload(pod("proxy", NODE_V4, true)),
            Resource::Workload(pod("web", "10.244.1.5", false)),
        ]));
        Self { node, cgroups }
    }
}

#[tokio::test]
async fn a_client_of_this_node_is_whoever_has_the_socket() {
    static CGROUPS: OnceLock<[u64; 3]> = OnceLock::new();
    let Own { node, cgroups } = Own::new();
    CGROUPS.set(cgroups).unwrap();
    let origins = (node.state)
        .origins(node.datapath.clone())
        .with_local_clients(LocalClients {
            sockets: |source, to| {
                assert_eq!(to, target());
                let place = usize::from(source.port());
                Ok(CGROUPS.get().unwrap().get(place).copied())
            },
            originals: |_, _| Ok(None),
        });
    let of_socket =
        |at: &str, port| origins.look_up(direct(SocketAddr::new(at.parse().unwrap(), port)));
    let found = of_socket(NODE_V4, 0).await;
    assert!(matches!(found.client, Client::Pod { .. }));
    assert_eq!(
        found.cgroup,
        Some(cgroups[0]),
        "it can be judged again by that"
    );
    assert_eq!(of_socket("192.0.2.7", 1).await.client, Client::Host);
    assert_eq!(of_socket("127.0.0.1", 1).await.client, Client::Host);
    assert_eq!(
        of_socket(NODE_V4, 2).await.client,
        Client::Unknown,
        "a pod that is not in its network"
    );
    assert_eq!(
        of_socket(NODE_V4, 9).await.client,
        Client::Unknown,
        "there is no socket"
    );
}

#[tokio::test]
async fn a_masqueraded_client_of_this_node_is_whoever_has_the_socket_of_the_original() {
    static CGROUPS: OnceLock<[u64; 3]> = OnceLock::new();
    /// What the kernel says the connection was.
    static ORIGINAL: Mutex<Result<Option<&str>, i32>> = Mutex::new(Ok(None));
    let Own { node, cgroups } = Own::new();
    CGROUPS.set(cgroups).unwrap();
    let origins = (node.state)
        .origins(node.datapath.clone())
        .with_local_clients(LocalClients {
            sockets: |source, to| {
                assert!(to == asked() || to == target(), "{to}");
                let place = usize::from(source.port());
                Ok(CGROUPS.get().unwrap().get(place).copied())
            },
            originals: |_, to| {
                assert_eq!(to, target());
                let original = *ORIGINAL.lock().unwrap();
                let original = original.map_err(io::Error::from_raw_os_error)?;
                Ok(original.map(|source| Ends {
                    source: source.parse().unwrap(),
                    destination: asked(),
                }))
            },
        });
    let (proxied, direct): (fn(_) -> _, fn(_) -> _) = (by_proxy, direct);
    for (name, shown, way, original, expected) in [
        (
            "a pod of the node's network",
            "192.0.2.7:50000",
            proxied,
            Ok(Some("192.0.2.1:0")),
            "pod",
        ),
        (
            "its own process",
            "192.0.2.7:50000",
            proxied,
            Ok(Some("192.0.2.1:1")),
            "host",
        ),
        (
            "as the gateway's address",
            "169.254.77.1:50000",
            proxied,
            Ok(Some("192.0.2.1:0")),
            "pod",
        ),
        (
            "only led elsewhere",
            "192.0.2.1:0",
            proxied,
            Ok(Some("192.0.2.1:0")),
            "pod",
        ),
        (
            "at a port that is another one's",
            "192.0.2.1:0",
            proxied,
            Ok(Some("192.0.2.1:1")),
            "host",
        ),
        (
            "without a socket",
            "192.0.2.1:0",
            proxied,
            Ok(Some("192.0.2.1:9")),
            "unknown",
        ),
        (
            "a pod here, with its own network",
            "192.0.2.1:0",
            proxied,
            Ok(Some("10.244.1.5:1")),
            "unknown",
        ),
        (
            "a pod of another node",
            "192.0.2.1:0",
            proxied,
            Ok(Some("10.244.2.5:1")),
            "unknown",
        ),
        (
            "another node",
            "192.0.2.1:0",
            proxied,
            Ok(Some("192.0.2.8:1")),
            "unknown",
        ),
        (
            "somebody outside",
            "192.0.2.1:0",
            proxied,
            Ok(Some("198.51.100.1:1")),
            "unknown",
        ),
        (
            "its entry is gone",
            "192.0.2.1:0",
            proxied,
            Ok(None),
            "unknown",
        ),
        (
            "nobody may ask",
            "192.0.2.1:0",
            proxied,
            Err(libc::EPERM),
            "unknown",
        ),
        ("not tracked", "192.0.2.1:0", direct, Ok(None), "pod"),
        (
            "nobody can track",
            "192.0.2.1:1",
            direct,
            Err(libc::EPROTONOSUPPORT),
            "host",
        ),
    ] {
        *ORIGINAL.lock().unwrap() = original;
        let shown: SocketAddr = shown.parse().unwrap();
        // Nobody is asked who an address of this node's is; here, nobody would ever answer.
        let found = tokio::time::timeout(Duration::from_secs(5), origins.look_up(way(shown)));
        let found = found.await.expect(name);
        let seen = |client: &Client| match client {
            Client::Pod { name, .. } if *name == object("proxy") => "pod",
            Client::Host => "host",
            Client::Unknown => "unknown",
            Client::Pod { .. } | Client::Outside => panic!("{name}: {client:?}"),
        };
        assert_eq!(seen(&found.client), expected, "{name}");
        // It is judged again by its cgroup, and by the address that it shows.
        let Some(cgroup) = found.cgroup else {
            assert_eq!(expected, "unknown", "{name}");
            assert_eq!(origins.client_at(shown), Client::Unknown, "{name}");
            continue;
        };
        let again = node.client(cgroup, &shown.to_string(), true);
        assert_eq!(seen(&again), expected, "{name}, again");
    }
}
