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
mod tests;
