//! The last valid denies in an object of the system namespace: they outlive the controller's pod.
//!
//! ```text
//! ConfigMap ─ at the start, and when this replica begins to lead ─▶ index
//!     ▲                                                               │ what is valid now
//!     └───────────────── while this replica leads ◀───────────────────┘
//! ```
//! Every replica knows what was valid while it ran. What only an earlier leader has seen is read
//! before the first write, so that it is not lost.

mod content;

use std::{sync::Arc, time::Duration};

use clusterlink_crds::labels::FIELD_MANAGER;
use clusterlink_model::{ObjectName, Policy};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::sleep};
use tracing::{error, warn};

use self::content::ContentError;
use crate::{
    status::events::{Faults, Teller},
    valid_denies::DenyPort,
};

/// The name of the ConfigMap in the system namespace.
pub const VALID_DENIES: &str = "clusterlink-valid-denies";

/// How long to wait after a failure of the API server.
const AGAIN: Duration = Duration::from_secs(1);
/// How long to wait while somebody has to correct the ConfigMap.
const FAULTY: Duration = Duration::from_secs(10);
/// The shortest time between two writes.
const PACE: Duration = Duration::from_millis(200);

/// Reads and writes the ConfigMap.
#[expect(missing_debug_implementations, reason = "a client has nothing to show")]
pub struct Keeper {
    maps: Api<ConfigMap>,
    namespace: String,
    port: DenyPort,
    leader: watch::Receiver<bool>,
    stored: Stored,
    /// The UID of the ConfigMap that was read last.
    uid: Option<String>,
    faults: Faults,
}

/// The ConfigMap as it was read or written last.
#[derive(Default)]
struct Stored {
    map: Option<ConfigMap>,
    denies: Vec<Arc<Policy>>,
    reading: u64,
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("ConfigMap {VALID_DENIES}: {0}")]
    Api(#[from] kube::Error),
    #[error(
        "ConfigMap {namespace}/{VALID_DENIES}: {source}; restore it, or delete it to go on without the denies that are invalid by now"
    )]
    Content {
        namespace: String,
        source: ContentError,
    },
    #[error("{0}: what was stored before stays; delete policies that deny, or merge them")]
    TooMuch(ContentError),
    #[error("ConfigMap {VALID_DENIES} was written by another replica")]
    Raced,
}

impl Keeper {
    /// A keeper for the index at the other end of `port`, which writes while `leader` is true.
    pub fn new(
        client: Client,
        namespace: &str,
        port: DenyPort,
        leader: watch::Receiver<bool>,
    ) -> Self {
        Self {
            maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            port,
            leader,
            stored: Stored::default(),
            uid: None,
            faults: Faults::of("ConfigMap", ObjectName::new(namespace, VALID_DENIES)),
        }
    }

    /// Tells people by Events, too, if something is wrong with the ConfigMap.
    #[must_use]
    pub fn telling(mut self, teller: Arc<dyn Teller>) -> Self {
        self.faults.tell_by(teller);
        self
    }

    /// Goes on until the sender of `leader` is dropped.
    pub async fn run(mut self) {
        self.read().await;
        while self.leader.wait_for(|leads| *leads).await.is_ok() {
            // Another may have written since.
            self.read().await;
            if self.lead().await.is_none() {
                return;
            }
        }
    }

    /// Writes what changes while this replica leads; `None` at the end of the index or the process.
    async fn lead(&mut self) -> Option<()> {
        let mut kept = self.port.kept();
        while *self.leader.borrow_and_update() {
            let wanted = Arc::clone(&kept.borrow_and_update());
            // What was read last has to be part of what is written.
            let due = wanted.reading >= self.stored.reading && wanted.denies != self.stored.denies;
            let pause = if due {
                self.try_write(&wanted.denies).await
            } else {
                None
            };
            if let Some(pause) = pause {
                sleep(pause).await;
                continue;
            }
            tokio::select! {
                changed = kept.changed() => changed.ok()?,
                changed = self.leader.changed() => changed.ok()?,
            }
        }
        Some(())
    }

    /// Writes, and says when to look again if not at the next change.
    async fn try_write(&mut self, denies: &[Arc<Policy>]) -> Option<Duration> {
        match self.write(denies).await {
            Ok(()) => {
                self.faults.none();
                Some(PACE)
            }
            Err(KeepError::Raced) => {
                self.read().await;
                None
            }
            Err(failure @ KeepError::TooMuch(_)) => {
                error!("valid denies cannot be stored: {failure}");
                self.faults.found(self.uid.clone(), failure.to_string());
                None
            }
            Err(failure) => {
                // In force they are all the same; what is at risk is that a restart forgets them.
                warn!(%failure, "valid denies cannot be stored; it is tried again");
                Some(AGAIN)
            }
        }
    }

    async fn write(&mut self, denies: &[Arc<Policy>]) -> Result<(), KeepError> {
        let mut map = self.stored.map.clone().unwrap_or_else(|| ConfigMap {
            metadata: ObjectMeta {
                name: Some(VALID_DENIES.to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        });
        content::put(&mut map, denies).map_err(KeepError::TooMuch)?;
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = match self.stored.map {
            Some(_) => self.maps.replace(VALID_DENIES, &parameters, &map).await,
            None => self.maps.create(&parameters, &map).await,
        };
        match written {
            Ok(map) => {
                self.stored.map = Some(map);
                self.stored.denies = denies.to_vec();
                Ok(())
            }
            Err(kube::Error::Api(status))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                Err(KeepError::Raced)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads until it works, and tells the index: without that it does not know what to deny.
    async fn read(&mut self) {
        loop {
            match self.try_read().await {
                Ok(()) => {
                    self.faults.none();
                    return;
                }
                Err(failure @ KeepError::Content { .. }) => {
                    error!("{failure}");
                    self.faults.found(self.uid.clone(), failure.to_string());
                    sleep(FAULTY).await;
                }
                Err(failure) => {
                    warn!(%failure, "the last valid denies cannot be read; it is tried again");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn try_read(&mut self) -> Result<(), KeepError> {
        let map = self.maps.get_opt(VALID_DENIES).await?;
        self.uid = map.as_ref().and_then(|map| map.metadata.uid.clone());
        let denies = match &map {
            Some(map) => content::read(map).map_err(|source| KeepError::Content {
                namespace: self.namespace.clone(),
                source,
            })?,
            None => Vec::new(),
        };
        self.stored = Stored {
            map,
            reading: self.port.stored(denies.clone()),
            denies,
        };
        Ok(())
    }
}
