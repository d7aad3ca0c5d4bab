//! Writes the status of every object, as the lease holder only.
//!
//! ```text
//! board ── news ──▶ Desk: what is known, what the objects say, what is due ──▶ Sink: server-side apply
//! agents ─ table ─▶   (pure; one write per object and second at most)      └─▶ Events
//! ```
//! Nothing is written that an object says already. Many changes of one object in a row become one
//! write; times and other words that change all the time are written once a minute.

mod desk;
mod limit;
mod sink;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::sink::ApiSink;
use self::{
    desk::{Desk, Write},
    limit::Limit,
};
use super::{
    SharedStatus,
    events::{Happening, Teller},
    news::Key,
};
use crate::{
    agents::{AgentTable, Agents},
    leader::Leadership,
    metrics::{WriteResult, Writes},
};

/// How many writes are under way at once.
const CONCURRENCY: usize = 8;
/// How many writes a second there are in the long run, and how many may come in a row.
const RATE: u32 = 200;
const BURST: u32 = 400;
/// How long the last writes may take when the process stops.
const GRACE: Duration = Duration::from_secs(2);
/// Reports are looked at no more often than this, however many agents send them.
const REPORTS: Duration = Duration::from_millis(500);

/// Where statuses are written to.
pub(crate) trait Sink: Send + Sync + 'static {
    /// Applies a status; the body is that of a server-side apply.
    fn apply(
        &self,
        key: &Key,
        body: serde_json::Value,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;
}

/// Why a status was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// The object is gone.
    #[error("the object is gone")]
    Gone,
    /// The object has changed since it was judged.
    #[error("the object has changed in the meantime")]
    Conflict,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// What the writer reads, and where it tells what it did.
pub(crate) struct Parts<S, T> {
    pub(crate) status: Arc<SharedStatus>,
    pub(crate) agents: Agents,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) system_namespace: String,
    pub(crate) sink: Arc<S>,
    pub(crate) teller: T,
    pub(crate) writes: Writes,
}

/// The writer's task.
pub(crate) struct Writer<S, T> {
    parts: Parts<S, T>,
    settled: watch::Receiver<u64>,
    table: watch::Receiver<Arc<AgentTable>>,
    desk: Desk,
    limit: Limit,
    leading: bool,
    reports_at: Option<Instant>,
}

type Done = (Key, Result<(), WriteError>, Vec<Happening>);

impl<S: Sink, T: Teller> Writer<S, T> {
    /// A writer of what the board says from now on, where the controller was told to collect it.
    pub(crate) fn new(parts: Parts<S, T>) -> Self {
        let settled = parts.status.settled_count();
        let table = parts.agents.table();
        let desk = Desk::new(parts.system_namespace.clone());
        Self {
            parts,
            settled,
            table,
            desk,
            limit: Limit::new(RATE, BURST, Instant::now()),
            leading: false,
            reports_at: None,
        }
    }

    /// Writes until it is stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut under_way: JoinSet<Done> = JoinSet::new();
        self.take_in();
        self.take_reports();
        loop {
            self.follow_leadership(&mut under_way);
            let wake = self.start_writes(&mut under_way);
            let reports_at = self.reports_at;
            tokio::select! {
                biased;
                () = stop.cancelled() => return finish_writes(&mut under_way).await,
                changed = self.parts.leadership.changed() => if changed.is_err() { return },
                changed = self.settled.changed() => {
                    if changed.is_err() { return }
                    self.take_in();
                }
                Some(done) = under_way.join_next() => if let Ok(done) = done {
                    self.finish(done);
                },
                () = sleep_until(reports_at.unwrap_or_else(Instant::now)), if reports_at.is_some() => {
                    self.reports_at = None;
                    self.take_reports();
                }
                changed = self.table.changed(), if reports_at.is_none() => {
                    if changed.is_err() { return }
                    self.reports_at = Some(Instant::now() + REPORTS);
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn take_in(&mut self) {
        self.settled.mark_unchanged();
        self.desk.take_in(self.parts.status.take_news());
    }

    fn take_reports(&mut self) {
        let table = Arc::clone(&self.table.borrow_and_update());
        self.desk.reports(&table);
    }

    fn follow_leadership(&mut self, under_way: &mut JoinSet<Done>) {
        let leading = self.parts.leadership.borrow_and_update().leading;
        if leading == self.leading {
            return;
        }
        self.leading = leading;
        if leading {
            self.desk.lead(Instant::now());
        } else {
            // What has left for the API server may still arrive there; nothing more will.
            under_way.abort_all();
            self.desk.unlead();
        }
    }

    /// Starts what is due, and says when to look again.
    fn start_writes(&mut self, under_way: &mut JoinSet<Done>) -> Option<Instant> {
        if !self.leading {
            return None;
        }
        let now = Instant::now();
        while under_way.len() < CONCURRENCY {
            if let Err(at) = self.limit.ready(now) {
                return Some(at);
            }
            let Some(write) = self.desk.next(now, Timestamp::now()) else {
                break;
            };
            self.limit.take();
            let Write {
                key,
                body,
                happenings,
            } = write;
            let sink = Arc::clone(&self.parts.sink);
            under_way.spawn(async move {
                let result = sink.apply(&key, body).await;
                (key, result, happenings)
            });
        }
        self.desk.next_wake()
    }

    fn finish(&mut self, (key, result, happenings): Done) {
        let kind = key.kind();
        let counted = match &result {
            Ok(()) => WriteResult::Written,
            Err(WriteError::Gone) => WriteResult::Gone,
            Err(WriteError::Conflict) => WriteResult::Conflict,
            Err(WriteError::Failed(_)) => WriteResult::Failed,
        };
        self.parts.writes.count(kind, counted);
        match &result {
            Ok(()) => {
                tracing::debug!(object = %key, "its status is written");
                for happening in happenings {
                    self.parts.teller.tell(happening);
                }
            }
            Err(WriteError::Gone | WriteError::Conflict) => {
                tracing::debug!(object = %key, why = ?result, "its status is not written");
            }
            Err(WriteError::Failed(error)) => {
                tracing::warn!(object = %key, error, "its status cannot be written; it is tried again");
            }
        }
        self.desk.done(&key, &result, Instant::now());
    }
}

/// Lets the writes that are under way end: they must not arrive after those of another leader.
async fn finish_writes(under_way: &mut JoinSet<Done>) {
    let ends = async { while under_way.join_next().await.is_some() {} };
    if timeout(GRACE, ends).await.is_err() {
        under_way.abort_all();
    }
}

#[cfg(test)]
mod tests;
