//! Kubernetes Events: what a person would want to see happen, told once.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clusterlink_crds::{API_VERSION, conditions::reasons};
use clusterlink_model::ObjectName;
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{news::Key, render::shortened};
use crate::{agents::Keeping, leader::Leadership, metrics::Writes, source::Problems};

/// How many Events may wait for the API server; more are dropped, the status says it all the same.
const QUEUE: usize = 1024;
/// How often the log tells at most that Events fail.
const WARN: Duration = Duration::from_secs(60);
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
    /// What was done when it turned out. What is told of one object for one reason, of one action, and
    /// in connection with one other object, is one Event, whatever the note.
    pub action: Cow<'static, str>,
    /// The other object that it has to do with.
    pub related: Option<ObjectReference>,
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
    outcome: Outcome,
}

/// How it went with Events.
#[derive(Clone, Debug, Default)]
struct Outcome {
    writes: Writes,
    failures: Arc<Mutex<Failures>>,
}

/// Those that failed since the log last told.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    told: Option<Instant>,
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
        let outcome = Outcome {
            writes,
            ..Outcome::default()
        };
        (
            Self {
                queue,
                outcome: outcome.clone(),
            },
            publish(Recorder::new(client, reporter), waiting, outcome),
        )
    }
}

impl Teller for Events {
    fn tell(&self, happening: Happening) {
        if let Err(error) = self.queue.try_send(happening) {
            self.outcome.failed(&error);
        }
    }
}

impl Outcome {
    /// An Event could not be published: it is counted, and the log tells of it now and then.
    fn failed(&self, error: &dyn fmt::Display) {
        self.writes.event(false);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.failed(Instant::now()) {
            Some(count) => tracing::warn!(
                %error,
                count,
                "Events cannot be published: what they tell is in the status of their objects, or in this log"
            ),
            None => tracing::debug!(%error, "an Event is not published"),
        }
    }
}

impl Failures {
    /// One more; says how many there were when it is time to tell.
    fn failed(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.told.is_some_and(|told| now < told + WARN) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

async fn publish(recorder: Recorder, mut waiting: mpsc::Receiver<Happening>, outcome: Outcome) {
    while let Some(happening) = waiting.recv().await {
        let event = Event {
            type_: if happening.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: happening.reason,
            note: Some(shortened(happening.note, MAX_NOTE)).filter(|note| !note.is_empty()),
            action: happening.action.into_owned(),
            secondary: happening.related,
        };
        match recorder.publish(&event, &happening.object).await {
            Ok(()) => outcome.writes.event(true),
            Err(error) => outcome.failed(&error),
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
            // Of its own for each condition: several that change at once are as many Events.
            action: format!("Update{}", condition.type_).into(),
            related: None,
            note,
        })
    });
    changed.collect()
}

/// Whether a condition's new state is told, and if so whether it is a warning. That all is well
/// from the start is no news; nor is what nobody can know yet.
fn worth_telling(before: Option<&Condition>, after: &Condition) -> Option<bool> {
    let doubtful = [reasons::CLIENT_WITHOUT_PEER, reasons::NOT_ON_ALL_NODES];
    let doubtful = doubtful.contains(&&*after.reason);
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
    problems: Problems,
    leadership: watch::Receiver<Leadership>,
    teller: impl Teller,
) {
    tell_new(problems, leadership, teller, |problems| {
        let of_objects = problems.iter().filter_map(|problem| {
            let (kind, object) = (problem.kind.clone()?, problem.object.clone()?);
            let happening = undecodable_object(&kind, &object, &problem.message);
            Some(((kind, object), happening))
        });
        of_objects.collect()
    })
    .await;
}

/// Tells of agents that keep a Service from being given up, while this replica leads.
pub(crate) async fn keeping(
    keeping: watch::Receiver<Arc<BTreeSet<Keeping>>>,
    leadership: watch::Receiver<Leadership>,
    teller: impl Teller,
) {
    tell_new(keeping, leadership, teller, |keeping| {
        let all = keeping.iter();
        all.map(|one| (one.clone(), kept_address(one))).collect()
    })
    .await;
}

/// Tells of what is new in a state, each thing once for as long as it is there, while this replica leads.
async fn tell_new<T, K: Ord>(
    mut state: watch::Receiver<Arc<T>>,
    mut leadership: watch::Receiver<Leadership>,
    teller: impl Teller,
    happenings: impl Fn(&T) -> Vec<(K, Happening)>,
) {
    let mut told: BTreeSet<K> = BTreeSet::new();
    loop {
        let current = Arc::clone(&state.borrow_and_update());
        if leadership.borrow_and_update().leading {
            let mut now = BTreeSet::new();
            for (key, happening) in happenings(&current) {
                if !told.contains(&key) {
                    teller.tell(happening);
                }
                now.insert(key);
            }
            told = now;
        } else {
            told.clear();
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

fn kept_address(kept: &Keeping) -> Happening {
    let Keeping {
        service,
        uid,
        addresses,
        node,
        agent,
    } = kept;
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let named = agent
        .as_ref()
        .map_or_else(|| "the agent".to_owned(), |agent| format!("agent {agent}"));
    Happening {
        object: core_object("Service", service, Some(uid.clone())),
        warning: true,
        reason: "AddressKept".to_owned(),
        action: "Release".into(),
        related: agent.as_ref().map(|agent| core_object("Pod", agent, None)),
        note: format!(
            "{} cannot be given up: {named} on node {node} does not say that it has let go; its log says what keeps it; delete its Pod, so that the next agent takes it out of the kernel",
            addresses.join(" and ")
        ),
    }
}

/// What is wrong with an object of the system namespace that this process works with: each thing is told
/// once.
pub(crate) struct Faults {
    kind: &'static str,
    name: ObjectName,
    teller: Option<Arc<dyn Teller>>,
    told: Option<String>,
}

impl Faults {
    pub(crate) fn of(kind: &'static str, name: ObjectName) -> Self {
        Self {
            kind,
            name,
            teller: None,
            told: None,
        }
    }

    /// Tells by this one from here on.
    pub(crate) fn tell_by(&mut self, teller: Arc<dyn Teller>) {
        self.teller = Some(teller);
    }

    /// This is wrong with it; it has this UID, if it is known.
    pub(crate) fn found(&mut self, uid: Option<String>, note: String) {
        if self.told.as_ref() == Some(&note) {
            return;
        }
        if let Some(teller) = &self.teller {
            teller.tell(Happening {
                object: core_object(self.kind, &self.name, uid),
                warning: true,
                reason: "Unusable".to_owned(),
                action: "Read".into(),
                related: None,
                note: note.clone(),
            });
        }
        self.told = Some(note);
    }

    /// All is well with it.
    pub(crate) fn none(&mut self) {
        self.told = None;
    }
}

fn core_object(kind: &str, name: &ObjectName, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name.name.as_ref().to_owned()),
        namespace: Some(name.namespace.as_ref().to_owned()),
        uid,
        ..ObjectReference::default()
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
        action: "Read".into(),
        related: None,
        note: format!("{kind} {object} {message}"),
    }
}

#[cfg(test)]
mod tests;
