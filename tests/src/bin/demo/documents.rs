//! The manifests of the demo, as a Kubernetes user would write them.

use std::net::IpAddr;

/// The web server's Service, its one endpoint, and its Export.
pub(crate) fn export(backend: IpAddr, port: u16) -> String {
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec:
  ports: [{{name: http, port: 80, protocol: TCP}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  namespace: shop
  labels: {{kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{{addresses: [{backend}]}}]
ports: [{{name: http, port: {port}, protocol: TCP}}]
---
apiVersion: clusterlink.net/v1alpha1
kind: Export
metadata: {{name: web, namespace: shop}}
spec: {{port: 80}}
"
    )
}

/// The Import of both exports, in turns.
pub(crate) const IMPORT: &str = "\
apiVersion: clusterlink.net/v1alpha1
kind: Import
metadata: {name: web, namespace: shop}
spec:
  port: 80
  lbScheme: round-robin
  sources:
  - {peer: paris, exportName: web, exportNamespace: shop}
  - {peer: tokyo, exportName: web, exportNamespace: shop}
";

/// A peer that is reached at an address, or that only calls.
pub(crate) fn peer(name: &str, gateway: Option<(IpAddr, u16)>) -> String {
    let gateways = match gateway {
        Some((host, port)) => format!("[{{host: {host}, port: {port}}}]"),
        None => "[]".to_owned(),
    };
    format!(
        "\
apiVersion: clusterlink.net/v1alpha1
kind: Peer
metadata: {{name: {name}, namespace: clusterlink-system}}
spec:
  gateways: {gateways}
"
    )
}

/// A workload: which processes it is, and what policies see of it.
pub(crate) fn pod(name: &str, cgroup: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: shop
  labels: {{app: {name}}}
  annotations: {{clusterlink.net/cgroup: {cgroup}}}
spec: {{serviceAccountName: {name}, containers: []}}
"
    )
}

/// The importing side lets the cart out, and nobody else.
pub(crate) const ALLOW_CART: &str = "\
apiVersion: clusterlink.net/v1alpha1
kind: AccessPolicy
metadata: {name: cart-to-web, namespace: shop}
spec:
  action: allow
  from:
  - workloadSelector:
      matchLabels:
        peer.clusterlink.net/name: london
        client.clusterlink.net/labels.app: cart
  to:
  - workloadSelector: {matchLabels: {export.clusterlink.net/name: web}}
";

/// The exporting side lets London in.
pub(crate) const ALLOW_LONDON: &str = "\
apiVersion: clusterlink.net/v1alpha1
kind: AccessPolicy
metadata: {name: london-to-web, namespace: shop}
spec:
  action: allow
  from:
  - workloadSelector: {matchLabels: {peer.clusterlink.net/name: london}}
  to:
  - workloadSelector: {matchLabels: {export.clusterlink.net/name: web}}
";

/// An administrator's word, above all namespaces.
pub(crate) const DENY_CART: &str = "\
apiVersion: clusterlink.net/v1alpha1
kind: PrivilegedAccessPolicy
metadata: {name: lockdown}
spec:
  action: deny
  from:
  - workloadSelector:
      matchLabels:
        peer.clusterlink.net/name: london
        client.clusterlink.net/labels.app: cart
  to:
  - workloadSelector: {}
";
