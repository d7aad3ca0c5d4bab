//! Manifests as a user would write them, built as JSON values (which are YAML too).

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

const GROUP: &str = "clusterlink.net/v1alpha1";

/// An Export of the Service of its own name.
pub fn export(namespace: &str, name: &str, port: u16) -> Value {
    json!({
        "apiVersion": GROUP, "kind": "Export",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"port": port},
    })
}

/// One entry of an Import's sources.
pub fn source(peer: &str, namespace: &str, name: &str) -> Value {
    json!({"peer": peer, "exportNamespace": namespace, "exportName": name})
}

/// An Import with its sources, each made by [`source`].
pub fn import(namespace: &str, name: &str, port: u16, sources: &[Value]) -> Value {
    json!({
        "apiVersion": GROUP, "kind": "Import",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"port": port, "sources": sources},
    })
}

/// The Import with another scheme: `random`, `round-robin` or `static`.
pub fn with_scheme(mut import: Value, scheme: &str) -> Value {
    import["spec"]["lbScheme"] = json!(scheme);
    import
}

/// The object with a label more.
pub fn with_label(mut object: Value, key: &str, value: &str) -> Value {
    object["metadata"]["labels"][key] = json!(value);
    object
}

/// A Peer with the gateways that it is reached by; none for a peer that only calls.
pub fn peer(name: &str, gateways: &[SocketAddr]) -> Value {
    let gateways: Vec<_> = gateways
        .iter()
        .map(|gateway| json!({"host": gateway.ip().to_string(), "port": gateway.port()}))
        .collect();
    json!({
        "apiVersion": GROUP, "kind": "Peer",
        "metadata": {"namespace": "clusterlink-system", "name": name},
        "spec": {"gateways": gateways},
    })
}

/// A selector of all workloads.
pub fn everything() -> Value {
    json!({"workloadSelector": {}})
}

/// A selector of workloads by one attribute.
pub fn matching(key: &str, value: &str) -> Value {
    json!({"workloadSelector": {"matchLabels": {key: value}}})
}

/// An AccessPolicy; `action` is `allow` or `deny`.
pub fn access_policy(namespace: &str, name: &str, action: &str, from: &Value, to: &Value) -> Value {
    json!({
        "apiVersion": GROUP, "kind": "AccessPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"action": action, "from": [from], "to": [to]},
    })
}

/// A PrivilegedAccessPolicy; `action` is `allow` or `deny`.
pub fn privileged_policy(name: &str, action: &str, from: &Value, to: &Value) -> Value {
    json!({
        "apiVersion": GROUP, "kind": "PrivilegedAccessPolicy",
        "metadata": {"name": name},
        "spec": {"action": action, "from": [from], "to": [to]},
    })
}

/// An AccessPolicy that lets all of the namespace through.
pub fn allow_all(namespace: &str) -> Value {
    access_policy(
        namespace,
        "allow-all",
        "allow",
        &everything(),
        &everything(),
    )
}

/// A Service with one TCP port.
pub fn service(namespace: &str, name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"ports": [{"name": "main", "port": port, "protocol": "TCP"}]},
    })
}

/// A Service of type ExternalName.
pub fn external_name(namespace: &str, name: &str, port: u16, target: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"type": "ExternalName", "externalName": target,
                 "ports": [{"name": "main", "port": port, "protocol": "TCP"}]},
    })
}

/// The EndpointSlice of a Service: its backends' addresses, all of one family, and their port.
pub fn endpoint_slice(namespace: &str, service: &str, addresses: &[IpAddr], port: u16) -> Value {
    let family = if addresses.iter().any(IpAddr::is_ipv6) {
        "IPv6"
    } else {
        "IPv4"
    };
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"addresses": [address.to_string()], "conditions": {"ready": true}}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": namespace, "name": format!("{service}-{}", family.to_lowercase()),
                     "labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": "main", "port": port, "protocol": "TCP"}],
    })
}

/// All that it takes to share one backend: Service, EndpointSlice and Export of one name.
pub fn shared(namespace: &str, name: &str, port: u16, backend: SocketAddr) -> Vec<Value> {
    vec![
        service(namespace, name, port),
        endpoint_slice(namespace, name, &[backend.ip()], backend.port()),
        export(namespace, name, port),
    ]
}

/// A Pod known by the cgroup of a [`Pod`](crate::Pod) in the host's network.
pub fn pod(namespace: &str, name: &str, cgroup: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name,
                     "annotations": {"clusterlink.net/cgroup": cgroup}},
        "spec": {"containers": []},
    })
}

/// The Pod with its service account.
pub fn with_service_account(mut pod: Value, name: &str) -> Value {
    pod["spec"]["serviceAccountName"] = json!(name);
    pod
}

/// The Pod in the network of its node.
pub fn in_host_network(mut pod: Value) -> Value {
    pod["spec"]["hostNetwork"] = json!(true);
    pod
}

/// The Pod with addresses of its own.
pub fn with_addresses(mut pod: Value, addresses: &[IpAddr]) -> Value {
    pod["status"]["podIPs"] = addresses
        .iter()
        .map(|ip| json!({"ip": ip.to_string()}))
        .collect();
    pod
}
