//! Target ports of a cluster's Imports. A lease is what `status.targetPort` of the object says; until
//! a port is written there it is only proposed, and nobody uses it.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::RandomState},
    hash::BuildHasher,
    num::NonZeroU16,
};

use clusterlink_crds::conditions::{IMPORT_TARGET_PORT_VALID, reasons};
use clusterlink_model::{
    ObjectName,
    lease::{PortClaim, PortLease, PortLeases, PortRefused, PortRules},
};

use crate::status::Finding;

/// The target port of one Import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetPort {
    /// Its object says so: it may be used.
    Stored(NonZeroU16),
    /// To be written to its status first.
    Proposed(NonZeroU16),
    /// There is none for it.
    Refused(PortRefused),
}

/// What an Import wants and has.
#[derive(Clone, Debug)]
pub(crate) struct PortWish {
    /// When the Import was made: of two holders the older one keeps a port.
    pub(crate) created: u64,
    /// `spec.targetPort`, unless it leaves the choice to us.
    pub(crate) requested: Option<NonZeroU16>,
    /// `status.targetPort`.
    pub(crate) stored: Option<NonZeroU16>,
}

/// The target ports of all Imports.
#[derive(Debug)]
pub(crate) struct Ports {
    leases: PortLeases,
    wishes: BTreeMap<ObjectName, PortWish>,
    /// The ports that agents have by default, with what they are for.
    agent_ports: BTreeMap<u16, String>,
    /// The ports that agents say are theirs.
    reported: BTreeMap<u16, String>,
    /// Imports that wait for a listener on a node to go, or for any port to become free.
    starved: BTreeSet<ObjectName>,
    woken: BTreeSet<ObjectName>,
    random: RandomState,
}

impl Ports {
    pub(crate) fn new(rules: PortRules) -> Self {
        Self {
            agent_ports: rules.agent_ports.clone(),
            reported: BTreeMap::new(),
            leases: PortLeases::new(rules),
            wishes: BTreeMap::new(),
            starved: BTreeSet::new(),
            woken: BTreeSet::new(),
            random: RandomState::new(),
        }
    }

    /// Decides for one Import. Those that are affected by it are to be asked for with
    /// [`Self::take_woken`] and decided again.
    pub(crate) fn decide(
        &mut self,
        import: &ObjectName,
        wish: PortWish,
        listeners: &BTreeSet<u16>,
    ) -> TargetPort {
        self.starved.remove(import);
        let before = self.leases.port(import);
        self.keep_stored(import, &wish);
        let claim = PortClaim {
            import: import.clone(),
            created: wish.created,
            requested: wish.requested,
        };
        let random = self.random.hash_one(import);
        let mut promoted = Vec::new();
        let in_use = |port| listeners.contains(&port);
        let claimed = self.leases.claim(&claim, random, in_use, &mut promoted);
        self.wake(promoted);
        let stored = wish.stored;
        self.wishes.insert(import.clone(), wish);
        if before.is_some() && self.leases.port(import) != before {
            self.woken.append(&mut self.starved);
        }
        match claimed {
            Ok(port) if stored == Some(port) => TargetPort::Stored(port),
            Ok(port) => TargetPort::Proposed(port),
            Err(refused) => {
                if matches!(
                    refused,
                    PortRefused::InUse { .. }
                        | PortRefused::Exhausted { .. }
                        | PortRefused::Agent { .. }
                ) {
                    self.starved.insert(import.clone());
                }
                TargetPort::Refused(refused)
            }
        }
    }

    /// What an object says that it holds is its own, unless its spec now asks for another port or
    /// an older Import holds the same.
    fn keep_stored(&mut self, import: &ObjectName, wish: &PortWish) {
        let Some(stored) = wish.stored else {
            return;
        };
        if wish.requested.is_some_and(|requested| requested != stored) {
            return;
        }
        if let Some(holder) = self.leases.holder(stored) {
            let other = self.wishes.get(holder);
            let holds = other.is_some_and(|other| other.stored == Some(stored));
            let older = other.is_some_and(|other| (other.created, holder) < (wish.created, import));
            if holder == import || (holds && older) {
                return;
            }
        }
        let lease = PortLease {
            import: import.clone(),
            created: wish.created,
            port: stored,
        };
        let mut promoted = Vec::new();
        // Refused by the rules of today: the claim that follows says why.
        if let Ok(Some(loser)) = self.leases.seize(lease, &mut promoted) {
            self.woken.extend(self.leases.waiting(stored).cloned());
            self.woken.insert(loser);
        }
        self.wake(promoted);
    }

    /// Frees the port of an Import that is gone.
    pub(crate) fn release(&mut self, import: &ObjectName) {
        self.wishes.remove(import);
        self.starved.remove(import);
        let had_port = self.leases.port(import).is_some();
        let promoted = self.leases.release(import);
        self.wake(promoted);
        if had_port {
            self.woken.append(&mut self.starved);
        }
    }

    /// Listeners on nodes have changed.
    pub(crate) fn listeners_changed(&mut self) {
        self.woken.append(&mut self.starved);
    }

    /// Agents listen on these ports, with what they are for. Whoever holds one of them loses it: the
    /// kernel would give an import what is meant for the agent.
    pub(crate) fn agents_listen(&mut self, reported: BTreeMap<u16, String>) {
        if self.reported == reported {
            return;
        }
        self.reported.clone_from(&reported);
        let mut ports = reported;
        ports.extend(self.agent_ports.clone());
        self.woken.extend(self.leases.set_agent_ports(ports));
        self.woken.append(&mut self.starved);
    }

    /// The Imports that are worth another look since the last call.
    pub(crate) fn take_woken(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.woken)
    }

    fn wake(&mut self, promoted: impl IntoIterator<Item = PortLease>) {
        for lease in promoted {
            // The others wait for another holder now.
            self.woken.extend(self.leases.waiting(lease.port).cloned());
            self.woken.insert(lease.import);
        }
    }
}

/// The reason that the condition gives for a refusal.
pub(crate) fn reason(refused: &PortRefused) -> &'static str {
    match refused {
        PortRefused::System { .. } | PortRefused::NodePort { .. } | PortRefused::Agent { .. } => {
            reasons::TARGET_PORT_RESERVED
        }
        PortRefused::InUse { .. } => reasons::TARGET_PORT_IN_USE,
        PortRefused::Held { .. } => reasons::TARGET_PORT_CONFLICT,
        PortRefused::Exhausted { .. } => reasons::TARGET_PORTS_EXHAUSTED,
    }
}

/// The condition of an Import's target port. It holds for a proposed one too, since port and
/// condition are written together.
pub(crate) fn finding(
    import: &ObjectName,
    requested: Option<NonZeroU16>,
    decided: Result<NonZeroU16, &PortRefused>,
) -> Finding {
    match decided {
        Ok(_) => {
            let mut finding = Finding::valid(IMPORT_TARGET_PORT_VALID, "");
            if requested.is_none() {
                finding.reason = reasons::TARGET_PORT_ALLOCATED;
            }
            finding
        }
        Err(refused) => Finding::invalid(
            IMPORT_TARGET_PORT_VALID,
            reason(refused),
            format!("Import {import}: {refused}"),
        ),
    }
}

/// The condition of the target port of an Import that cannot be used at all.
pub(crate) fn withheld(import: &ObjectName, why: &Finding) -> Finding {
    let message = format!(
        "Import {import}: it holds no target port while {} is False ({}): correct that first",
        why.kind, why.reason
    );
    Finding::invalid(IMPORT_TARGET_PORT_VALID, reasons::IMPORT_INVALID, message)
}

#[cfg(test)]
mod tests;
