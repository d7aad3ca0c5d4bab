//! Kubernetes Events: what a person would want to see happen, told once.

use std::{collections::BTreeSet, sync::Arc};

use clusterlink_crds::{API_VERSION, conditions::reasons};
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::{mpsc, watch};

use super::{news::Key, render::shortened};
use crate::{leader::Leadership, metrics::Writes, source::Problems};

/// How many Events may wait for the API server; more are dropped, the status says it all the same.
const QUEUE: usize = 1024;
/// What the API server admits of a note.
const MAX_NOTE: usize = 1024;
/// Who reports.
const REPORTER: &str = "clusterlink-controller";

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// The object.
    pub object: ObjectReference,
    /// An operator should look.
    pub warning: bool,
    /// One word for programs.
    pub reason: String,
    /// What was done when it turned out.
    pub action: &'static str,
    /// For people.
    pub note: String,
}

/// Who tells people.
pub trait Teller: Send + Sync + 'static {
    /// Tells, at some time soon.
    fn tell(&self, happening: Happening);
}

/// Tells by Events. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Happening>,
}

impl Events {
    /// A teller, and the task that speaks to the API server.
    pub(crate) fn new(
        client: Client,
        identity: &str,
        writes: Writes,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let reporter = Reporter {
            controller: REPORTER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        (
            Self { queue },
            publish(Recorder::new(client, reporter), waiting, writes),
        )
    }
}

impl Teller for Events {
    fn tell(&self, happening: Happening) {
        if let Err(error) = self.queue.try_send(happening) {
            tracing::debug!(%error, "an Event is dropped");
        }
    }
}

async fn publish(recorder: Recorder, mut waiting: mpsc::Receiver<Happening>, writes: Writes) {
    while let Some(happening) = waiting.recv().await {
        let event = Event {
            type_: if happening.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: happening.reason,
            note: Some(shortened(happening.note, MAX_NOTE)).filter(|note| !note.is_empty()),
            action: happening.action.to_owned(),
            secondary: None,
        };
        let result = recorder.publish(&event, &happening.object).await;
        writes.event(result.is_ok());
        if let Err(error) = result {
            tracing::debug!(%error, "an Event is not published");
        }
    }
}

/// What people should hear of a change of an object's conditions.
pub(crate) fn of_change(
    key: &Key,
    metadata: &ObjectMeta,
    before: &[Condition],
    after: &[Condition],
) -> Vec<Happening> {
    let changed = after.iter().filter_map(|condition| {
        let before = before.iter().find(|before| before.type_ == condition.type_);
        let warning = worth_telling(before, condition)?;
        let note = if condition.message.is_empty() {
            format!("{} is {}", condition.type_, condition.status)
        } else {
            format!(
                "{} is {}: {}",
                condition.type_, condition.status, condition.message
            )
        };
        Some(Happening {
            object: reference(key.kind(), metadata),
            warning,
            reason: condition.reason.clone(),
            action: "UpdateStatus",
            note,
        })
    });
    changed.collect()
}

/// Whether a condition's new state is told, and if so whether it is a warning. That all is well
/// from the start is no news; nor is what nobody can know yet.
fn worth_telling(before: Option<&Condition>, after: &Condition) -> Option<bool> {
    let doubtful = after.reason == reasons::CLIENT_WITHOUT_PEER;
    let was = before.map(|before| (&*before.status, &*before.reason));
    match (was, &*after.status) {
        (Some((status, reason)), now) if status == now => {
            (reason != after.reason && (now == "False" || doubtful)).then_some(true)
        }
        (None, "True") => doubtful.then_some(true),
        (None, "False") => Some(true),
        (Some(_), "True") => Some(doubtful),
        (Some(_), "False") => Some(true),
        (Some(("True", _)), _) => Some(true),
        _ => None,
    }
}

fn reference(kind: &str, metadata: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(kind.to_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// Tells of objects that cannot be decoded, while this replica leads. Their status cannot be
/// written, since nobody knows what they are.
pub(crate) async fn undecodable(
    mut problems: Problems,
    mut leadership: watch::Receiver<Leadership>,
    teller: impl Teller,
) {
    let mut told: BTreeSet<(Arc<str>, Arc<str>)> = BTreeSet::new();
    loop {
        let current = Arc::clone(&problems.borrow_and_update());
        if leadership.borrow_and_update().leading {
            let mut now = BTreeSet::new();
            for problem in current.iter() {
                let (Some(kind), Some(object)) = (&problem.kind, &problem.object) else {
                    continue;
                };
                let key = (Arc::from(&**kind), Arc::from(&**object));
                if !told.contains(&key) {
                    teller.tell(undecodable_object(kind, object, &problem.message));
                }
                now.insert(key);
            }
            told = now;
        } else {
            told.clear();
        }
        tokio::select! {
            changed = problems.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

fn undecodable_object(kind: &str, object: &str, message: &str) -> Happening {
    let (namespace, name) = match object.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, object),
    };
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace,
        ..ObjectMeta::default()
    };
    Happening {
        object: reference(kind, &metadata),
        warning: true,
        reason: "Undecodable".to_owned(),
        action: "Read",
        note: format!("{kind} {object} {message}"),
    }
}

#[cfg(test)]
mod tests;
