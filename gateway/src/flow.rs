//! The flow log: every connection that is open, and the last ones that ended.
//!
//! A worker owns its live flows; readers (status, `clusterlink flows`) take copies. Byte counters
//! are atomics that only the owning worker writes.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use clusterlink_model::{ObjectName, PeerName, policy::Decision};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Which side of the tunnel this gateway is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// A local client, a remote service.
    Egress,
    /// A remote client, a local service.
    Ingress,
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// Both directions ended in order.
    Completed,
    /// The client reset the connection.
    ClientReset,
    /// The backend reset the connection.
    BackendReset,
    /// The other peer's gateway reset the stream.
    PeerReset,
    /// The session to the other peer was lost.
    SessionLost,
    /// Policy denies it (at the start, or since a change).
    Denied,
    /// No source was left to try.
    NoSource,
    /// The client could not be identified within two seconds.
    IdentityUnknown,
    /// An outside address, which is not opened.
    Outside,
    /// The Import, Export or Peer is gone.
    Removed,
    /// The gateway has no complete snapshot yet.
    NotReady,
    /// A limit of this gateway was reached.
    Overloaded,
    /// The gateway is stopping.
    Shutdown,
}

impl EndReason {
    /// The reason as shown to people and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientReset => "client-reset",
            Self::BackendReset => "backend-reset",
            Self::PeerReset => "peer-reset",
            Self::SessionLost => "session-lost",
            Self::Denied => "denied",
            Self::NoSource => "no-source",
            Self::IdentityUnknown => "identity-unknown",
            Self::Outside => "outside",
            Self::Removed => "removed",
            Self::NotReady => "not-ready",
            Self::Overloaded => "overloaded",
            Self::Shutdown => "shutdown",
        }
    }
}

/// One attempt at a source that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The peer that was tried.
    pub peer: PeerName,
    /// The export that was tried.
    pub export: ObjectName,
    /// Why it did not serve, in a few words.
    pub outcome: String,
}

/// A copy of what is known of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowRecord {
    /// Unique within this process.
    pub id: u64,
    /// Which side we are on.
    pub direction: Direction,
    /// Start, milliseconds since the epoch.
    pub started_ms: u64,
    /// The client: `pod namespace/name`, `host`, `outside`, `unknown`; on ingress what the
    /// calling peer attests.
    pub client: String,
    /// The client's address (egress), or the calling gateway's (ingress).
    pub client_address: Option<SocketAddr>,
    /// The import that was asked for (egress).
    pub import: Option<ObjectName>,
    /// The other peer.
    pub peer: Option<PeerName>,
    /// The export that serves it.
    pub export: Option<ObjectName>,
    /// The backend that was dialled (ingress).
    pub backend: Option<SocketAddr>,
    /// What policy said last.
    pub decision: Option<Decision>,
    /// Sources that were tried before.
    pub attempts: Vec<Attempt>,
    /// Bytes from the client towards the service.
    pub bytes_sent: u64,
    /// Bytes from the service towards the client.
    pub bytes_received: u64,
    /// End, milliseconds since the epoch; `None` while open.
    pub ended_ms: Option<u64>,
    /// Why it ended; `None` while open.
    pub reason: Option<EndReason>,
    /// More about the end, for people.
    pub detail: Option<String>,
}

/// A live flow: the record, and its counters.
#[derive(Debug)]
pub struct Flow {
    record: Mutex<FlowRecord>,
    /// Bytes from the client towards the service.
    pub sent: AtomicU64,
    /// Bytes from the service towards the client.
    pub received: AtomicU64,
}

impl Flow {
    /// Changes the record.
    pub fn update(&self, change: impl FnOnce(&mut FlowRecord)) {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A copy with current counters.
    pub fn record(&self) -> FlowRecord {
        let mut record = self
            .record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        record.bytes_sent = self.sent.load(Relaxed);
        record.bytes_received = self.received.load(Relaxed);
        record
    }
}

/// How many ended flows are remembered.
const RECENT: usize = 4096;

/// The flow log of a gateway.
#[derive(Debug)]
pub struct FlowLog {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Arc<Flow>>>,
    recent: Mutex<VecDeque<FlowRecord>>,
    events: broadcast::Sender<FlowRecord>,
}

impl Default for FlowLog {
    fn default() -> Self {
        let (events, _) = broadcast::channel(1024);
        Self {
            next: AtomicU64::new(1),
            live: Mutex::default(),
            recent: Mutex::default(),
            events,
        }
    }
}

impl FlowLog {
    /// Opens a flow that starts now.
    pub fn open(&self, direction: Direction) -> Arc<Flow> {
        let id = self.next.fetch_add(1, Relaxed);
        let flow = Arc::new(Flow {
            record: Mutex::new(FlowRecord {
                id,
                direction,
                started_ms: now_ms(),
                client: String::new(),
                client_address: None,
                import: None,
                peer: None,
                export: None,
                backend: None,
                decision: None,
                attempts: Vec::new(),
                bytes_sent: 0,
                bytes_received: 0,
                ended_ms: None,
                reason: None,
                detail: None,
            }),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        });
        self.live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, flow.clone());
        flow
    }

    /// Ends a flow; the first reason given stays.
    pub fn close(&self, flow: &Flow, reason: EndReason, detail: Option<String>) {
        let mut record = flow.record();
        if self
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&record.id)
            .is_none()
        {
            return;
        }
        record.ended_ms = Some(now_ms());
        record.reason = Some(reason);
        record.detail = detail;
        self.remember(record);
    }

    /// Adds a flow that ended before it reached the gateway (refused in the kernel); its id is
    /// replaced by a fresh one.
    pub fn refused(&self, mut record: FlowRecord) {
        record.id = self.next.fetch_add(1, Relaxed);
        self.remember(record);
    }

    /// Flows that are open, oldest first.
    pub fn live(&self) -> Vec<FlowRecord> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records: Vec<_> = live.values().map(|flow| flow.record()).collect();
        records.sort_by_key(|record| record.id);
        records
    }

    /// Flows that ended, oldest first, at most the last 4,096.
    pub fn recent(&self) -> Vec<FlowRecord> {
        self.recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Flows as they end, from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<FlowRecord> {
        self.events.subscribe()
    }

    fn remember(&self, record: FlowRecord) {
        if self.events.receiver_count() > 0 {
            // Nobody listening any more is no error.
            let _ = self.events.send(record.clone());
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(record);
    }
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
