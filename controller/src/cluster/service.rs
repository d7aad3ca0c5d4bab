//! The Service of an Import: what it should be, and the patch that makes it so.

use std::{net::IpAddr, num::NonZeroU16};

use clusterlink_crds::labels;
use clusterlink_model::ObjectName;
use k8s_openapi::{
    api::core::v1::Service,
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use serde_json::{Map, Value, json};

use super::ownership;

const SINGLE_STACK: &str = "SingleStack";
const PREFER_DUAL_STACK: &str = "PreferDualStack";

/// What the Service of an Import is made from.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) import: &'a ObjectName,
    pub(crate) uid: &'a str,
    pub(crate) port: u16,
    /// `None` while no target port is held: connects are steered all the same.
    pub(crate) target_port: Option<NonZeroU16>,
}

impl Wanted<'_> {
    /// The Service from nothing, with the addresses that it had before if there are any.
    pub(crate) fn create(&self, addresses: &[String]) -> Value {
        let labels: Map<String, Value> = ownership::import_labels(self.import)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect();
        let mut service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": &*self.import.name,
                "namespace": &*self.import.namespace,
                "labels": labels,
                "ownerReferences": [ownership::reference(self.import, self.uid, true)],
                "finalizers": [labels::STEERING_FINALIZER],
            },
            "spec": {
                "type": "ClusterIP",
                "ipFamilyPolicy": PREFER_DUAL_STACK,
                "ports": [self.port()],
            },
        });
        if let Some(first) = addresses.first() {
            service["spec"]["clusterIP"] = first.as_str().into();
            service["spec"]["clusterIPs"] = json!(addresses);
        }
        service
    }

    /// What has to change of a Service that is ours or becomes it; `None` if nothing has to. What
    /// others put on it (labels, annotations, finalizers, owners) stays.
    pub(crate) fn correct(&self, observed: &Service) -> Option<Value> {
        let mut metadata = Map::new();
        self.correct_metadata(&observed.metadata, &mut metadata);
        let spec = if self.is_spec_right(observed) {
            None
        } else {
            let spec = json!({
                "type": "ClusterIP",
                "externalName": null,
                "ipFamilyPolicy": policy(observed),
                "selector": null,
                "ports": [self.port()],
            });
            Some(spec)
        };
        if metadata.is_empty() && spec.is_none() {
            return None;
        }
        let mut patch = based_on(&observed.metadata, metadata);
        if let Some(spec) = spec {
            patch["spec"] = spec;
        }
        Some(patch)
    }

    fn correct_metadata(&self, observed: &ObjectMeta, patch: &mut Map<String, Value>) {
        let present = observed.labels.as_ref();
        let missing: Map<String, Value> = ownership::import_labels(self.import)
            .into_iter()
            .filter(|(key, value)| present.and_then(|all| all.get(*key)) != Some(value))
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect();
        if !missing.is_empty() {
            patch.insert("labels".to_owned(), missing.into());
        }
        let mut owners = ownership::other_owners(observed);
        // An object can have one controller only, and an adopted Service may have one already.
        let controlled = owners.iter().any(|owner| owner.controller == Some(true));
        owners.push(ownership::reference(self.import, self.uid, !controlled));
        let present = observed.owner_references.as_deref().unwrap_or_default();
        if present.len() != owners.len() || !owners.iter().all(|owner| present.contains(owner)) {
            patch.insert("ownerReferences".to_owned(), json!(owners));
        }
        let finalizers = observed.finalizers.as_deref().unwrap_or_default();
        if !finalizers
            .iter()
            .any(|one| one == labels::STEERING_FINALIZER)
        {
            let mut finalizers = finalizers.to_vec();
            finalizers.push(labels::STEERING_FINALIZER.to_owned());
            patch.insert("finalizers".to_owned(), json!(finalizers));
        }
    }

    fn is_spec_right(&self, observed: &Service) -> bool {
        let Some(spec) = &observed.spec else {
            return false;
        };
        let selects = spec
            .selector
            .as_ref()
            .is_some_and(|selector| !selector.is_empty());
        let [port] = spec.ports.as_deref().unwrap_or_default() else {
            return false;
        };
        !selects
            && spec.type_.as_deref() == Some("ClusterIP")
            && spec.ip_family_policy.as_deref() != Some(SINGLE_STACK)
            && port.name.as_deref().unwrap_or_default().is_empty()
            && port.protocol.as_deref().unwrap_or("TCP") == "TCP"
            && port.port == i32::from(self.port)
            && port.target_port == Some(IntOrString::Int(self.target()))
    }

    fn port(&self) -> Value {
        json!({"port": self.port, "targetPort": self.target(), "protocol": "TCP"})
    }

    fn target(&self) -> i32 {
        self.target_port.map_or(self.port, NonZeroU16::get).into()
    }
}

/// An adopted Service gets an address of each family that the cluster has.
fn policy(observed: &Service) -> &str {
    let spec = observed.spec.as_ref();
    spec.and_then(|spec| spec.ip_family_policy.as_deref())
        .filter(|policy| *policy != SINGLE_STACK)
        .unwrap_or(PREFER_DUAL_STACK)
}

/// Takes our references off a Service at once, and our finalizer once its addresses are let go;
/// `None` if there is nothing to take off yet.
pub(crate) fn let_go(observed: &Service, addresses_are_free: bool) -> Option<Value> {
    let mut metadata = Map::new();
    if ownership::has_import_owner(&observed.metadata) {
        let others = ownership::other_owners(&observed.metadata);
        metadata.insert("ownerReferences".to_owned(), json!(others));
    }
    if addresses_are_free {
        metadata.extend(finalizers_without_ours(observed));
    }
    (!metadata.is_empty()).then(|| based_on(&observed.metadata, metadata))
}

/// Takes our finalizer off a Service that is being deleted.
pub(crate) fn finalize(observed: &Service) -> Option<Value> {
    let metadata: Map<String, Value> = finalizers_without_ours(observed).into_iter().collect();
    (!metadata.is_empty()).then(|| based_on(&observed.metadata, metadata))
}

/// The cluster addresses of a Service, as written.
pub(crate) fn address_texts(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let first = spec.cluster_ip.iter();
    let all: &[String] = spec.cluster_ips.as_deref().unwrap_or_default();
    let texts = if all.is_empty() {
        first.cloned().collect()
    } else {
        all.to_vec()
    };
    texts
        .into_iter()
        .filter(|text| !text.is_empty() && text != "None")
        .collect()
}

/// The cluster addresses of a Service.
pub(crate) fn addresses(service: &Service) -> Vec<IpAddr> {
    let texts = address_texts(service);
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// A merge patch that counts only for the object as it was seen.
pub(crate) fn based_on(observed: &ObjectMeta, mut metadata: Map<String, Value>) -> Value {
    metadata.insert("uid".to_owned(), json!(observed.uid));
    metadata.insert(
        "resourceVersion".to_owned(),
        json!(observed.resource_version),
    );
    json!({"metadata": metadata})
}

fn finalizers_without_ours(observed: &Service) -> Option<(String, Value)> {
    ownership::has_finalizer(observed).then(|| {
        let all = observed.metadata.finalizers.iter().flatten();
        let others: Vec<_> = all
            .filter(|one| *one != labels::STEERING_FINALIZER)
            .collect();
        ("finalizers".to_owned(), json!(others))
    })
}

#[cfg(test)]
mod tests;
