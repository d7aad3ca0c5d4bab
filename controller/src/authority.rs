//! The certificates that agents trust the push servers by: one ConfigMap, one key for each replica.
//!
//! Each replica owns its key as a field manager of its own, so that none can overwrite another's.
//! Agents mount the ConfigMap and trust all of it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

/// The name of the ConfigMap in the system namespace.
pub const CA_CONFIG_MAP: &str = "clusterlink-controller-ca";

/// The label that the controller's pods have.
pub const CONTROLLER_PODS: &str = "app.kubernetes.io/name=clusterlink-controller";

/// Publishes the certificate authority of one replica under its identity.
///
/// # Errors
/// What the API server said.
pub async fn publish_ca(
    client: Client,
    namespace: &str,
    name: &str,
    own_identity: &str,
    pem: &str,
) -> Result<(), kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    let manager = format!("clusterlink.net/{own_identity}");
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {own_identity: pem},
    });
    let parameters = PatchParams::apply(&manager).force();
    maps.patch(name, &parameters, &Patch::Apply(body))
        .await
        .map(drop)
}

/// Removes the keys of replicas whose pod is gone; for the lease holder. Gives the removed keys.
///
/// # Errors
/// What the API server said.
pub async fn prune_ca(
    client: Client,
    namespace: &str,
    name: &str,
    own_identity: &str,
) -> Result<Vec<String>, kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let Some(map) = maps.get_opt(name).await? else {
        return Ok(Vec::new());
    };
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let living = pods
        .list(&ListParams::default().labels(CONTROLLER_PODS))
        .await?;
    let living = living.items.into_iter().filter_map(|pod| pod.metadata.name);
    let stale = stale(&map, &living.collect(), own_identity);
    if stale.is_empty() {
        return Ok(stale);
    }
    let nothing = stale.iter().map(|key| (key.clone(), Value::Null));
    let body = json!({
        // Somebody may have published in the meantime: then it is looked at again later.
        "metadata": {"resourceVersion": map.metadata.resource_version},
        "data": nothing.collect::<serde_json::Map<_, _>>(),
    });
    maps.patch(name, &PatchParams::default(), &Patch::Merge(body))
        .await?;
    Ok(stale)
}

fn stale(map: &ConfigMap, living: &BTreeSet<String>, own_identity: &str) -> Vec<String> {
    let keys = map.data.iter().flat_map(|data| data.keys());
    keys.filter(|key| *key != own_identity && !living.contains(*key))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_of_replicas_without_a_pod_are_stale() {
        let map = ConfigMap {
            data: Some(
                ["a", "b", "c"]
                    .map(|key| (key.to_owned(), String::new()))
                    .into(),
            ),
            ..ConfigMap::default()
        };
        let living = BTreeSet::from(["b".to_owned()]);
        assert_eq!(stale(&map, &living, "a"), ["c"]);
        assert!(stale(&ConfigMap::default(), &living, "a").is_empty());
    }
}
