//! What agents trust the push servers by, over replicas and restarts.
//!
//! ```text
//! Secret (authorities with their keys) ─▶ this replica's certificates
//!    └─ certificates alone ─▶ ConfigMap ─▶ mounted by agents
//! ```
//! The first replica makes the Secret, the others read it; whoever finds that it is time renews it.

mod secret;

use std::{sync::Arc, time::Duration, time::SystemTime};

use clusterlink_model::ObjectName;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tracing::{error, info, warn};

use self::secret::{DecideError, Fault, Step};
use crate::{
    push::{Authority, AuthorityError, Roots},
    status::events::{Faults, Teller},
};
use clusterlink_crds::labels::FIELD_MANAGER;

/// The name of the Secret and of the ConfigMap in the system namespace.
pub const CA: &str = "clusterlink-controller-ca";
/// The key of the ConfigMap, which is the name of the file that agents read.
pub const CA_KEY: &str = "ca.pem";

/// How long to wait after a failure of the API server, or a race.
const AGAIN: Duration = Duration::from_secs(1);
/// How long to wait while somebody has to correct the Secret.
const FAULTY: Duration = Duration::from_secs(10);
/// How often both objects are looked at again: somebody may have removed or renewed them.
const REFRESH: Duration = Duration::from_secs(300);

/// Keeps the authorities of this replica the same as those of the others.
#[expect(missing_debug_implementations, reason = "a client has nothing to show")]
pub struct Keeper {
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
    namespace: String,
    authority: Arc<Authority>,
    known: Option<Roots>,
    /// The UID of the Secret that was read last.
    uid: Option<String>,
    faults: Faults,
}

/// Why a replica has not got, or not published, its authorities.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Fault(Fault),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("Secret {CA}: {0}")]
    Secret(kube::Error),
    #[error("ConfigMap {CA}: {0}")]
    ConfigMap(kube::Error),
    #[error("Secret {CA} was written by another replica at the same time")]
    Raced,
}

impl From<DecideError> for KeepError {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::Fault(fault) => Self::Fault(fault),
            DecideError::Authority(error) => Self::Authority(error),
        }
    }
}

impl Keeper {
    /// A keeper of the authorities that `authority` signs with.
    pub fn new(client: Client, namespace: &str, authority: Arc<Authority>) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            authority,
            known: None,
            uid: None,
            faults: Faults::of("Secret", ObjectName::new(namespace, CA)),
        }
    }

    /// Tells people by Events, too, if something is wrong with the Secret.
    #[must_use]
    pub fn telling(mut self, teller: Arc<dyn Teller>) -> Self {
        self.faults.tell_by(teller);
        self
    }

    /// Goes on until it is dropped; calls `published` once agents can trust this replica.
    pub async fn run(mut self, published: impl FnOnce()) {
        let mut published = Some(published);
        loop {
            let pause = match self.round().await {
                Ok(()) => {
                    self.faults.none();
                    if let Some(published) = published.take() {
                        published();
                    }
                    REFRESH
                }
                Err(KeepError::Raced) => AGAIN,
                Err(KeepError::Fault(fault)) => {
                    error!(serving = self.known.is_some(), "{fault}");
                    self.faults.found(self.uid.clone(), fault.to_string());
                    FAULTY
                }
                Err(failure) => {
                    warn!(%failure, "cannot share the certificate authority of the push servers");
                    AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn round(&mut self) -> Result<(), KeepError> {
        let roots = self.shared().await?;
        self.authority.set(roots.clone())?;
        self.known = Some(roots);
        self.publish().await.map_err(KeepError::ConfigMap)
    }

    /// The authorities of all replicas, which are made or renewed where it is time.
    async fn shared(&mut self) -> Result<Roots, KeepError> {
        let stored = self.secrets.get_opt(CA).await.map_err(KeepError::Secret)?;
        self.uid = stored
            .as_ref()
            .and_then(|secret| secret.metadata.uid.clone());
        let now = SystemTime::now();
        let step = secret::decide(stored, self.known.as_ref(), &self.namespace, now)?;
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let (written, roots) = match step {
            Step::Use(roots) => return Ok(roots),
            Step::Create(secret, roots) => {
                info!(
                    "making Secret {}/{CA}, which all replicas share",
                    self.namespace
                );
                (self.secrets.create(&parameters, &secret).await, roots)
            }
            Step::Update(secret, roots) => {
                info!("renewing the authorities in Secret {}/{CA}", self.namespace);
                (self.secrets.replace(CA, &parameters, &secret).await, roots)
            }
        };
        match written {
            Ok(_) => Ok(roots),
            // Another was faster: what it wrote counts.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Err(KeepError::Raced)
            }
            Err(error) => Err(KeepError::Secret(error)),
        }
    }

    /// Applies the certificates, which changes nothing unless they did or somebody else wrote.
    async fn publish(&self) -> Result<(), kube::Error> {
        let body = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CA},
            "data": {CA_KEY: self.authority.certificate_pem()},
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        self.maps
            .patch(CA, &parameters, &Patch::Apply(body))
            .await
            .map(drop)
    }
}
