//! One object: what is known of it, and what was written.

use tokio::time::Instant;

use super::ECHO;
use crate::status::{news::Entry, render::Rendered};

/// One object.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) entry: Entry,
    /// What was written last, until it is read back.
    pub(super) sent: Option<Sent>,
    pub(super) written_at: Option<Instant>,
    pub(super) failures: u32,
    pub(super) under_way: Option<(Rendered, Option<String>)>,
    /// It became due while a write was under way.
    pub(super) again: bool,
}

/// A status that was written.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) status: Rendered,
    pub(super) at: Instant,
    /// The version of the object that it went over.
    pub(super) over: Option<String>,
}

impl Slot {
    pub(super) fn new(entry: Entry) -> Self {
        Self {
            entry,
            sent: None,
            written_at: None,
            failures: 0,
            under_way: None,
            again: false,
        }
    }

    /// What the object says, as far as is known: what was written counts until it is read back.
    pub(super) fn observed(&mut self, now: Instant) -> Rendered {
        let read = Rendered::observed(&self.entry);
        if let Some(sent) = &self.sent {
            let version = &self.entry.metadata().resource_version;
            let still_to_come = *version == sent.over || now < sent.at + ECHO;
            if sent.status != read && still_to_come {
                return sent.status.clone();
            }
        }
        self.sent = None;
        read
    }
}
