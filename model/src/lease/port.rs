//! Target ports: where agents are reached on the Service path, one per import and never shared.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, num::NonZeroU16, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::name::ObjectName;

/// Which ports may be leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRules {
    /// Where a port is taken from for an import that does not ask for one.
    pub allocation: RangeInclusive<u16>,
    /// The cluster's NodePort range.
    pub node_ports: RangeInclusive<u16>,
    /// Ports that the agent itself listens on, with what they are for.
    pub agent_ports: BTreeMap<u16, String>,
}

impl PortRules {
    /// The NodePort range of a cluster whose administrator set no other.
    pub const DEFAULT_NODE_PORTS: RangeInclusive<u16> = 30000..=32767;
    /// Ports below this one are left to the system.
    pub const FIRST: u16 = 1024;

    /// Whether an import could be given this port at all.
    fn check(&self, port: u16) -> Result<(), PortRefused> {
        if port < Self::FIRST {
            Err(PortRefused::System { port })
        } else if self.node_ports.contains(&port) {
            Err(PortRefused::NodePort {
                port,
                range: self.node_ports.clone(),
            })
        } else if let Some(purpose) = self.agent_ports.get(&port) {
            let purpose = purpose.clone();
            Err(PortRefused::Agent { port, purpose })
        } else {
            Ok(())
        }
    }
}

/// What an import asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortClaim {
    /// The import.
    pub import: ObjectName,
    /// When it was made, in any unit that grows: of two claims to one port the older one counts.
    pub created: u64,
    /// The port that its spec names; `None` leaves the choice to us.
    pub requested: Option<NonZeroU16>,
}

/// One import with its port: how leases are written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortLease {
    /// The import.
    pub import: ObjectName,
    /// When the import was made.
    pub created: u64,
    /// Its port.
    pub port: NonZeroU16,
}

/// Why an import gets no target port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRefused {
    /// Below 1024.
    #[error("target port {port} is below 1024; choose a higher one, or 0 to have one chosen")]
    System {
        /// The port.
        port: u16,
    },
    /// In the NodePort range.
    #[error(
        "target port {port} is in the NodePort range {}-{}; choose another one, or 0 to have one chosen",
        range.start(), range.end()
    )]
    NodePort {
        /// The port.
        port: u16,
        /// The range.
        range: RangeInclusive<u16>,
    },
    /// The agent listens there.
    #[error(
        "target port {port} is the agent's own, for {purpose}; choose another one, or 0 to have one chosen"
    )]
    Agent {
        /// The port.
        port: u16,
        /// What the agent uses it for.
        purpose: String,
    },
    /// Something else listens there.
    #[error(
        "target port {port} has a listener on a node; choose another one, or 0 to have one chosen"
    )]
    InUse {
        /// The port.
        port: u16,
    },
    /// Another import holds it.
    #[error(
        "target port {port} is held by import {holder}; delete that import, choose another port, or 0 to have one chosen"
    )]
    Held {
        /// The port.
        port: u16,
        /// The import that holds it.
        holder: ObjectName,
    },
    /// Nothing is left in the range that ports are taken from.
    #[error(
        "no target port is left in {}-{}; configure a larger range or delete an import",
        range.start(), range.end()
    )]
    Exhausted {
        /// The range.
        range: RangeInclusive<u16>,
    },
}

/// Which import holds which target port, and who waits for one.
#[derive(Clone, Debug)]
pub struct PortLeases {
    rules: PortRules,
    held: BTreeMap<ObjectName, PortLease>,
    holders: BTreeMap<NonZeroU16, ObjectName>,
    /// Imports that asked for a port which another one holds.
    waiting: BTreeMap<ObjectName, PortLease>,
}

impl PortLeases {
    /// No leases, under these rules.
    pub fn new(rules: PortRules) -> Self {
        Self {
            rules,
            held: BTreeMap::new(),
            holders: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// The leases that were written down, as far as the rules still allow them. Of two holders of
    /// one port the older import keeps it; the other one is without until it claims again.
    pub fn restore(rules: PortRules, state: impl IntoIterator<Item = PortLease>) -> Self {
        let mut state: Vec<_> = state.into_iter().collect();
        state.sort_by(|a, b| age(a).cmp(&age(b)));
        let mut leases = Self::new(rules);
        for lease in state {
            let is_free = !leases.holders.contains_key(&lease.port)
                && !leases.held.contains_key(&lease.import);
            if is_free && leases.rules.check(lease.port.get()).is_ok() {
                leases.grant(lease);
            }
        }
        leases
    }

    /// The leases as they are written down, by import.
    pub fn state(&self) -> Vec<PortLease> {
        self.held.values().cloned().collect()
    }

    /// Gives an import its port: the one that it asks for, else the one that it has, else one from
    /// the range, where `random` says to begin. `in_use` tells of listeners on nodes; it is asked
    /// only before a port is newly given.
    ///
    /// When the import asked for another port before, that one becomes free; `promoted` gets the
    /// import that was waiting for it, which holds it now.
    pub fn claim(
        &mut self,
        claim: &PortClaim,
        random: u64,
        in_use: impl Fn(u16) -> bool,
        promoted: &mut Vec<PortLease>,
    ) -> Result<NonZeroU16, PortRefused> {
        self.waiting.remove(&claim.import);
        let current = self.held.get(&claim.import).map(|lease| lease.port);
        let keeps = current.filter(|port| {
            claim.requested.is_none_or(|requested| requested == *port)
                && self.rules.check(port.get()).is_ok()
        });
        if let Some(port) = keeps {
            return Ok(port);
        }
        promoted.extend(self.release(&claim.import));
        let port = match claim.requested {
            Some(port) => self.explicit(claim, port, in_use)?,
            None => self.allocate(random, in_use)?,
        };
        self.grant(PortLease {
            import: claim.import.clone(),
            created: claim.created,
            port,
        });
        Ok(port)
    }

    /// Gives an import a port that is written down as its own, whoever was thought to have it: what
    /// is written down counts for more than what was only granted. `promoted` gets the import that
    /// waited for the port that this one had. Returns the import that loses the port, which has to
    /// claim again, or why nobody may have it.
    pub fn seize(
        &mut self,
        lease: PortLease,
        promoted: &mut Vec<PortLease>,
    ) -> Result<Option<ObjectName>, PortRefused> {
        self.rules.check(lease.port.get())?;
        self.waiting.remove(&lease.import);
        if self.port(&lease.import) == Some(lease.port) {
            return Ok(None);
        }
        promoted.extend(self.release(&lease.import));
        let loser = self.holders.remove(&lease.port);
        if let Some(loser) = &loser {
            self.held.remove(loser);
        }
        self.grant(lease);
        Ok(loser)
    }

    /// Frees the port of an import that is gone, and says which import that waited for it holds it
    /// now: a port that was leased a moment ago has no other listener.
    pub fn release(&mut self, import: &ObjectName) -> Option<PortLease> {
        self.waiting.remove(import);
        let freed = self.held.remove(import)?.port;
        self.holders.remove(&freed);
        let waiting = self.waiting.values().filter(|lease| lease.port == freed);
        let next = waiting.min_by(|a, b| age(a).cmp(&age(b))).cloned()?;
        self.waiting.remove(&next.import);
        self.grant(next.clone());
        Some(next)
    }

    /// Frees the ports of all imports that `exists` does not hold for, and says who got one of
    /// them by it.
    pub fn retain(&mut self, exists: impl Fn(&ObjectName) -> bool) -> Vec<PortLease> {
        self.waiting.retain(|import, _| exists(import));
        let gone: Vec<_> = self
            .held
            .keys()
            .filter(|import| !exists(import))
            .cloned()
            .collect();
        gone.iter()
            .filter_map(|import| self.release(import))
            .collect()
    }

    /// Replaces the ports that agents listen on. Returns the imports that hold a port which is
    /// refused by it: they have to claim again.
    pub fn set_agent_ports(&mut self, ports: BTreeMap<u16, String>) -> Vec<ObjectName> {
        self.rules.agent_ports = ports;
        let refused = (self.rules.agent_ports.keys()).filter_map(|port| NonZeroU16::new(*port));
        (refused.filter_map(|port| self.holders.get(&port)))
            .cloned()
            .collect()
    }

    /// The port of `import`, if it has one.
    pub fn port(&self, import: &ObjectName) -> Option<NonZeroU16> {
        self.held.get(import).map(|lease| lease.port)
    }

    /// The import that holds a port.
    pub fn holder(&self, port: NonZeroU16) -> Option<&ObjectName> {
        self.holders.get(&port)
    }

    /// The imports that wait for a port, and were told who holds it.
    pub fn waiting(&self, port: NonZeroU16) -> impl Iterator<Item = &ObjectName> {
        let all = self.waiting.values();
        all.filter(move |lease| lease.port == port)
            .map(|lease| &lease.import)
    }

    fn explicit(
        &mut self,
        claim: &PortClaim,
        port: NonZeroU16,
        in_use: impl Fn(u16) -> bool,
    ) -> Result<NonZeroU16, PortRefused> {
        self.rules.check(port.get())?;
        if let Some(holder) = self.holders.get(&port) {
            let holder = holder.clone();
            let lease = PortLease {
                import: claim.import.clone(),
                created: claim.created,
                port,
            };
            self.waiting.insert(claim.import.clone(), lease);
            return Err(PortRefused::Held {
                port: port.get(),
                holder,
            });
        }
        if in_use(port.get()) {
            return Err(PortRefused::InUse { port: port.get() });
        }
        Ok(port)
    }

    fn allocate(
        &self,
        random: u64,
        in_use: impl Fn(u16) -> bool,
    ) -> Result<NonZeroU16, PortRefused> {
        let (first, last) = (*self.rules.allocation.start(), *self.rules.allocation.end());
        let count = (u64::from(last) + 1).saturating_sub(first.into());
        (0..count)
            // Below `count`, which is at most 65,536, so the sum is at most `last`.
            .map(|step| first + ((random % count + step) % count) as u16)
            .filter_map(NonZeroU16::new)
            .find(|port| {
                self.rules.check(port.get()).is_ok()
                    && !self.holders.contains_key(port)
                    && !in_use(port.get())
            })
            .ok_or_else(|| PortRefused::Exhausted {
                range: self.rules.allocation.clone(),
            })
    }

    fn grant(&mut self, lease: PortLease) {
        self.holders.insert(lease.port, lease.import.clone());
        self.held.insert(lease.import.clone(), lease);
    }
}

/// Older imports come first; of equally old ones the least name.
fn age(lease: &PortLease) -> (u64, &ObjectName) {
    (lease.created, &lease.import)
}
