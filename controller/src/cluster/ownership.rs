//! Whose a Service is.
//!
//! | it carries | `managed-by` is ours | it is not |
//! |---|---|---|
//! | our finalizer or a reference to the Import | ours: kept as it should be | let go |
//! | neither | adopted if the other two labels name the Import too | somebody else's, never touched |

use clusterlink_crds::{conditions::reasons, labels};
use clusterlink_model::ObjectName;
use k8s_openapi::{
    api::core::v1::Service,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

const KIND: &str = "Import";
const API_VERSION: &str = "clusterlink.net/v1alpha1";
const GROUP_PREFIX: &str = "clusterlink.net/";

/// How a Service of an Import's name stands to that Import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is ours, and stays.
    Ours,
    /// It is ours, and is being deleted: only our finalizer keeps it.
    Leaving,
    /// It was ours, and somebody took it over.
    HandedAway,
    /// It is to become ours.
    Adoptable,
    /// It carries our labels, but cannot be adopted as it is.
    NotAdoptable {
        reason: &'static str,
        /// What is in the way, and the cure.
        message: String,
    },
    /// It never was ours.
    Foreign,
}

/// Judges a Service of the Import's name. `foreign_slice` is an EndpointSlice of it that is not ours.
pub(crate) fn standing(
    import: &ObjectName,
    service: &Service,
    foreign_slice: Option<&str>,
) -> Standing {
    match (is_claimed(import, service), is_managed(&service.metadata)) {
        (true, true) if service.metadata.deletion_timestamp.is_some() => Standing::Leaving,
        (true, true) => Standing::Ours,
        (true, false) => Standing::HandedAway,
        (false, true) if names_import(import, &service.metadata) => {
            adoptable(import, service, foreign_slice)
        }
        (false, _) => Standing::Foreign,
    }
}

/// Whether an object bears our finalizer or belongs to an Import of that name.
pub(crate) fn is_claimed(import: &ObjectName, service: &Service) -> bool {
    has_finalizer(service)
        || owners(&service.metadata).any(|owner| is_import(owner) && *owner.name == *import.name)
}

/// Whether a Service concerns the reconciler although no Import of its name exists.
pub(crate) fn is_marked(service: &Service) -> bool {
    has_finalizer(service) || owners(&service.metadata).any(is_import)
}

/// Whether a Service bears our finalizer.
pub(crate) fn has_finalizer(service: &Service) -> bool {
    let finalizers = service.metadata.finalizers.iter().flatten();
    finalizers
        .into_iter()
        .any(|one| one == labels::STEERING_FINALIZER)
}

/// The Import that an EndpointSlice of ours is for.
pub(crate) fn import_of_slice(metadata: &ObjectMeta) -> Option<ObjectName> {
    let labels = metadata.labels.as_ref()?;
    let is = |key: &str| labels.get(key).map(String::as_str);
    let namespace = metadata.namespace.as_deref()?;
    let ours = is(labels::ENDPOINT_SLICE_MANAGED_BY) == Some(labels::MANAGER)
        && is(labels::IMPORT_NAMESPACE) == Some(namespace);
    ours.then(|| is(labels::IMPORT_NAME).map(|name| ObjectName::new(namespace, name)))?
}

/// What an object that belongs to an Import says of it.
pub(crate) fn reference(import: &ObjectName, uid: &str, controller: bool) -> OwnerReference {
    OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        name: import.name.to_string(),
        uid: uid.to_owned(),
        controller: Some(controller),
        block_owner_deletion: Some(true),
    }
}

/// The references of an object to anything but an Import.
pub(crate) fn other_owners(metadata: &ObjectMeta) -> Vec<OwnerReference> {
    owners(metadata)
        .filter(|owner| !is_import(owner))
        .cloned()
        .collect()
}

/// Whether an object bears a reference to an Import.
pub(crate) fn has_import_owner(metadata: &ObjectMeta) -> bool {
    owners(metadata).any(is_import)
}

/// The three labels of what is made for an Import.
pub(crate) fn import_labels(import: &ObjectName) -> [(&'static str, String); 3] {
    [
        (labels::MANAGED_BY, labels::MANAGER.to_owned()),
        (labels::IMPORT_NAME, import.name.to_string()),
        (labels::IMPORT_NAMESPACE, import.namespace.to_string()),
    ]
}

fn adoptable(import: &ObjectName, service: &Service, foreign_slice: Option<&str>) -> Standing {
    let spec = service.spec.as_ref();
    let selector = spec.and_then(|spec| spec.selector.as_ref());
    let kind = spec.and_then(|spec| spec.type_.as_deref());
    let headless = spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    let (reason, message) = if service.metadata.deletion_timestamp.is_some() {
        let message = format!(
            "Service {import} is being deleted by somebody else: wait, or remove its finalizers"
        );
        (reasons::SERVICE_TERMINATING, message)
    } else if selector.is_some_and(|selector| !selector.is_empty()) {
        let message = format!(
            "Service {import} has spec.selector, so it is not adopted: remove the selector, or the label {}",
            labels::MANAGED_BY
        );
        (reasons::SERVICE_HAS_SELECTOR, message)
    } else if let Some(slice) = foreign_slice {
        let message = format!(
            "Service {import} has EndpointSlice {slice} of somebody else, so it is not adopted: delete the slice, or remove the label {} from the Service",
            labels::MANAGED_BY
        );
        (reasons::SERVICE_HAS_FOREIGN_SLICES, message)
    } else if headless || kind == Some("ExternalName") {
        let message = format!(
            "Service {import} has no cluster address (it is headless or of type ExternalName), so it is not adopted: delete it, and one with an address is made"
        );
        (reasons::SERVICE_HEADLESS, message)
    } else {
        return Standing::Adoptable;
    };
    Standing::NotAdoptable { reason, message }
}

fn is_managed(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    labels
        .and_then(|all| all.get(labels::MANAGED_BY))
        .is_some_and(|value| value == labels::MANAGER)
}

fn names_import(import: &ObjectName, metadata: &ObjectMeta) -> bool {
    import_labels(import).iter().all(|(key, value)| {
        let labels = metadata.labels.as_ref();
        labels.and_then(|all| all.get(*key)) == Some(value)
    })
}

fn owners(metadata: &ObjectMeta) -> impl Iterator<Item = &OwnerReference> {
    metadata.owner_references.iter().flatten()
}

fn is_import(owner: &OwnerReference) -> bool {
    owner.kind == KIND && owner.api_version.starts_with(GROUP_PREFIX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(change: impl FnOnce(&mut Value)) -> Service {
        let mut service = json!({
            "metadata": {
                "name": "web", "namespace": "ns",
                "labels": {
                    "app.kubernetes.io/managed-by": "clusterlink.net",
                    "clusterlink.net/import-name": "web",
                    "clusterlink.net/import-namespace": "ns",
                },
                "finalizers": ["clusterlink.net/steering"],
                "ownerReferences": [{
                    "apiVersion": "clusterlink.net/v1alpha1", "kind": "Import", "name": "web", "uid": "u1",
                }],
            },
            "spec": {"clusterIP": "10.96.0.7"},
        });
        change(&mut service);
        serde_json::from_value(service).unwrap()
    }

    fn unclaimed(service: &mut Value) {
        service["metadata"]["finalizers"] = Value::Null;
        service["metadata"]["ownerReferences"] = Value::Null;
    }

    fn managed_by(manager: &str) -> impl FnOnce(&mut Value) {
        move |service| {
            service["metadata"]["labels"]["app.kubernetes.io/managed-by"] = manager.into()
        }
    }

    #[test]
    fn labels_reference_and_finalizer_say_whose_a_service_is() {
        let import = ObjectName::new("ns", "web");
        let cases: [(&str, Service, Option<&str>, &str); 15] = [
            ("as we made it", service(|_| {}), None, "Ours"),
            (
                "with a foreign slice since",
                service(|_| {}),
                Some("s"),
                "Ours",
            ),
            (
                "with a selector since",
                service(|s| s["spec"]["selector"] = json!({"a": "b"})),
                None,
                "Ours",
            ),
            (
                "its Import was made anew",
                service(|s| s["metadata"]["ownerReferences"][0]["uid"] = "u2".into()),
                None,
                "Ours",
            ),
            (
                "the finalizer was taken off",
                service(|s| s["metadata"]["finalizers"] = Value::Null),
                None,
                "Ours",
            ),
            (
                "being deleted",
                service(|s| s["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()),
                None,
                "Leaving",
            ),
            (
                "managed-by changed",
                service(managed_by("helm")),
                None,
                "HandedAway",
            ),
            (
                "managed-by removed",
                service(|s| s["metadata"]["labels"] = json!({})),
                None,
                "HandedAway",
            ),
            (
                "labelled by its owner",
                service(unclaimed),
                None,
                "Adoptable",
            ),
            (
                "labelled, with a selector",
                service(|s| {
                    unclaimed(s);
                    s["spec"]["selector"] = json!({"a": "b"});
                }),
                None,
                reasons::SERVICE_HAS_SELECTOR,
            ),
            (
                "labelled, with a foreign slice",
                service(unclaimed),
                Some("s"),
                reasons::SERVICE_HAS_FOREIGN_SLICES,
            ),
            (
                "labelled, headless",
                service(|s| {
                    unclaimed(s);
                    s["spec"]["clusterIP"] = "None".into();
                }),
                None,
                reasons::SERVICE_HEADLESS,
            ),
            (
                "labelled for another Import",
                service(|s| {
                    unclaimed(s);
                    s["metadata"]["labels"]["clusterlink.net/import-name"] = "api".into();
                }),
                None,
                "Foreign",
            ),
            (
                "somebody else's",
                service(|s| {
                    unclaimed(s);
                    s["metadata"]["labels"] = json!({"app": "web"});
                }),
                None,
                "Foreign",
            ),
            (
                "somebody else's, managed by helm",
                service(|s| {
                    unclaimed(s);
                    managed_by("helm")(s);
                }),
                Some("s"),
                "Foreign",
            ),
        ];
        for (what, service, slice, wanted) in cases {
            let found = match standing(&import, &service, slice) {
                Standing::NotAdoptable { reason, message } => {
                    assert!(message.contains("Service ns/web"), "{message}");
                    reason.to_owned()
                }
                other => format!("{other:?}"),
            };
            assert_eq!(found, wanted, "{what}");
        }
    }

    #[test]
    fn a_slice_names_its_import_only_within_its_namespace() {
        let slice = |namespace: &str| {
            let metadata = json!({"namespace": "ns", "labels": {
                "endpointslice.kubernetes.io/managed-by": "clusterlink.net",
                "clusterlink.net/import-name": "web",
                "clusterlink.net/import-namespace": namespace,
            }});
            import_of_slice(&serde_json::from_value(metadata).unwrap())
        };
        assert_eq!(slice("ns"), Some(ObjectName::new("ns", "web")));
        assert_eq!(slice("other"), None);
    }
}
