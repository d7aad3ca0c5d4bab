//! Statuses go to the API server.

use std::collections::BTreeMap;

use clusterlink_crds::{
    AccessPolicy, Export, Import, Peer, PrivilegedAccessPolicy, labels::FIELD_MANAGER,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::Value;

use super::{Sink, WriteError};
use crate::status::news::Key;

/// Applies statuses as the field manager of ours; it takes fields over from whoever wrote them.
pub(crate) struct ApiSink {
    client: Client,
    kinds: BTreeMap<&'static str, ApiResource>,
}

impl ApiSink {
    pub(crate) fn new(client: Client) -> Self {
        let kinds = [
            ("Export", ApiResource::erase::<Export>(&())),
            ("Import", ApiResource::erase::<Import>(&())),
            ("Peer", ApiResource::erase::<Peer>(&())),
            ("AccessPolicy", ApiResource::erase::<AccessPolicy>(&())),
            (
                "PrivilegedAccessPolicy",
                ApiResource::erase::<PrivilegedAccessPolicy>(&()),
            ),
        ];
        Self {
            client,
            kinds: kinds.into(),
        }
    }
}

impl Sink for ApiSink {
    async fn apply(&self, key: &Key, body: Value) -> Result<(), WriteError> {
        let Some(kind) = self.kinds.get(key.kind()) else {
            return Err(WriteError::Failed(format!("{} has no status", key.kind())));
        };
        let client = self.client.clone();
        let api: Api<DynamicObject> = match &*key.name().namespace {
            "" => Api::all_with(client, kind),
            namespace => Api::namespaced_with(client, namespace, kind),
        };
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let result = api
            .patch_status(&key.name().name, &parameters, &Patch::Apply(body))
            .await;
        match result {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Err(WriteError::Gone),
            Err(kube::Error::Api(status)) if status.is_conflict() => Err(WriteError::Conflict),
            Err(kube::Error::Api(status)) => Err(WriteError::Failed(status.message)),
            Err(error) => Err(WriteError::Failed(error.to_string())),
        }
    }
}
