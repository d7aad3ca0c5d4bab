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
                "ipFamilyPolicy": "PreferDualStack",
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
mod tests {
    use super::*;

    fn wanted(import: &ObjectName) -> Wanted<'_> {
        Wanted {
            import,
            uid: "u1",
            port: 80,
            target_port: NonZeroU16::new(9000),
        }
    }

    /// The Service as the API server gives it back.
    fn made(import: &ObjectName) -> Value {
        let mut service = wanted(import).create(&[]);
        service["metadata"]["uid"] = "s1".into();
        service["metadata"]["resourceVersion"] = "7".into();
        service["spec"]["clusterIP"] = "10.96.0.7".into();
        service["spec"]["clusterIPs"] = json!(["10.96.0.7", "fd00::7"]);
        service
    }

    fn service(value: Value) -> Service {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_was_made_needs_no_correction_and_neither_does_what_users_add() {
        let import = ObjectName::new("ns", "web");
        let mut value = made(&import);
        assert_eq!(wanted(&import).correct(&service(value.clone())), None);
        value["metadata"]["labels"]["team"] = "a".into();
        value["metadata"]["annotations"] = json!({"note": "b"});
        value["metadata"]["finalizers"] = json!(["their/own", "clusterlink.net/steering"]);
        assert_eq!(wanted(&import).correct(&service(value.clone())), None);
        let addresses: Vec<String> = addresses(&service(value))
            .iter()
            .map(IpAddr::to_string)
            .collect();
        assert_eq!(addresses, ["10.96.0.7", "fd00::7"]);
    }

    #[test]
    fn each_drift_is_corrected_by_a_patch_of_what_differs_alone() {
        let import = ObjectName::new("ns", "web");
        let right_spec = json!({
            "type": "ClusterIP", "externalName": null, "selector": null,
            "ports": [{"port": 80, "targetPort": 9000, "protocol": "TCP"}],
        });
        type Change = fn(&mut Value);
        let cases: [(&str, Change, &str, Value); 9] = [
            (
                "selector",
                |s| s["spec"]["selector"] = json!({"a": "b"}),
                "/spec",
                right_spec.clone(),
            ),
            (
                "port",
                |s| s["spec"]["ports"][0]["port"] = 81.into(),
                "/spec",
                right_spec.clone(),
            ),
            (
                "target port",
                |s| s["spec"]["ports"][0]["targetPort"] = "web".into(),
                "/spec",
                right_spec.clone(),
            ),
            (
                "port name",
                |s| s["spec"]["ports"][0]["name"] = "web".into(),
                "/spec",
                right_spec.clone(),
            ),
            (
                "protocol",
                |s| s["spec"]["ports"][0]["protocol"] = "UDP".into(),
                "/spec",
                right_spec.clone(),
            ),
            (
                "type",
                |s| s["spec"]["type"] = "NodePort".into(),
                "/spec",
                right_spec.clone(),
            ),
            (
                "label",
                |s| s["metadata"]["labels"]["clusterlink.net/import-name"] = "x".into(),
                "/metadata/labels",
                json!({"clusterlink.net/import-name": "web"}),
            ),
            (
                "finalizer",
                |s| s["metadata"]["finalizers"] = json!(["their/own"]),
                "/metadata/finalizers",
                json!(["their/own", "clusterlink.net/steering"]),
            ),
            (
                "owner",
                |s| s["metadata"]["ownerReferences"][0]["uid"] = "u0".into(),
                "/metadata/ownerReferences/0/uid",
                "u1".into(),
            ),
        ];
        for (what, change, at, wanted_value) in cases {
            let mut value = made(&import);
            change(&mut value);
            let patch = wanted(&import).correct(&service(value)).unwrap();
            assert_eq!(patch.pointer(at), Some(&wanted_value), "{what}");
            assert_eq!(patch["metadata"]["resourceVersion"], "7", "{what}");
            let parts =
                patch.as_object().unwrap().len() + patch["metadata"].as_object().unwrap().len();
            assert_eq!(parts, 4, "{what}: nothing else is patched: {patch}");
        }
    }

    #[test]
    fn a_controller_that_an_adopted_service_has_stays_its_only_one() {
        let import = ObjectName::new("ns", "web");
        let mut value = made(&import);
        let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c1", "controller": true});
        value["metadata"]["ownerReferences"] = json!([theirs]);
        let patch = wanted(&import).correct(&service(value)).unwrap();
        let owners = patch["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!((owners.len(), &owners[0]), (2, &theirs));
        assert_eq!(owners[1]["controller"], false);
    }

    #[test]
    fn addresses_of_before_are_asked_for_again() {
        let import = ObjectName::new("ns", "web");
        let addresses = ["10.96.0.7".to_owned(), "fd00::7".to_owned()];
        let created = wanted(&import).create(&addresses);
        assert_eq!(created["spec"]["clusterIP"], "10.96.0.7");
        assert_eq!(created["spec"]["clusterIPs"], json!(addresses));
        assert!(
            wanted(&import).create(&[])["spec"]
                .get("clusterIPs")
                .is_none()
        );
    }

    #[test]
    fn who_is_let_go_loses_the_reference_at_once_and_the_finalizer_when_the_address_is_free() {
        let import = ObjectName::new("ns", "web");
        let mut value = made(&import);
        let first = let_go(&service(value.clone()), false).unwrap();
        assert_eq!(first["metadata"]["ownerReferences"], json!([]));
        assert!(first["metadata"].get("finalizers").is_none());
        value["metadata"]["ownerReferences"] = json!([]);
        assert_eq!(let_go(&service(value.clone()), false), None);
        let last = let_go(&service(value.clone()), true).unwrap();
        assert_eq!(last["metadata"]["finalizers"], json!([]));
        assert_eq!(finalize(&service(value.clone())), Some(last));
        value["metadata"]["finalizers"] = json!([]);
        assert_eq!(let_go(&service(value), true), None);
    }
}
