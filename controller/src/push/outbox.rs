//! What goes to one agent next.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use clusterlink_model::ResourceKey;
use clusterlink_proto::{
    CHUNK, MAX_RESOURCE,
    wire::{self, subscribe_response::Message},
};
use tokio::time::Instant;

use super::metrics::Metrics;
use crate::publish::{Batch, Entry};

/// Answers, then the batch in chunks, each of them after the last was acknowledged.
#[derive(Debug)]
pub(super) struct Outbox {
    patience: Duration,
    metrics: Metrics,
    answers: VecDeque<wire::Answer>,
    heartbeat: bool,
    batch: Option<Sending>,
    unacknowledged: Option<(u64, Instant)>,
    nonce: u64,
    synced: bool,
}

#[derive(Debug)]
struct Sending {
    removals: std::vec::IntoIter<wire::ResourceName>,
    upserts: std::vec::IntoIter<Arc<Entry>>,
}

/// The agent has acknowledged what it was not sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WrongNonce {
    pub(super) nonce: u64,
}

impl Outbox {
    /// An agent gets `patience` to acknowledge each update.
    pub(super) fn new(patience: Duration, metrics: Metrics) -> Self {
        Self {
            patience,
            metrics,
            answers: VecDeque::new(),
            heartbeat: false,
            batch: None,
            unacknowledged: None,
            nonce: 0,
            synced: false,
        }
    }

    /// Begins to send a batch; the first one of a stream ends with the marker.
    pub(super) fn begin(&mut self, batch: Batch, others: Vec<wire::ResourceName>) {
        let mut removals = others;
        removals.extend(batch.removals.iter().map(|key: &ResourceKey| key.into()));
        self.batch = Some(Sending {
            removals: removals.into_iter(),
            upserts: batch.upserts.into_iter(),
        });
    }

    pub(super) fn answer(&mut self, answer: wire::Answer) {
        self.answers.push_back(answer);
    }

    pub(super) fn answers(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn heartbeat(&mut self) {
        self.heartbeat = true;
    }

    /// Whether the next batch may be taken from the log.
    pub(super) fn is_idle(&self) -> bool {
        self.batch.is_none() && self.unacknowledged.is_none()
    }

    /// Whether everything of the first batch was acknowledged.
    pub(super) fn is_synced(&self) -> bool {
        self.synced && self.is_idle()
    }

    /// Whether there is something to send now.
    pub(super) fn has_something(&self) -> bool {
        let chunk = self.batch.is_some() && self.unacknowledged.is_none();
        !self.answers.is_empty() || chunk || self.heartbeat
    }

    /// When the agent has been waited for long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unacknowledged.map(|(_, deadline)| deadline)
    }

    /// Takes what goes next.
    pub(super) fn pop(&mut self) -> Option<wire::SubscribeResponse> {
        // Anything that is sent shows that we live.
        self.heartbeat &= !self.has_more_than_a_heartbeat();
        let message = if let Some(answer) = self.answers.pop_front() {
            Message::Answer(answer)
        } else if self.unacknowledged.is_none()
            && let Some(mut sending) = self.batch.take()
        {
            let update = self.chunk(&mut sending);
            if update.more {
                self.batch = Some(sending);
            }
            Message::Update(update)
        } else if std::mem::take(&mut self.heartbeat) {
            Message::Heartbeat(wire::Heartbeat {})
        } else {
            return None;
        };
        let message = Some(message);
        Some(wire::SubscribeResponse { message })
    }

    /// Takes an acknowledgement.
    pub(super) fn acknowledged(&mut self, nonce: u64) -> Result<(), WrongNonce> {
        match self.unacknowledged {
            Some((expected, _)) if expected == nonce => {
                self.unacknowledged = None;
                Ok(())
            }
            _ => Err(WrongNonce { nonce }),
        }
    }

    fn has_more_than_a_heartbeat(&self) -> bool {
        let chunk = self.batch.is_some() && self.unacknowledged.is_none();
        !self.answers.is_empty() || chunk
    }

    fn chunk(&mut self, sending: &mut Sending) -> wire::Update {
        let mut bytes = 0;
        let mut update = wire::Update::default();
        while bytes < CHUNK
            && let Some(name) = sending.removals.next()
        {
            bytes += name.namespace.len() + name.name.len() + 8;
            update.removals.push(name);
        }
        while bytes < CHUNK
            && let Some(entry) = sending.upserts.next()
        {
            let upsert = entry.encoded().upsert();
            if upsert.len() > MAX_RESOURCE {
                self.metrics.oversized();
                tracing::error!(
                    resource = ?entry.resource.key(),
                    bytes = upsert.len(),
                    "a resource is too large for agents and is not sent: make it smaller"
                );
                continue;
            }
            bytes += upsert.len();
            update.upserts.push(upsert.clone());
        }
        update.more =
            !(sending.removals.as_slice().is_empty() && sending.upserts.as_slice().is_empty());
        update.synced = !update.more;
        self.synced |= update.synced;
        self.nonce += 1;
        update.nonce = self.nonce;
        self.unacknowledged = Some((self.nonce, Instant::now() + self.patience));
        (self.metrics).sent(update.upserts.len(), update.removals.len(), bytes);
        update
    }
}

#[cfg(test)]
mod tests;
