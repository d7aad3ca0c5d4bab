//! Writes what is desired to the API server, while this process holds the lease.
//!
//! ```text
//! Desired ─▶ Queue ─▶ at most BUSY requests at once ─▶ API server
//!              ▲ later: failed, or written and not yet seen by the watch
//! ```
//! Every write says which object it is based on, so that what others wrote in between is never
//! overwritten: such a write fails, and the watch leads to a better one.

mod count;
mod queue;

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Service, discovery::v1::EndpointSlice},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use self::queue::{Next, Queue};
use super::{Desired, Kind, Write, WriteKey};
use crate::metrics::WriteResult;
use clusterlink_crds::labels::FIELD_MANAGER;

pub use self::count::{Verb, WriteCounts};

/// How many requests are under way at once.
const BUSY: usize = 16;
/// How long the API server may take for one.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many times in a row a write may fail before its Import's status says so: most failures are
/// races with others, over at once.
const TOLERATED: u32 = 2;

/// The writer of a cluster.
#[expect(missing_debug_implementations, reason = "a client has nothing to show")]
pub struct Writer {
    client: Client,
    desired: Desired,
    leader: watch::Receiver<bool>,
    counts: Arc<WriteCounts>,
}

/// How a write went.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The object is not what it was: a better write follows from the watch.
    #[error("{0}")]
    Outdated(kube::Error),
    #[error("{0}")]
    Refused(kube::Error),
    #[error("{0} cannot be decoded")]
    Undecodable(#[from] serde_json::Error),
    #[error("the API server did not answer within {PATIENCE:?}")]
    Silent,
}

type Done = (WriteKey, Arc<Write>, Result<(), Failure>);

impl Writer {
    /// A writer that is active while `leader` is true.
    pub fn new(client: Client, desired: Desired, leader: watch::Receiver<bool>) -> Self {
        Self {
            client,
            desired,
            leader,
            counts: Arc::default(),
        }
    }

    /// How many requests were sent.
    pub fn counts(&self) -> Arc<WriteCounts> {
        Arc::clone(&self.counts)
    }

    /// Writes until the sender of `leader` is dropped. What is under way when the lease is lost is
    /// given up.
    pub async fn run(mut self) {
        while self.leader.wait_for(|leads| *leads).await.is_ok() {
            let mut leader = self.leader.clone();
            tokio::select! {
                lost = leader.wait_for(|leads| !*leads) => {
                    if lost.is_err() {
                        return;
                    }
                }
                () = self.lead() => return,
            }
        }
    }

    async fn lead(&self) {
        let mut changes = self.desired.changes();
        // All of it, also what was wanted while another replica led.
        let _ = self.desired.take_changed();
        let mut releases = self.desired.releases();
        let mut queue = Queue::new(self.desired.all().into_keys());
        let mut busy: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
        loop {
            let held = self.desired.is_held();
            let released = self.desired.releases();
            if released != releases {
                releases = released;
                queue.read_anew();
            }
            while !held && busy.len() < BUSY {
                let Next::Now(key, write) = queue.next(Instant::now(), |key| self.desired.get(key))
                else {
                    break;
                };
                busy.push(self.send(key, write).boxed());
            }
            let later = queue.wakes_at().filter(|_| !held);
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    queue.changed(self.desired.take_changed());
                }
                Some((key, write, result)) = busy.next() => self.done(&mut queue, &key, write, result),
                () = sleep_until(later.unwrap_or_else(Instant::now)), if later.is_some() && busy.len() < BUSY => {}
            }
        }
    }

    fn done(
        &self,
        queue: &mut Queue,
        key: &WriteKey,
        write: Arc<Write>,
        result: Result<(), Failure>,
    ) {
        let now = Instant::now();
        match result {
            Ok(()) => {
                queue.succeeded(key, write, now);
                self.desired.report(key, None);
            }
            Err(failure) => {
                let failures = queue.failed(key, now);
                if matches!(failure, Failure::Outdated(_)) {
                    tracing::debug!(object = %key, %failure, "written by somebody else too: it is looked at again");
                } else {
                    tracing::warn!(object = %key, %failure, failures, "cannot be written, and is tried again");
                }
                if failures > TOLERATED {
                    self.desired.report(key, Some(failure.to_string()));
                }
            }
        }
    }

    async fn send(&self, key: WriteKey, write: Arc<Write>) -> Done {
        let sent = async {
            match key.kind {
                Kind::Service => self.send_as::<Service>(&key, &write).await,
                Kind::EndpointSlice => self.send_as::<EndpointSlice>(&key, &write).await,
            }
        };
        let result = timeout(PATIENCE, sent).await.unwrap_or_else(|_| {
            self.counts
                .ended(verb_of(&write), key.kind, WriteResult::Failed);
            Err(Failure::Silent)
        });
        (key, write, result)
    }

    async fn send_as<K>(&self, key: &WriteKey, write: &Write) -> Result<(), Failure>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &key.name.namespace);
        match write {
            Write::Create { object, otherwise } => {
                let first = self.create(&api, key.kind, object).await;
                match (first, otherwise) {
                    // An address that is another's by now is refused as invalid.
                    (Err(Failure::Refused(error)), Some(otherwise)) if is(&error, 422) => {
                        self.create(&api, key.kind, otherwise).await
                    }
                    (first, _) => first,
                }
            }
            Write::Patch { patch } => {
                self.counts.add(Verb::Patch, key.kind);
                let parameters = PatchParams {
                    field_manager: Some(FIELD_MANAGER.to_owned()),
                    ..PatchParams::default()
                };
                let patched = api
                    .patch(&key.name.name, &parameters, &Patch::Merge(patch))
                    .await;
                self.settled(Verb::Patch, key.kind, patched.map(drop))
            }
            Write::Delete {
                uid,
                resource_version,
            } => {
                self.counts.add(Verb::Delete, key.kind);
                let parameters = DeleteParams::background().preconditions(Preconditions {
                    uid: Some(uid.clone()),
                    resource_version: Some(resource_version.clone()),
                });
                let deleted = api.delete(&key.name.name, &parameters).await;
                self.settled(Verb::Delete, key.kind, deleted.map(drop))
            }
        }
    }

    async fn create<K>(&self, api: &Api<K>, kind: Kind, object: &Value) -> Result<(), Failure>
    where
        K: Clone + Debug + DeserializeOwned + Serialize,
    {
        self.counts.add(Verb::Create, kind);
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let object = serde_json::from_value(object.clone())?;
        let created = api.create(&parameters, &object).await.map(drop);
        let result = match &created {
            Ok(()) => WriteResult::Written,
            Err(error) if is(error, 409) => WriteResult::Conflict,
            Err(_) => WriteResult::Failed,
        };
        self.counts.ended(Verb::Create, kind, result);
        created.map_err(failure)
    }

    /// An object that is gone needs nothing any more.
    fn settled(&self, verb: Verb, kind: Kind, result: kube::Result<()>) -> Result<(), Failure> {
        let (result, settled) = match result {
            Ok(()) => (WriteResult::Written, Ok(())),
            Err(error) if is(&error, 404) => (WriteResult::Gone, Ok(())),
            Err(error) if is(&error, 409) => (WriteResult::Conflict, Err(failure(error))),
            Err(error) => (WriteResult::Failed, Err(failure(error))),
        };
        self.counts.ended(verb, kind, result);
        settled
    }
}

fn verb_of(write: &Write) -> Verb {
    match write {
        Write::Create { .. } => Verb::Create,
        Write::Patch { .. } => Verb::Patch,
        Write::Delete { .. } => Verb::Delete,
    }
}

fn failure(error: kube::Error) -> Failure {
    if is(&error, 409) {
        Failure::Outdated(error)
    } else {
        Failure::Refused(error)
    }
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

#[cfg(test)]
mod tests;
