//! Which agents serve an Import on the Service path.
//!
//! Up to [`MOST`] agents serve every Import. Of more, each Import has its own few: in every zone
//! the agents are ranked by a hash of Import and node (rendezvous hashing), and the zones take turns.
//! So an agent that comes or goes changes the sets that hold it, and no others. One that rejects an Import
//! is not in its set, as if it was not there.

use std::{collections::BTreeMap, sync::Arc};

use clusterlink_model::ObjectName;

use super::{
    fleet::{Agent, Fleet},
    rejections::Rejecting,
};

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

/// Which agents serve an Import, both in the order of their nodes.
#[derive(Debug, Default)]
pub(crate) struct Placed<'a> {
    pub(crate) agents: Vec<&'a Agent>,
    /// Those that would be among them if they did not reject the Import. Where these are left out, no
    /// other agent that rejects it is ever placed.
    pub(crate) left_out: Vec<&'a Agent>,
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

    /// At most `count` agents for an Import of those that do not reject it: those that serve, and
    /// others only where too few do.
    pub(crate) fn place(
        &self,
        import: &ObjectName,
        count: usize,
        rejecting: &Rejecting,
    ) -> Placed<'_> {
        if self.all.len() <= count {
            let all = self.all.iter().map(|agent| &**agent);
            let (left_out, agents) = all.partition(|agent| rejecting.contains_key(&agent.node));
            return Placed { agents, left_out };
        }
        let seed = mix(hash(&import.namespace) ^ hash(&import.name).rotate_left(32));
        let mut placed = Placed::default();
        placed.take(seed, &self.serving, count, rejecting);
        placed.take(seed, &self.others, count, rejecting);
        for agents in [&mut placed.agents, &mut placed.left_out] {
            agents.sort_by(|a, b| a.node.cmp(&b.node));
        }
        placed
    }
}

impl<'a> Placed<'a> {
    /// The best of each zone in turn until there are `count`.
    fn take(&mut self, seed: u64, zones: &'a [Zone], count: usize, rejecting: &Rejecting) {
        if self.agents.len() >= count {
            return;
        }
        // Of each zone no more are looked at, sorted out of all that it has.
        let most = count - self.agents.len() + rejecting.len();
        let mut ranked: Vec<_> = zones.iter().collect();
        ranked.sort_by_key(|zone| mix(seed ^ zone.hash));
        let ranked = ranked.into_iter().map(|zone| zone.best(seed, most));
        let mut ranked: Vec<_> = ranked.collect();
        let mut before = None;
        while self.agents.len() < count && before != Some(self.agents.len()) {
            before = Some(self.agents.len());
            for zone in &mut ranked {
                if self.agents.len() < count {
                    self.take_one(zone, rejecting);
                }
            }
        }
    }

    fn take_one(&mut self, zone: &mut impl Iterator<Item = &'a Agent>, rejecting: &Rejecting) {
        for agent in zone {
            if !rejecting.contains_key(&agent.node) {
                self.agents.push(agent);
                return;
            }
            self.left_out.push(agent);
        }
    }
}

impl Zone {
    /// Its first `count` agents for an Import, in their order.
    fn best(&self, seed: u64, count: usize) -> impl Iterator<Item = &Agent> {
        let ranks = self.agents.iter().enumerate();
        let mut ranks: Vec<(u64, usize)> = ranks
            .map(|(index, (hash, _))| (mix(seed ^ hash), index))
            .collect();
        if ranks.len() > count {
            ranks.select_nth_unstable(count);
            ranks.truncate(count);
        }
        ranks.sort_unstable();
        ranks.into_iter().map(|(_, index)| &*self.agents[index].1)
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
mod tests;
