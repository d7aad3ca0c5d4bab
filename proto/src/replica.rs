//! What an agent holds of its controller's knowledge: the receiving side of a Subscribe stream as a
//! state machine without sockets.
//!
//! ```text
//! begin ─▶ Held, Held, last ═▶      update, answer ◀═ Update, Answer
//!                                          │
//!              take ─▶ model::Update, and the Acks that are due once it is applied
//! ```
//! What arrives gathers until an update is whole, so that nothing is ever applied by halves, also
//! when a stream breaks in the middle: the next one goes on from what has arrived.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use bytes::Bytes;
use clusterlink_model::{Action, Resource, ResourceKey, Snapshot, Update, Workload};
use prost::Message as _;

use crate::{
    HELD_PER_MESSAGE,
    encoded::{self, Encoded, Version},
    invalid::Invalid,
    parts::{self, reason},
    report::{Rejected, translate},
    wire::{self, ResourceName},
};

/// What one agent has been sent.
#[derive(Debug)]
pub struct Replica {
    node: Arc<str>,
    held: BTreeMap<ResourceName, Held>,
    rejected: BTreeMap<ResourceName, String>,
    /// What has arrived and was not taken yet.
    upserts: BTreeMap<ResourceKey, Resource>,
    removals: BTreeSet<ResourceKey>,
    /// A complete update was taken; only differences follow.
    complete: bool,
    /// This stream has had its marker.
    synced: bool,
    /// The last update is to be continued.
    continues: bool,
    /// Due once what has arrived is applied.
    acks: Vec<wire::Ack>,
}

#[derive(Debug)]
struct Held {
    version: Version,
    on_demand: bool,
    /// A policy that allows is in force under this name.
    allows: bool,
}

/// Something to apply, and what to answer once that is done.
#[derive(Debug, Default, PartialEq)]
pub struct Taken {
    /// What changed.
    pub update: Update,
    /// To be sent on the stream that they came from.
    pub acks: Vec<wire::Ack>,
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A pod's, of any node.
    Workload(Arc<Workload>),
    /// A node's own.
    Node(Arc<str>),
}

impl Replica {
    /// Holds nothing; the first update that is taken will be a complete one.
    pub fn new(node: Arc<str>) -> Self {
        Self {
            node,
            held: BTreeMap::new(),
            rejected: BTreeMap::new(),
            upserts: BTreeMap::new(),
            removals: BTreeSet::new(),
            complete: false,
            synced: false,
            continues: false,
            acks: Vec::new(),
        }
    }

    /// Holds what the agent has kept and has already applied; only differences will be taken.
    pub fn of(node: Arc<str>, kept: &Snapshot) -> Self {
        let mut replica = Self::new(node);
        replica.complete = true;
        for resource in kept.to_update().upserts {
            let held = Held {
                version: Encoded::new(&resource).version().clone(),
                on_demand: replica.is_on_demand(&resource),
                allows: allows(&resource),
            };
            replica.held.insert((&resource.key()).into(), held);
        }
        replica
    }

    /// Begins a new stream; returns what to send after the greeting.
    pub fn begin(&mut self) -> Vec<wire::Held> {
        self.synced = false;
        self.continues = false;
        self.acks.clear();
        let mut messages = vec![wire::Held::default()];
        for (name, held) in &self.held {
            if messages
                .last()
                .is_some_and(|m| m.resources.len() == HELD_PER_MESSAGE)
            {
                messages.push(wire::Held::default());
            }
            if let Some(message) = messages.last_mut() {
                message.resources.push(wire::HeldResource {
                    name: Some(name.clone()),
                    version: held.version.to_bytes(),
                    on_demand: held.on_demand,
                });
            }
        }
        if let Some(message) = messages.last_mut() {
            message.last = true;
        }
        messages
    }

    /// Takes in an update; returns the answer that is due at once, if one is.
    pub fn update(&mut self, update: wire::Update) -> Option<wire::Ack> {
        for name in &update.removals {
            self.remove(name);
        }
        let mut rejected = Vec::new();
        for upsert in update.upserts {
            if let Err(reject) = self.upsert(upsert) {
                rejected.push(reject);
            }
        }
        self.continues = update.more;
        self.synced |= update.synced;
        let ack = wire::Ack {
            nonce: update.nonce,
            rejected,
        };
        if self.has_something_whole() {
            self.acks.push(ack);
            None
        } else {
            Some(ack)
        }
    }

    /// Takes in the answer to a question about an address.
    ///
    /// # Errors
    /// When the answer cannot be used; what it is about is then not known.
    pub fn answer(&mut self, answer: wire::Answer) -> Result<(IpAddr, Option<Found>), Invalid> {
        let address = parts::address("address", &answer.address)?;
        let found = match answer.found {
            None => None,
            Some(wire::answer::Found::Node(name)) => Some(Found::Node(name.into())),
            Some(wire::answer::Found::Workload(upsert)) => {
                match self
                    .upsert(upsert)
                    .map_err(|reject| Invalid::new("workload", reject.reason))?
                {
                    Resource::Workload(workload) => Some(Found::Workload(workload)),
                    other => {
                        let key = other.key();
                        return Err(Invalid::new("workload", format_args!("{key:?} is none")));
                    }
                }
            }
        };
        Ok((address, found))
    }

    /// What to apply now, if there is something. Taking it says that it will be.
    pub fn take(&mut self) -> Option<Taken> {
        if !self.has_something_whole() {
            return None;
        }
        let update = Update {
            upserts: std::mem::take(&mut self.upserts).into_values().collect(),
            removals: std::mem::take(&mut self.removals).into_iter().collect(),
            complete: !self.complete,
        };
        self.complete = true;
        let acks = std::mem::take(&mut self.acks);
        Some(Taken { update, acks })
    }

    /// Whether this stream's marker has come, so that everything is known as of now.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// How many resources are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What cannot be used, as a report shows it.
    pub fn rejected(&self) -> Vec<Rejected> {
        translate::rejected(&self.rejected)
    }

    fn has_something_whole(&self) -> bool {
        let something = !self.complete || !self.upserts.is_empty() || !self.removals.is_empty();
        self.synced && !self.continues && something
    }

    /// A resource that cannot be used leaves its last good content in force, but for a policy that
    /// allows: what replaced it may be narrower. It counts as held: it is not sent again before it
    /// changes.
    fn upsert(&mut self, upsert: Bytes) -> Result<Resource, wire::Reject> {
        let upsert = wire::Upsert::decode(upsert).map_err(|error| wire::Reject {
            name: None,
            reason: reason(&format!("not decodable: {error}")),
        })?;
        let Some(name) = upsert.name else {
            let reason = Invalid::missing("name").to_string();
            return Err(wire::Reject { name: None, reason });
        };
        let decoded = ResourceKey::try_from(&name)
            .and_then(|key| encoded::decode(&key, upsert.resource).map(|resource| (key, resource)));
        let held = self.held.entry(name.clone()).or_insert_with(|| Held {
            version: Version::from_bytes(Bytes::new()),
            on_demand: false,
            allows: false,
        });
        held.version = Version::from_bytes(upsert.version);
        match decoded {
            Ok((key, resource)) => {
                self.rejected.remove(&name);
                let on_demand = self.is_on_demand(&resource);
                if let Some(held) = self.held.get_mut(&name) {
                    held.on_demand = on_demand;
                    held.allows = allows(&resource);
                }
                self.removals.remove(&key);
                self.upserts.insert(key, resource.clone());
                Ok(resource)
            }
            Err(error) => {
                if std::mem::take(&mut held.allows) {
                    self.withdraw(&name);
                }
                let reason = reason(&error.to_string());
                self.rejected.insert(name.clone(), reason.clone());
                let name = Some(name);
                Err(wire::Reject { name, reason })
            }
        }
    }

    fn remove(&mut self, name: &ResourceName) {
        self.rejected.remove(name);
        if self.held.remove(name).is_some() {
            self.withdraw(name);
        }
    }

    fn withdraw(&mut self, name: &ResourceName) {
        // Of a kind that is not known nothing was applied either.
        let Ok(key) = ResourceKey::try_from(name) else {
            return;
        };
        self.upserts.remove(&key);
        if self.complete {
            self.removals.insert(key);
        }
    }

    /// A pod of another node is only here because it was asked for.
    fn is_on_demand(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Workload(workload) => workload.node.as_ref() != Some(&self.node),
            _ => false,
        }
    }
}

fn allows(resource: &Resource) -> bool {
    matches!(resource, Resource::Policy(policy) if policy.action == Action::Allow)
}
