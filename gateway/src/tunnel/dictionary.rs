//! The dictionaries of a session: workload attributes and export names are sent once and then
//! named by number. An entry is immutable and its number is never used again, so that a verdict
//! may be remembered for it.

use std::{collections::HashMap, sync::Arc};

use clusterlink_model::{ObjectName, WorkloadAttributes};
use prost::Message;

use crate::tunnel::{
    frame::{self, FrameType},
    message::{Definition, Limits, decode, wire},
    violation::Violation,
};

/// Why something cannot be defined for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undefinable {
    /// It does not fit what the peer grants, even alone.
    TooLarge,
    /// A name in it is none that the peer would take.
    InvalidName,
}

/// What we have defined for the peer. The entry used longest ago makes room for a new one.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    own: HashMap<Arc<WorkloadAttributes>, Slot>,
    relayed: HashMap<Arc<WorkloadAttributes>, Slot>,
    exports: HashMap<ObjectName, Slot>,
    last_id: u32,
    uses: u64,
    cost: usize,
}

#[derive(Debug)]
struct Slot {
    id: u32,
    used: u64,
    cost: usize,
}

impl Outgoing {
    /// The number of a workload's attributes, defined now if need be.
    pub(crate) fn workload(
        &mut self,
        attributes: &Arc<WorkloadAttributes>,
        relayed: bool,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<u32, Undefinable> {
        self.uses += 1;
        let known = if relayed {
            &mut self.relayed
        } else {
            &mut self.own
        };
        if let Some(slot) = known.get_mut(&**attributes) {
            slot.used = self.uses;
            return Ok(slot.id);
        }
        let id = self.last_id.checked_add(1).ok_or(Undefinable::TooLarge)?;
        let slot = self.define(
            &wire::Define::workload(id, attributes, relayed),
            limits,
            out,
        )?;
        let known = if relayed {
            &mut self.relayed
        } else {
            &mut self.own
        };
        known.insert(attributes.clone(), slot);
        Ok(id)
    }

    /// The number of an export, defined now if need be.
    pub(crate) fn export(
        &mut self,
        export: &ObjectName,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<u32, Undefinable> {
        self.uses += 1;
        if let Some(slot) = self.exports.get_mut(export) {
            slot.used = self.uses;
            return Ok(slot.id);
        }
        let id = self.last_id.checked_add(1).ok_or(Undefinable::TooLarge)?;
        let slot = self.define(&wire::Define::export(id, export), limits, out)?;
        self.exports.insert(export.clone(), slot);
        Ok(id)
    }

    fn define(
        &mut self,
        define: &wire::Define,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<Slot, Undefinable> {
        if !define.is_valid() {
            return Err(Undefinable::InvalidName);
        }
        let cost = define.cost(define.encoded_len());
        let bytes = limits.dictionary_bytes as usize;
        // Two entries must fit at once, because an OPEN names a workload and an export.
        if cost > bytes / 2 || define.encoded_len() > frame::MAX_CONTROL {
            return Err(Undefinable::TooLarge);
        }
        while self.len() >= limits.dictionary_entries as usize || self.cost + cost > bytes {
            self.forget_oldest(out);
        }
        frame::push_message(out, 0, FrameType::Define, define)
            .map_err(|_| Undefinable::TooLarge)?;
        self.last_id = define.id;
        self.cost += cost;
        Ok(Slot {
            id: define.id,
            used: self.uses,
            cost,
        })
    }

    fn len(&self) -> usize {
        self.own.len() + self.relayed.len() + self.exports.len()
    }

    /// A scan: it happens only when an unknown entry meets a full dictionary.
    fn forget_oldest(&mut self, out: &mut Vec<u8>) {
        let slots = self
            .own
            .values()
            .chain(self.relayed.values())
            .chain(self.exports.values());
        let oldest = slots.min_by_key(|slot| slot.used);
        let Some(&Slot { id, cost, .. }) = oldest else {
            return;
        };
        self.own.retain(|_, slot| slot.id != id);
        self.relayed.retain(|_, slot| slot.id != id);
        self.exports.retain(|_, slot| slot.id != id);
        self.cost -= cost;
        let forgotten = frame::push_message(out, 0, FrameType::Forget, &wire::Forget { id });
        forgotten.expect("a number fits a control frame");
    }
}

/// What the peer has defined for us.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    entries: HashMap<u32, Entry>,
    highest: u32,
    cost: usize,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    cost: usize,
}

#[derive(Debug)]
enum Kind {
    Workload {
        attributes: Arc<WorkloadAttributes>,
        relayed: bool,
    },
    Export(ObjectName),
    Unknown,
}

impl Incoming {
    /// Applies a DEFINE frame.
    pub(crate) fn define(&mut self, payload: &[u8], limits: &Limits) -> Result<(), Violation> {
        let define: wire::Define = decode(FrameType::Define, payload)?;
        let (id, cost) = (define.id, define.cost(payload.len()));
        if id <= self.highest {
            return Err(Violation::DictionaryReuse(id));
        }
        if self.entries.len() >= limits.dictionary_entries as usize
            || self.cost + cost > limits.dictionary_bytes as usize
        {
            return Err(Violation::DictionaryLimit);
        }
        let kind = match define.into_definition()? {
            Definition::Workload {
                attributes,
                relayed,
            } => Kind::Workload {
                attributes: Arc::new(attributes),
                relayed,
            },
            Definition::Export(export) => Kind::Export(export),
            Definition::Unknown => Kind::Unknown,
        };
        self.highest = id;
        self.cost += cost;
        self.entries.insert(id, Entry { kind, cost });
        Ok(())
    }

    /// Applies a FORGET frame; one for an entry that is not there changes nothing.
    pub(crate) fn forget(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let forget: wire::Forget = decode(FrameType::Forget, payload)?;
        if let Some(entry) = self.entries.remove(&forget.id) {
            self.cost -= entry.cost;
        }
        Ok(())
    }

    /// The workload with this number and whether it is relayed; 0 is a client without a workload.
    pub(crate) fn workload(
        &self,
        id: u32,
    ) -> Result<(Option<Arc<WorkloadAttributes>>, bool), Violation> {
        if id == 0 {
            return Ok((None, false));
        }
        match self.entries.get(&id).map(|entry| &entry.kind) {
            Some(Kind::Workload {
                attributes,
                relayed,
            }) => Ok((Some(attributes.clone()), *relayed)),
            Some(Kind::Export(_) | Kind::Unknown) | None => Err(Violation::DictionaryMissing(id)),
        }
    }

    /// The export with this number.
    pub(crate) fn export(&self, id: u32) -> Result<ObjectName, Violation> {
        match self.entries.get(&id).map(|entry| &entry.kind) {
            Some(Kind::Export(export)) => Ok(export.clone()),
            Some(Kind::Workload { .. } | Kind::Unknown) | None => {
                Err(Violation::DictionaryMissing(id))
            }
        }
    }
}
