//! What is known, what the objects say, and what is therefore to be written, and when. Pure: time
//! is an argument.

mod later;
mod slot;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use clusterlink_crds::API_VERSION;
use clusterlink_model::PeerName;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::{
    later::Later,
    slot::{Sent, Slot},
};
use super::WriteError;
use crate::{
    agents::AgentTable,
    status::{
        events::{self, Happening},
        news::{Entry, Key, News},
        reach::Reach,
        render::{Context, Rendered},
    },
};

/// The shortest time between two writes of one object.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two writes that tell nothing new but times.
pub(super) const REFRESH: Duration = Duration::from_secs(60);
/// How long versions that the watch tells may still be from before a write. While it tells none,
/// what was written counts.
pub(super) const ECHO: Duration = Duration::from_secs(5);
/// How long agents may take to report to a new leader.
pub(super) const HEARING: Duration = Duration::from_secs(20);
/// The longest pause after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Everything that the writer knows.
#[derive(Debug)]
pub(super) struct Desk {
    system_namespace: String,
    slots: BTreeMap<Key, Slot>,
    /// What may differ from what its object says.
    dirty: BTreeSet<Key>,
    /// What is to be looked at again, and when.
    later: Later,
    reach: Reach,
    /// The peers that have a Peer object.
    peers: BTreeSet<PeerName>,
    /// The Peers and Imports that a peer's state is shown in.
    by_peer: HashMap<PeerName, BTreeSet<Key>>,
    /// Until when agents may still be about to report.
    hearing_until: Option<Instant>,
}

/// A write to be started.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) key: Key,
    pub(super) body: Value,
    /// What people should hear once it is written.
    pub(super) happenings: Vec<Happening>,
}

impl Desk {
    pub(super) fn new(system_namespace: String) -> Self {
        Self {
            system_namespace,
            slots: BTreeMap::new(),
            dirty: BTreeSet::new(),
            later: Later::default(),
            reach: Reach::default(),
            peers: BTreeSet::new(),
            by_peer: HashMap::new(),
            hearing_until: None,
        }
    }

    /// Takes in what was read and judged.
    pub(super) fn take_in(&mut self, news: News) {
        for (key, entry) in news {
            let old = self.slots.get(&key).map(|slot| peers_of(&slot.entry));
            let new = entry.as_ref().map(peers_of);
            if old != new {
                self.relink(&key, &old.unwrap_or_default(), &new.unwrap_or_default());
            }
            let Some(entry) = entry else {
                self.slots.remove(&key);
                self.dirty.remove(&key);
                self.later.remove(&key);
                continue;
            };
            match self.slots.get_mut(&key) {
                Some(slot) => slot.entry = entry,
                None => {
                    let slot = Slot::new(entry);
                    self.slots.insert(key.clone(), slot);
                }
            }
            self.dirty.insert(key);
        }
    }

    /// Takes in what the agents say.
    pub(super) fn reports(&mut self, table: &AgentTable) {
        let changed = self.reach.update(table);
        let refreshed: Vec<_> = if changed.any_agent {
            self.by_peer.keys().cloned().collect()
        } else {
            changed.peers.into_iter().collect()
        };
        for peer in refreshed {
            self.dirty
                .extend(self.by_peer.get(&peer).into_iter().flatten().cloned());
        }
        // Round-trip times and the like change with every report: a Peer looks at them when it
        // may be written again.
        let peers = self.slots.keys().filter(|key| matches!(key, Key::Peer(_)));
        self.dirty.extend(peers.cloned());
        self.dirty
            .extend(changed.imports.into_iter().map(Key::Import));
    }

    /// Begins to lead: whatever was written by others meanwhile, all is looked at.
    pub(super) fn lead(&mut self, now: Instant) {
        self.later.clear();
        self.dirty.extend(self.slots.keys().cloned());
        self.hearing_until = Some(now + HEARING);
    }

    /// Leads no more: what was under way may have arrived or not.
    pub(super) fn unlead(&mut self) {
        for slot in self.slots.values_mut() {
            slot.under_way = None;
            slot.sent = None;
            slot.failures = 0;
            slot.again = false;
        }
        self.hearing_until = None;
    }

    /// When to look again, if nothing happens before.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        (self.later.first().into_iter())
            .chain(self.hearing_until)
            .min()
    }

    /// The next write that is due.
    pub(super) fn next(&mut self, now: Instant, time: Timestamp) -> Option<Write> {
        self.wake(now);
        while let Some(key) = self.dirty.pop_first() {
            if let Some(write) = self.look_at(&key, now, time) {
                return Some(write);
            }
        }
        None
    }

    /// Takes in how a write ended.
    pub(super) fn done(&mut self, key: &Key, result: &Result<(), WriteError>, now: Instant) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let written = slot.under_way.take();
        let again = match result {
            Ok(()) => {
                slot.failures = 0;
                slot.sent = written.map(|(status, over)| Sent {
                    status,
                    at: now,
                    over,
                });
                now + ECHO
            }
            // What it is now is on its way by the watch.
            Err(WriteError::Gone) => now + ECHO,
            Err(WriteError::Conflict | WriteError::Failed(_)) => {
                slot.failures = slot.failures.saturating_add(1);
                now + backoff(slot.failures)
            }
        };
        self.later.set(key, again);
        if std::mem::take(&mut slot.again) && result.is_ok() {
            self.dirty.insert(key.clone());
        }
    }

    fn wake(&mut self, now: Instant) {
        if self.hearing_until.is_some_and(|until| until <= now) {
            self.hearing_until = None;
            self.dirty.extend(self.by_peer.values().flatten().cloned());
        }
        while let Some(key) = self.later.pop(now) {
            self.dirty.insert(key);
        }
    }

    fn look_at(&mut self, key: &Key, now: Instant, time: Timestamp) -> Option<Write> {
        let slot = self.slots.get_mut(key)?;
        if slot.under_way.is_some() {
            slot.again = true;
            return None;
        }
        let context = Context {
            reach: &self.reach,
            peers: &self.peers,
            system_namespace: &self.system_namespace,
            heard_all: self.hearing_until.is_none(),
            now: time,
        };
        let observed = slot.observed(now);
        let desired = Rendered::desired(&slot.entry, &observed, &context);
        if desired == observed {
            return None;
        }
        let firmly = desired.differs_firmly(&observed);
        if !firmly {
            // A new leader takes it that its predecessor wrote just now.
            slot.written_at.get_or_insert(now);
        }
        let pause = match (slot.failures, firmly) {
            (0, true) => PAUSE,
            (0, false) => REFRESH,
            (failures, _) => backoff(failures),
        };
        if let Some(not_before) = slot.written_at.map(|at| at + pause).filter(|at| *at > now) {
            self.later.set_earlier(key, not_before);
            return None;
        }
        let metadata = slot.entry.metadata();
        let happenings =
            events::of_change(key, metadata, observed.conditions(), desired.conditions());
        let body = body(key, metadata, &observed, &desired);
        slot.written_at = Some(now);
        let version = metadata.resource_version.clone();
        slot.under_way = Some((desired, version));
        Some(Write {
            key: key.clone(),
            body,
            happenings,
        })
    }

    /// Keeps [`Self::by_peer`] and [`Self::peers`]; an Import's sources change with the Peers.
    fn relink(&mut self, key: &Key, old: &BTreeSet<PeerName>, new: &BTreeSet<PeerName>) {
        for peer in old.difference(new) {
            if let Some(keys) = self.by_peer.get_mut(peer) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_peer.remove(peer);
                }
            }
        }
        for peer in new.difference(old) {
            self.by_peer
                .entry(peer.clone())
                .or_default()
                .insert(key.clone());
        }
        if matches!(key, Key::Peer(_)) {
            for peer in old.symmetric_difference(new) {
                let named = self.by_peer.get(peer).into_iter().flatten();
                if named.clone().any(|key| matches!(key, Key::Peer(_))) {
                    self.peers.insert(peer.clone());
                } else {
                    self.peers.remove(peer);
                }
                self.dirty.extend(named.cloned());
            }
        }
    }
}

impl Entry {
    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Export(one) => &one.object.metadata,
            Self::Import(one) => &one.object.metadata,
            Self::Peer(one) => &one.object.metadata,
            Self::AccessPolicy(one) => &one.object.metadata,
            Self::PrivilegedAccessPolicy(one) => &one.object.metadata,
        }
    }
}

/// The peers whose state an object shows.
fn peers_of(entry: &Entry) -> BTreeSet<PeerName> {
    match entry {
        Entry::Import(one) => {
            let valid = one
                .status
                .sources
                .iter()
                .filter(|source| source.invalid.is_none());
            valid
                .filter_map(|source| PeerName::new(&source.peer).ok())
                .collect()
        }
        Entry::Peer(one) => one.status.peer.iter().cloned().collect(),
        Entry::Export(_) | Entry::AccessPolicy(_) | Entry::PrivilegedAccessPolicy(_) => {
            BTreeSet::new()
        }
    }
}

/// A server-side apply of the whole status. A target port is a lease: it is written only into the
/// very version of the object that the decision was made upon.
fn body(key: &Key, read: &ObjectMeta, observed: &Rendered, desired: &Rendered) -> Value {
    let mut metadata = json!({ "name": read.name });
    if let Some(namespace) = &read.namespace {
        metadata["namespace"] = json!(namespace);
    }
    if observed.target_port() != desired.target_port() {
        metadata["resourceVersion"] = json!(read.resource_version);
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": key.kind(),
        "metadata": metadata,
        "status": desired,
    })
}

fn backoff(failures: u32) -> Duration {
    (PAUSE * 2_u32.saturating_pow(failures.saturating_sub(1).min(6))).min(MAX_BACKOFF)
}
