//! Which agents serve an Import on the Service path.
//!
//! Up to [`MOST`] agents serve every Import. Of more, each Import has its own few: in every zone
//! the agents are ranked by a hash of Import and node (rendezvous hashing), and the zones take turns.
//! So an agent that comes or goes changes the sets that hold it, and no others.

use std::{collections::BTreeMap, sync::Arc};

use clusterlink_model::ObjectName;

use super::fleet::{Agent, Fleet};

/// The largest number of agents behind one Import.
pub(crate) const MOST: usize = 16;

/// The agents as placement needs them: hashed and sorted into zones once, for all Imports.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// In the order of their nodes.
    all: Vec<Arc<Agent>>,
    serving: Vec<Zone>,
    others: Vec<Zone>,
}

#[derive(Debug)]
struct Zone {
    hash: u64,
    agents: Vec<Hashed>,
}

type Hashed = (u64, Arc<Agent>);

impl Roster {
    pub(crate) fn new(fleet: &Fleet) -> Self {
        let all: Vec<_> = fleet.values().cloned().map(Arc::new).collect();
        let (serving, others): (Vec<_>, Vec<_>) =
            all.iter().cloned().partition(|agent| agent.serves());
        Self {
            serving: zones(serving),
            others: zones(others),
            all,
        }
    }

    /// At most `count` agents for an Import, in the order of their nodes: those that serve, and
    /// others only where too few do.
    pub(crate) fn place(&self, import: &ObjectName, count: usize) -> Vec<&Agent> {
        if self.all.len() <= count {
            return self.all.iter().map(|agent| &**agent).collect();
        }
        let seed = mix(hash(&import.namespace) ^ hash(&import.name).rotate_left(32));
        let mut placed = take(seed, &self.serving, count);
        if placed.len() < count {
            placed.extend(take(seed, &self.others, count - placed.len()));
        }
        placed.sort_by(|a, b| a.node.cmp(&b.node));
        placed
    }
}

fn zones(agents: Vec<Arc<Agent>>) -> Vec<Zone> {
    let mut zones: BTreeMap<Option<Arc<str>>, Vec<Hashed>> = BTreeMap::new();
    for agent in agents {
        let zone = zones.entry(agent.zone.clone()).or_default();
        zone.push((hash(&agent.node), agent));
    }
    let zone = |(zone, agents): (Option<Arc<str>>, _)| Zone {
        hash: hash(zone.as_deref().unwrap_or_default()),
        agents,
    };
    zones.into_iter().map(zone).collect()
}

/// The best of each zone in turn until there are `count`.
fn take(seed: u64, zones: &[Zone], count: usize) -> Vec<&Agent> {
    let best = |zone: &'_ Zone| {
        let ranks = zone.agents.iter().enumerate();
        let mut ranks: Vec<(u64, usize)> = ranks
            .map(|(index, (hash, _))| (mix(seed ^ hash), index))
            .collect();
        if ranks.len() > count {
            ranks.select_nth_unstable(count - 1);
            ranks.truncate(count);
        }
        ranks.sort_unstable();
        ranks
    };
    let mut ranked: Vec<_> = zones.iter().map(|zone| (zone, best(zone))).collect();
    ranked.sort_by_key(|(zone, _)| mix(seed ^ zone.hash));
    let mut placed = Vec::with_capacity(count);
    for turn in 0..count {
        for (zone, ranks) in &ranked {
            if placed.len() < count
                && let Some((_, index)) = ranks.get(turn)
            {
                placed.push(&*zone.agents[*index].1);
            }
        }
    }
    placed
}

/// FNV-1a: the same in every replica and version, which a hash of the standard library is not.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64: spreads every bit over all others.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::fleet::tests::{a_fleet, an_agent};

    fn import(number: usize) -> ObjectName {
        ObjectName::new("ns", format!("web-{number}"))
    }

    fn nodes(import: &ObjectName, roster: &Roster, count: usize) -> Vec<String> {
        let placed = roster.place(import, count).into_iter();
        placed.map(|agent| agent.node.to_string()).collect()
    }

    #[test]
    fn up_to_sixteen_agents_serve_every_import_and_of_more_sixteen_do() {
        for (agents, wanted) in [(0, 0), (1, 1), (16, 16), (17, 16), (1000, 16)] {
            let fleet = a_fleet((0..agents).map(|number| an_agent(number, None, number % 2 == 0)));
            assert_eq!(
                Roster::new(&fleet).place(&import(1), MOST).len(),
                wanted,
                "{agents} agents"
            );
        }
    }

    #[test]
    fn agents_that_do_not_serve_stand_in_only_where_too_few_do() {
        let fleet = a_fleet((0..40).map(|number| an_agent(number, None, number < 10)));
        let roster = Roster::new(&fleet);
        let placed = roster.place(&import(1), MOST);
        assert_eq!(placed.iter().filter(|agent| agent.ready).count(), 10);
        assert_eq!(placed.len(), MOST);
    }

    #[test]
    fn every_zone_has_its_share_and_every_agent_its_imports() {
        let zones = ["a", "b", "c"];
        let fleet = a_fleet((0..300).map(|n| {
            // The third zone is small.
            let zone = if n < 4 { 2 } else { usize::from(n % 2) };
            an_agent(n, Some(zones[zone]), true)
        }));
        let mut served: BTreeMap<String, usize> = BTreeMap::new();
        let roster = Roster::new(&fleet);
        for number in 0..1000 {
            let placed = roster.place(&import(number), MOST);
            let of = |zone: &str| {
                placed
                    .iter()
                    .filter(|a| a.zone.as_deref() == Some(zone))
                    .count()
            };
            assert_eq!((of("a"), of("b"), of("c")), (6, 6, 4), "import {number}");
            for agent in placed {
                *served.entry(agent.node.to_string()).or_default() += 1;
            }
        }
        let large = served.values().filter(|count| **count < 1000);
        // 296 agents share 12,000 places: 40 each, give or take.
        assert!(
            large.clone().count() == 296 && large.clone().all(|count| (15..=75).contains(count))
        );
    }

    #[test]
    fn an_agent_that_flips_among_a_thousand_changes_the_sets_that_hold_it_and_no_others() {
        let zones = ["a", "b", "c"];
        let agent = |n: u16, ready| an_agent(n, Some(zones[usize::from(n % 3)]), ready);
        let before = a_fleet((0..1000).map(|n| agent(n, true)));
        let mut after = before.clone();
        after.insert("n0500".into(), agent(500, false));
        let (before, after) = (Roster::new(&before), Roster::new(&after));
        let (mut held, mut changed) = (0, 0);
        for number in 0..5000 {
            let old = nodes(&import(number), &before, MOST);
            let new = nodes(&import(number), &after, MOST);
            held += usize::from(old.contains(&"n0500".to_owned()));
            if old != new {
                changed += 1;
                let stayed = old.iter().filter(|node| new.contains(node)).count();
                assert_eq!(stayed, MOST - 1, "one other agent takes its place");
            }
        }
        println!("5,000 imports at 1,000 agents: one flip changes {changed} sets");
        assert_eq!(held, changed);
        // 16 of 1,000 agents hold an import, so about 80 of 5,000.
        assert!((40..=130).contains(&changed), "{changed}");
    }

    proptest! {
        #[test]
        fn a_set_without_the_agent_that_flips_stays_the_same(
            states in proptest::collection::vec((0u8..4, any::<bool>()), 1..80),
            flipped in any::<prop::sample::Index>(),
            count in 1usize..20,
            number in 0usize..50,
        ) {
            let zone = |zone: u8| (zone > 0).then(|| zone.to_string());
            let agent = |(n, (z, ready)): (usize, &(u8, bool))| an_agent(n as u16, zone(*z).as_deref(), *ready);
            let before = a_fleet(states.iter().enumerate().map(agent));
            let mut states = states.clone();
            let flipped = flipped.index(states.len());
            states[flipped].1 = !states[flipped].1;
            let after = a_fleet(states.iter().enumerate().map(agent));
            let (before, after) = (Roster::new(&before), Roster::new(&after));
            let old = nodes(&import(number), &before, count);
            let new = nodes(&import(number), &after, count);
            prop_assert_eq!(old.len(), states.len().min(count));
            let node = an_agent(flipped as u16, None, true).node.to_string();
            if !old.contains(&node) && !new.contains(&node) {
                prop_assert_eq!(old, new);
            }
        }
    }
}
