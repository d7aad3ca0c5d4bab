//! The election as one replica sees it, without a client and without a clock of its own.

use std::time::Duration;

use tokio::time::Instant;

use super::{Leadership, Timing};

/// What the Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; none after it was released.
    pub holder: Option<String>,
    /// For how long after each renewal.
    pub duration: Duration,
    /// How often it went to another holder.
    pub transitions: i32,
    /// Changes with every write.
    pub version: String,
}

/// What is to be done after a look at the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none: create it.
    Create,
    /// Write ourselves into the version that was read.
    Update {
        /// The version that the write has to replace.
        version: String,
        /// How often it went to another holder, this time included.
        transitions: i32,
        /// Whether it goes to us only now.
        acquires: bool,
    },
    /// Another holds it.
    Wait,
}

/// The state of the election.
#[derive(Debug)]
pub struct Elector {
    identity: String,
    timing: Timing,
    /// The version that was read last, and since when it is that one.
    seen: Option<(String, Instant)>,
    holder: Option<String>,
    /// Until when we may write.
    until: Option<Instant>,
}

impl Elector {
    /// A replica that has not looked yet.
    pub fn new(identity: String, timing: Timing) -> Self {
        Self {
            identity,
            timing,
            seen: None,
            holder: None,
            until: None,
        }
    }

    /// Takes in what was read, and says what to do.
    pub fn read(&mut self, record: Option<Record>, now: Instant) -> Step {
        let Some(record) = record else {
            // Somebody deleted it: whoever creates it is the next holder.
            self.seen = None;
            self.holder = None;
            self.until = None;
            return Step::Create;
        };
        let since = match &self.seen {
            Some((version, since)) if *version == record.version => *since,
            _ => now,
        };
        self.seen = Some((record.version.clone(), since));
        self.holder = record.holder.filter(|holder| !holder.is_empty());
        let ours = self.holder.as_deref() == Some(&*self.identity);
        if !ours {
            self.until = None;
        }
        let held_by_another = !ours && self.holder.is_some() && now < since + record.duration;
        if held_by_another {
            return Step::Wait;
        }
        Step::Update {
            version: record.version,
            transitions: record.transitions.saturating_add(i32::from(!ours)),
            acquires: !ours,
        }
    }

    /// Takes in that a write which began at `began` succeeded.
    pub fn wrote(&mut self, version: String, began: Instant) {
        self.seen = Some((version, began));
        self.holder = Some(self.identity.clone());
        // Others count from when they see the write, which is after its beginning.
        self.until = Some(began + self.timing.renew_deadline);
    }

    /// Until when we may write without another renewal.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// What holds at `now`.
    pub fn leadership(&self, now: Instant) -> Leadership {
        Leadership {
            leading: self.until.is_some_and(|until| now < until),
            holder: self.holder.clone(),
        }
    }

    /// Gives up, and says which version to write the release into, if we hold it at all.
    pub fn release(&mut self, now: Instant) -> Option<String> {
        let held = self.until.take().is_some_and(|until| now < until);
        let seen = self.seen.as_ref().filter(|_| held);
        seen.map(|(version, _)| version.clone())
    }
}

#[cfg(test)]
mod tests;
