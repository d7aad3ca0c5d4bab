//! A pod of a cluster: its object, bound to a node, and a place with the cgroup that a kubelet
//! would have made.

use std::net::IpAddr;
use std::ops::Deref;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Cluster, Node};
use crate::host::Host;
use crate::pod::Pod;

/// A running pod.
#[derive(Clone, Debug)]
pub struct Workload {
    pod: Pod,
    namespace: String,
}

impl Workload {
    /// Makes a pod on a node, with an address of its own unless `change` edits its document so that it
    /// is in the host's network.
    pub fn start(
        cluster: &Cluster,
        node: &Node,
        namespace: &str,
        name: &str,
        change: impl FnOnce(Value) -> Value,
    ) -> Result<Self> {
        let plane = &cluster.plane;
        plane.apply(&[change(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {"nodeName": node.host().name(),
                "containers": [{"name": "main", "image": "localhost/none"}]},
        }))])?;
        let object = plane.get(&["pod", name, "-n", namespace])?;
        let uid = object["metadata"]["uid"]
            .as_str()
            .context("the pod has no UID")?;
        let cgroup = Path::new("kubepods/burstable").join(format!("pod{uid}/main"));
        let host_network = object["spec"]["hostNetwork"] == true;
        let pod = if host_network {
            node.host().pod_on_host(name, &cgroup)?
        } else {
            node.host().pod_in(name, &cgroup)?
        };
        let status = running(node.host(), pod.addresses(), host_network, true);
        plane.patch_status("pod", Some(namespace), name, &status)?;
        Ok(Self {
            pod,
            namespace: namespace.to_owned(),
        })
    }

    /// The namespace of its object.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

impl Deref for Workload {
    type Target = Pod;

    fn deref(&self) -> &Pod {
        &self.pod
    }
}

/// The status of a pod that runs on a host.
pub(super) fn running(host: &Host, own: &[IpAddr], host_network: bool, ready: bool) -> Value {
    let host_ips = [host.ipv4(), host.ipv6()];
    let pod_ips: &[IpAddr] = if host_network { &host_ips } else { own };
    let list = |all: &[IpAddr]| -> Vec<Value> {
        all.iter().map(|ip| json!({"ip": ip.to_string()})).collect()
    };
    let ready = if ready { "True" } else { "False" };
    json!({"status": {
        "phase": "Running",
        "hostIP": host.ipv4().to_string(), "hostIPs": list(&host_ips),
        "podIP": pod_ips.first().map(ToString::to_string), "podIPs": list(pod_ips),
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": null}],
    }})
}
