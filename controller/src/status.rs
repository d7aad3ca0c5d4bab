//! What the controller says of every object: conditions, leases and what was left out, with the
//! reason. Whoever shows or writes status reads it from here.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clusterlink_crds::conditions::reasons;
use clusterlink_model::{
    Action, Backend, HostPort, Labels, LbScheme, ObjectName, PeerName, PolicyName,
};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use self::settle_times::SettleTimes;
use crate::source::Problem;

pub(crate) mod board;
#[cfg(feature = "api-server")]
pub mod events;
pub(crate) mod news;
#[cfg(feature = "api-server")]
pub(crate) mod reach;
#[cfg(feature = "api-server")]
pub(crate) mod render;
pub(crate) mod settle_times;
#[cfg(feature = "api-server")]
pub(crate) mod writer;

pub(crate) use board::Board;

/// The status of everything that the controller knows, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControllerStatus {
    /// Grows with every change of anything below.
    pub generation: u64,
    /// Whether every stream of the source has been read completely once.
    pub complete: bool,
    /// What could not be read, or not be stored.
    pub problems: Vec<Problem>,
    /// Imports by name.
    pub imports: Vec<Arc<ImportStatus>>,
    /// Exports by name.
    pub exports: Vec<Arc<ExportStatus>>,
    /// Peer objects by namespace and name.
    pub peers: Vec<Arc<PeerObjectStatus>>,
    /// Policies of both kinds.
    pub policies: Vec<Arc<PolicyStatus>>,
    /// Workloads by namespace and name.
    pub workloads: Vec<Arc<WorkloadStatus>>,
}

/// One Import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportStatus {
    /// Namespace and name.
    pub name: ObjectName,
    /// The port that clients connect to.
    pub port: u16,
    /// The leased addresses; empty while the import is not handed out.
    pub addresses: Vec<IpAddr>,
    /// How a source is chosen.
    pub scheme: LbScheme,
    /// The leased target port.
    pub target_port: Option<u16>,
    /// The sources in the order of the manifest, the invalid ones too.
    pub sources: Vec<SourceStatus>,
    /// `ImportServiceValid` and `ImportTargetPortValid`.
    pub conditions: Vec<Condition>,
    /// The manifest cannot be read any more; its last good content is in force.
    pub stale: bool,
}

/// One source of an Import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The exporting peer, as written.
    pub peer: String,
    /// The Export's name at that peer, as written.
    pub export_name: String,
    /// The Export's namespace at that peer, as written.
    pub export_namespace: String,
    /// Why it is left out, if it is.
    pub invalid: Option<String>,
}

/// One Export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportStatus {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service or Import that it refers to.
    pub host: String,
    /// The port of that.
    pub port: u16,
    /// What it resolves to now.
    pub backend: Backend,
    /// `ExportValid`.
    pub conditions: Vec<Condition>,
    /// The manifest cannot be read any more; its last good content is in force.
    pub stale: bool,
}

/// One Peer object. Whether the peer can be reached is for the gateway to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerObjectStatus {
    /// Namespace and name of the object.
    pub name: ObjectName,
    /// The peer, when the name is one.
    pub peer: Option<PeerName>,
    /// The valid gateways.
    pub gateways: Vec<HostPort>,
    /// The labels that override what the peer says of itself.
    pub labels: Option<Labels>,
    /// `PeerValid`.
    pub conditions: Vec<Condition>,
    /// The manifest cannot be read any more; its last good content is in force.
    pub stale: bool,
}

/// One policy of either kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Which policy.
    pub name: PolicyName,
    /// What is in force under this name: an invalid policy may have nothing, or its last valid deny.
    pub in_force: Option<Action>,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<String>,
    /// `PolicyValid`.
    pub conditions: Vec<Condition>,
    /// What is in force is not what the manifest says now.
    pub stale: bool,
}

/// One Pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Namespace and name.
    pub name: ObjectName,
    /// The service account.
    pub service_account: Arc<str>,
    /// The cgroup, relative to the cgroup v2 root.
    pub cgroup: Option<Arc<str>>,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// `WorkloadValid`.
    pub conditions: Vec<Condition>,
    /// The manifest cannot be read any more; its last good content is in force.
    pub stale: bool,
}

/// A condition in the sense of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is judged, such as `ExportValid`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One word for programs.
    pub reason: &'static str,
    /// For people: the object, the value, and what to do.
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
    /// The object's `metadata.generation` that was judged, where it has one.
    pub observed_generation: Option<i64>,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not, and the message says what to do.
    False,
}

/// A verdict on one aspect of an object, before it is dated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: &'static str,
    pub(crate) holds: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Finding {
    /// The aspect is fine.
    pub(crate) fn valid(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            holds: true,
            reason: reasons::VALID,
            message: message.into(),
        }
    }

    /// The aspect is not fine.
    pub(crate) fn invalid(
        kind: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            holds: false,
            reason,
            message: message.into(),
        }
    }

    /// The condition for this finding; the time of the last transition is that of `before` as
    /// long as the status is the same.
    fn dated(
        self,
        before: &[Condition],
        now: Timestamp,
        observed_generation: Option<i64>,
    ) -> Condition {
        let status = if self.holds {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        let last_transition_time = before
            .iter()
            .find(|condition| condition.kind == self.kind && condition.status == status)
            .map_or(now, |condition| condition.last_transition_time);
        Condition {
            kind: self.kind,
            status,
            reason: self.reason,
            message: self.message,
            last_transition_time,
            observed_generation,
        }
    }
}

/// Dates all findings on one object.
pub(crate) fn dated(
    findings: Vec<Finding>,
    before: &[Condition],
    now: Timestamp,
    observed_generation: Option<i64>,
) -> Vec<Condition> {
    findings
        .into_iter()
        .map(|finding| finding.dated(before, now, observed_generation))
        .collect()
}

/// The status as readers outside the index task see it.
#[derive(Debug, Default)]
pub(crate) struct SharedStatus {
    board: Mutex<Board>,
    /// Counts how often the board was written on.
    settled: watch::Sender<u64>,
    /// The kinds that were not read completely yet.
    missing: watch::Sender<Vec<&'static str>>,
    /// How long settling takes.
    pub(crate) settle_times: SettleTimes,
}

impl SharedStatus {
    /// The current status; built at most once per generation.
    pub(crate) fn snapshot(&self) -> Arc<ControllerStatus> {
        self.lock().snapshot()
    }

    /// Counts how often the board was written on, as it changes.
    #[cfg(feature = "api-server")]
    pub(crate) fn settled_count(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    /// What changed since the last call.
    #[cfg(feature = "api-server")]
    pub(crate) fn take_news(&self) -> news::News {
        self.lock().news.take()
    }

    /// Notes that the board is up to date with all that was read.
    pub(crate) fn settled(&self) {
        self.settled.send_modify(|count| *count += 1);
    }

    /// Notes the kinds that were not read completely yet.
    pub(crate) fn set_missing(&self, kinds: Vec<&'static str>) {
        self.missing.send_if_modified(|missing| {
            let changed = *missing != kinds;
            *missing = kinds;
            changed
        });
    }

    /// The kinds that were not read completely yet, as they get fewer.
    pub(crate) fn missing(&self) -> watch::Receiver<Vec<&'static str>> {
        self.missing.subscribe()
    }

    /// The board, for the index task to write on.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Board> {
        // Entries are replaced one by one and each is whole, so a poisoned board is still right.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
