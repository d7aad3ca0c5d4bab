//! Addresses that stop being ours. The finalizer of their Service keeps the API server from giving
//! them to another Service until no node steers them any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use clusterlink_model::ObjectName;
use jiff::{SignedDuration, Timestamp};

use super::fleet::Fleet;
use crate::agents::AgentTable;

/// How long a node may steer an address without hearing from a controller, which is how long a
/// node that does not answer is waited for.
const STEERING_LEASE: SignedDuration = SignedDuration::from_hours(1);

/// The Services whose addresses are being let go.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    held: BTreeMap<ObjectName, Held>,
}

#[derive(Debug, PartialEq, Eq)]
struct Held {
    addresses: BTreeSet<IpAddr>,
    since: Timestamp,
}

impl Releases {
    /// Asks for the addresses of a Service to be let go; they are so from `since` on.
    pub(crate) fn hold(
        &mut self,
        service: &ObjectName,
        addresses: impl IntoIterator<Item = IpAddr>,
        since: Timestamp,
    ) {
        let addresses = addresses.into_iter().collect();
        let held = Held { addresses, since };
        match self.held.get_mut(service) {
            Some(before) if before.addresses == held.addresses => {
                before.since = before.since.min(since);
            }
            _ => drop(self.held.insert(service.clone(), held)),
        }
    }

    /// A Service is gone, or its addresses are ours again.
    pub(crate) fn forget(&mut self, service: &ObjectName) {
        self.held.remove(service);
    }

    /// The Services that wait.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.held.keys()
    }

    /// All addresses that agents are asked about.
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        let all = self.held.values().flat_map(|held| &held.addresses);
        all.copied().collect()
    }

    /// Whether no node steers the addresses of a Service: every agent says so, or had to stop.
    pub(crate) fn is_free(
        &self,
        service: &ObjectName,
        now: Timestamp,
        fleet: &Fleet,
        table: &AgentTable,
    ) -> bool {
        let Some(Held { addresses, since }) = self.held.get(service) else {
            return false;
        };
        if now.duration_since(*since) >= STEERING_LEASE {
            return true;
        }
        let mut agents = fleet.values().filter(|agent| !agent.terminating);
        agents.all(|agent| {
            table
                .get(&agent.node)
                .is_some_and(|said| said.pod == agent.pod && said.let_go.is_superset(addresses))
        })
    }

    /// When the next Service has waited long enough.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        let oldest = self.held.values().map(|held| held.since).min()?;
        oldest.checked_add(STEERING_LEASE).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agents::AgentStatus,
        cluster::fleet::tests::{a_fleet, an_agent},
    };

    #[test]
    fn an_address_is_free_once_every_agent_has_let_go_of_it_or_an_hour_has_passed() {
        let address: IpAddr = "10.96.0.7".parse().unwrap();
        let start = Timestamp::UNIX_EPOCH;
        let service = ObjectName::new("ns", "web");
        let mut releases = Releases::default();
        releases.hold(&service, [address], start);
        // Being asked again does not begin the hour again.
        releases.hold(&service, [address], start + SignedDuration::from_mins(30));
        let said = |number: u16, let_go: &[IpAddr]| {
            let agent = an_agent(number, None, true);
            let status = AgentStatus {
                pod: agent.pod,
                report: Default::default(),
                let_go: let_go.iter().copied().collect(),
            };
            (agent.node, status)
        };
        let mut going = an_agent(2, None, false);
        going.terminating = true;
        let (one, not_ready) = (an_agent(1, None, true), an_agent(2, None, false));
        let mut replaced = said(1, &[address]);
        replaced.1.pod = ObjectName::new("clusterlink-system", "earlier");
        let cases = [
            ("no agents", vec![], vec![], 0, true),
            ("not connected", vec![one.clone()], vec![], 59, false),
            (
                "not connected for an hour",
                vec![one.clone()],
                vec![],
                60,
                true,
            ),
            (
                "has not let go",
                vec![one.clone()],
                vec![said(1, &[])],
                0,
                false,
            ),
            (
                "has let go",
                vec![one.clone()],
                vec![said(1, &[address])],
                0,
                true,
            ),
            (
                "its predecessor had",
                vec![one.clone()],
                vec![replaced],
                0,
                false,
            ),
            (
                "one of two has",
                vec![one.clone(), not_ready],
                vec![said(1, &[address])],
                0,
                false,
            ),
            (
                "the other is going",
                vec![one, going],
                vec![said(1, &[address])],
                0,
                true,
            ),
        ];
        for (what, agents, table, minutes, wanted) in cases {
            let now = start + SignedDuration::from_mins(minutes);
            let free = releases.is_free(
                &service,
                now,
                &a_fleet(agents),
                &table.into_iter().collect(),
            );
            assert_eq!(free, wanted, "{what}");
        }
        assert_eq!(
            releases.next_end(),
            Some(start + SignedDuration::from_hours(1))
        );
        assert_eq!(releases.addresses(), [address].into());
        releases.forget(&service);
        assert!(releases.addresses().is_empty());
    }
}
