//! Addresses that stop being ours. The finalizer of their Service keeps the API server from giving
//! them to another Service until no node steers them any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use clusterlink_model::ObjectName;
use jiff::{SignedDuration, Timestamp};

use super::roll::{MARGIN, Place, Roll};
use crate::agents::{AgentStatus, AgentTable, Keeping};

/// After this time somebody should look why an agent that is connected steers an address still.
const TOO_LONG: SignedDuration = SignedDuration::from_mins(1);

/// The Services whose addresses are being let go.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    held: BTreeMap<ObjectName, Held>,
    /// Addresses that nobody waits for any more, and until when agents are asked about them all the
    /// same: a replica that is late may still name them as an import's.
    late: BTreeMap<IpAddr, Timestamp>,
}

/// A Service that is to be ours no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// The UID of the Service.
    pub(crate) uid: String,
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// When it was made, as the API server says.
    pub(crate) created: Timestamp,
    /// Since when agents are told that the addresses are not ours.
    pub(crate) since: Timestamp,
}

/// What answers are judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) now: Timestamp,
    /// Since when this replica leads, and so hears the agents; `None` while it does not.
    pub(crate) leading: Option<Timestamp>,
    pub(crate) roll: &'a Roll,
    pub(crate) table: &'a AgentTable,
}

#[derive(Debug)]
struct Held {
    release: Release,
    /// Nodes whose agents have let go of all of it.
    let_go: BTreeSet<Arc<str>>,
    /// Nodes of which people are told, with their agents.
    told: BTreeMap<Arc<str>, Option<ObjectName>>,
    /// When to look again though nothing is heard.
    look: Option<Timestamp>,
}

/// How one node stands to an address.
enum Stand {
    Free,
    Waits(Timestamp),
    Steers,
}

impl Releases {
    /// Asks for the addresses of a Service to be let go. Being asked again changes nothing.
    pub(crate) fn hold(&mut self, service: &ObjectName, release: Release) {
        match self.held.get_mut(service) {
            Some(held)
                if held.release.addresses == release.addresses
                    && held.release.created == release.created =>
            {
                held.release.since = held.release.since.min(release.since);
            }
            _ => {
                let held = Held {
                    release,
                    let_go: BTreeSet::new(),
                    told: BTreeMap::new(),
                    look: None,
                };
                self.held.insert(service.clone(), held);
            }
        }
    }

    /// A Service is gone, or not ours any more: its addresses may be others' now.
    pub(crate) fn forget(&mut self, service: &ObjectName, now: Timestamp) {
        if let Some(held) = self.held.remove(service) {
            let until = now.saturating_add(MARGIN).unwrap_or(Timestamp::MAX);
            let addresses = held.release.addresses.into_iter();
            self.late.extend(addresses.map(|address| (address, until)));
        }
    }

    /// A Service is ours, and so are its addresses.
    pub(crate) fn reclaim(&mut self, service: &ObjectName, addresses: &[IpAddr]) {
        self.held.remove(service);
        for address in addresses {
            self.late.remove(address);
        }
    }

    /// Every replica knows by now what was let go of some time ago.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.late.retain(|_, until| now < *until);
    }

    /// The Services that wait.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.held.keys()
    }

    /// All addresses that agents are asked about.
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        let held = self.held.values().flat_map(|held| &held.release.addresses);
        held.chain(self.late.keys()).copied().collect()
    }

    /// Whether no node steers the addresses of a Service: every agent says so, or had to stop. A
    /// connected agent that does not say so is waited for without end.
    pub(crate) fn is_free(&mut self, service: &ObjectName, asked: &Asked<'_>) -> bool {
        let Some(held) = self.held.get_mut(service) else {
            return false;
        };
        held.look = None;
        // Agents report to the replica that leads, so no other one knows.
        let Some(leading) = asked.leading else {
            return false;
        };
        let mut free = true;
        let before = std::mem::take(&mut held.told);
        for (node, place) in asked.roll.iter() {
            let said = asked.table.get(node);
            match held.stand(node, place, said, leading, asked.now) {
                Stand::Free => {}
                Stand::Waits(until) => {
                    free = false;
                    held.look = Some(held.look.map_or(until, |look| look.min(until)));
                }
                Stand::Steers => {
                    free = false;
                    if held.is_late(asked.now) {
                        held.told.insert(Arc::clone(node), place.agent.clone());
                        if !before.contains_key(node) {
                            held.warn(service, node, place);
                        }
                    }
                }
            }
        }
        free
    }

    /// The agents that people should look at.
    pub(crate) fn keeping(&self) -> BTreeSet<Keeping> {
        let all = self.held.iter().flat_map(|(service, held)| {
            held.told.iter().map(|(node, agent)| Keeping {
                service: service.clone(),
                uid: held.release.uid.clone(),
                addresses: held.release.addresses.clone(),
                node: Arc::clone(node),
                agent: agent.clone(),
            })
        });
        all.collect()
    }

    /// When the next Service is worth a look though nothing is heard.
    pub(crate) fn next_look(&self) -> Option<Timestamp> {
        let held = self.held.values().filter_map(|held| held.look);
        held.chain(self.late.values().copied()).min()
    }
}

impl Held {
    fn stand(
        &mut self,
        node: &Arc<str>,
        place: &Place,
        said: Option<&AgentStatus>,
        leading: Timestamp,
        now: Timestamp,
    ) -> Stand {
        let connected = said.filter(|said| place.agent.as_ref() == Some(&said.pod));
        if let Some(said) = connected {
            // An agent has the node's kernel tables to itself, so it speaks for those before it.
            if said.let_go.is_superset(&self.release.addresses) {
                self.let_go.insert(Arc::clone(node));
                return Stand::Free;
            }
            self.let_go.remove(node);
            return Stand::Steers;
        }
        let mut until = Timestamp::MIN;
        if place.agent.is_some() || said.is_some() {
            // One that is connected without a Pod is as good as heard of just now.
            let from = if said.is_some() { now } else { leading };
            until = place.lease_ends(self.release.since, from);
        }
        if let Some(earlier) = &place.earlier
            && !self.let_go.contains(node)
            && earlier.knew(self.release.created)
        {
            until = until.max(earlier.until);
        }
        if until > now {
            Stand::Waits(until)
        } else {
            Stand::Free
        }
    }

    /// Whether people should know why this does not end; if not, it is looked at again in time.
    fn is_late(&mut self, now: Timestamp) -> bool {
        let due = self.release.since.saturating_add(TOO_LONG);
        let due = due.unwrap_or(Timestamp::MAX);
        if now < due {
            self.look = Some(self.look.map_or(due, |look| look.min(due)));
        }
        now >= due
    }

    fn warn(&self, service: &ObjectName, node: &Arc<str>, place: &Place) {
        tracing::warn!(
            %service,
            addresses = ?self.release.addresses,
            %node,
            agent = place.agent.as_ref().map(tracing::field::display),
            "the addresses of a Service that is ours no more are not free, since a connected agent does not say that it has let go of them: its log says what keeps it; delete its Pod, so that the next agent takes them out of the kernel"
        );
    }
}

#[cfg(test)]
mod tests;
