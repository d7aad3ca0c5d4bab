//! Pod → Workload.

use std::{net::IpAddr, path::Component, path::Path, sync::Arc};

use clusterlink_crds::labels;
use clusterlink_model::{ObjectName, Workload, WorkloadAttributes};
use k8s_openapi::api::core::v1::Pod;

use crate::status::Finding;

/// The condition of a Pod: whether all of it could be used.
pub(crate) const WORKLOAD_VALID: &str = "WorkloadValid";

/// The kubelet's annotation on the mirror of a static pod.
const STATIC_POD_HASH: &str = "kubernetes.io/config.hash";

/// The workload of a pod that may still open connections, and whether the document is right.
pub(crate) fn translate(name: &ObjectName, pod: &Pod) -> Option<(Workload, Finding)> {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let spec = pod.spec.as_ref();
    let mut complaints = Vec::new();
    let attributes = WorkloadAttributes {
        namespace: Arc::clone(&name.namespace),
        service_account: spec
            .and_then(|spec| spec.service_account_name.as_deref())
            .filter(|account| !account.is_empty())
            .unwrap_or("default")
            .into(),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
    };
    let annotation = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(labels::CGROUP));
    let cgroup = annotation.and_then(|path| match cgroup(path) {
        Ok(path) => Some(path),
        Err(why) => {
            complaints.push(format!(
                "annotation {} is {path:?}, which {why}: write a path under the cgroup v2 root, such as system.slice/web.service",
                labels::CGROUP
            ));
            None
        }
    });
    let workload = Workload {
        name: name.clone(),
        attributes: Arc::new(attributes),
        cgroup,
        addresses: addresses(pod, &mut complaints),
        uids: uids(pod),
        node: spec
            .and_then(|spec| spec.node_name.as_deref())
            .filter(|node| !node.is_empty())
            .map(Arc::from),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
    };
    let finding = if complaints.is_empty() {
        Finding::valid(WORKLOAD_VALID, "")
    } else {
        let message = format!("Pod {name}: {}", complaints.join("; "));
        Finding::invalid(WORKLOAD_VALID, "InvalidField", message)
    };
    Some((workload, finding))
}

/// What container runtimes name the pod's cgroup after. The mirror of a static pod has a UID of
/// its own, while the kubelet names the cgroup after the hash of the pod's configuration.
fn uids(pod: &Pod) -> Vec<Arc<str>> {
    let annotations = pod.metadata.annotations.as_ref();
    let hash = annotations.and_then(|all| all.get(STATIC_POD_HASH));
    let uids = pod.metadata.uid.iter().chain(hash);
    uids.filter(|uid| !uid.is_empty())
        .map(|uid| uid.as_str().into())
        .collect()
}

/// The path without empty components and leading slash; it must stay below the root.
fn cgroup(path: &str) -> Result<Arc<str>, &'static str> {
    if path.bytes().any(|b| b == 0 || b == b'\n') {
        return Err("holds a control character");
    }
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.extend(part.to_str()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err("holds '..'"),
        }
    }
    if parts.is_empty() {
        // The root holds every process of the host: none of them may pass for this pod.
        return Err("is the root itself");
    }
    Ok(parts.join("/").into())
}

/// A pod on the host's network has the host's addresses, which say nothing of who it is.
fn addresses(pod: &Pod, complaints: &mut Vec<String>) -> Vec<IpAddr> {
    if pod
        .spec
        .as_ref()
        .and_then(|spec| spec.host_network)
        .unwrap_or(false)
    {
        return Vec::new();
    }
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in listed
        .chain(status.pod_ip.as_deref())
        .filter(|text| !text.is_empty())
    {
        match text.parse() {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Ok(_) => {}
            Err(_) => {
                complaints.push(format!(
                    "status.podIPs has {text:?}, which is no IP address"
                ));
            }
        }
    }
    addresses
}

#[cfg(test)]
mod tests;
