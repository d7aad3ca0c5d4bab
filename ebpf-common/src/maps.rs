//! The maps: their names, which say what they hold, and their sizes.
//!
//! Names have at most 15 characters, which is what the kernel keeps of them.

use crate::layout::{
    Flow, Gateway, Origin, Probe, Service, ServiceKey, Target, TargetKey, Tuple, VerdictKey,
    Verdicts,
};

/// Which addresses are steered, and what they mean. Written by the agent.
pub const SERVICES: &str = "SERVICES";
/// Where connects are steered to. Written by the agent.
pub const GATEWAYS: &str = "GATEWAYS";
/// The identity class of a cgroup. Written by the agent.
pub const IDENTITIES: &str = "IDENTITIES";
/// What a class may reach. Written by the agent.
pub const VERDICTS: &str = "VERDICTS";
/// The gateway's listening sockets. Written by the agent, emptied by the kernel when they close.
pub const LISTENERS: &str = "LISTENERS";
/// Which ports of this node's addresses are the Service path's, and what they mean. Written by the
/// agent.
pub const TARGETS: &str = "TARGETS";
/// The gateway's listening sockets of the Service path. Written by the agent, emptied by the kernel
/// when they close.
pub const TARGET_SOCKETS: &str = "TARGET_SOCKETS";
/// On a client's socket: the connect that was steered. Written by the connect hooks.
pub const STEERED: &str = "STEERED";
/// From the connect to the accept: the record by its tuple. Written by the sock_ops hook.
pub const HANDOFF: &str = "HANDOFF";
/// On an accepted socket: the record of its client. Written by the sock_ops hook.
pub const ORIGINS: &str = "ORIGINS";
/// The steered connections that are open. Written by the sock_ops hook.
pub const FLOWS: &str = "FLOWS";
/// Connects that were refused, for the agent to read. Written by the connect hooks.
pub const REFUSALS: &str = "REFUSALS";
/// The agent's probe. Armed by the agent, answered by the connect hooks.
pub const PROBES: &str = "PROBES";
/// How often each thing happened. Written by all hooks.
pub const COUNTERS: &str = "COUNTERS";

/// Room for 10,000 imports in two families with a marker each, and half as much again.
pub const MAX_SERVICES: u32 = 65_536;
/// One gateway.
pub const MAX_GATEWAYS: u32 = 1;
/// Room for every cgroup that a large node may have.
pub const MAX_IDENTITIES: u32 = 16_384;
/// Room for 3,000 classes that can reach all of 10,000 imports.
pub const MAX_VERDICTS: u32 = 65_536;
/// As many listeners as a gateway may have workers.
pub const MAX_LISTENERS: u32 = 64;
/// Room for 10,000 imports at two addresses of the node, and half as much again.
pub const MAX_TARGETS: u32 = 32_768;
/// As many sockets of each family as a gateway may have workers: first those of IPv4, and from half
/// of the map on those of IPv6.
pub const MAX_TARGET_SOCKETS: u32 = 2 * MAX_LISTENERS;
/// At least four times the connects that may be on their way at once.
pub const MAX_HANDOFF: u32 = 32_768;
/// As many open connections as are shown.
pub const MAX_FLOWS: u32 = 65_536;
/// Bytes of the ring of refusals: 4,681 refusals of 48 bytes and their 8-byte headers.
pub const REFUSALS_BYTES: u32 = 262_144;
/// One probe at a time.
pub const MAX_PROBES: u32 = 1;

/// What kind of map it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `BPF_MAP_TYPE_HASH`
    Hash,
    /// `BPF_MAP_TYPE_ARRAY`
    Array,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`
    PerCpuArray,
    /// `BPF_MAP_TYPE_LRU_HASH`
    LruHash,
    /// `BPF_MAP_TYPE_SOCKMAP`
    SockMap,
    /// `BPF_MAP_TYPE_SK_STORAGE`
    SkStorage,
    /// `BPF_MAP_TYPE_RINGBUF`
    RingBuf,
}

impl Kind {
    /// The kernel's number of the kind.
    pub const fn number(self) -> u32 {
        match self {
            Self::Hash => 1,
            Self::Array => 2,
            Self::PerCpuArray => 6,
            Self::LruHash => 9,
            Self::SockMap => 15,
            Self::SkStorage => 24,
            Self::RingBuf => 27,
        }
    }
}

/// What a map must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The size of a key in bytes.
    pub key_size: u32,
    /// The size of a value in bytes.
    pub value_size: u32,
    /// How many entries it can have (bytes for a ring).
    pub max_entries: u32,
}

const fn map<K, V>(name: &'static str, kind: Kind, max_entries: u32) -> Map {
    Map {
        name,
        kind,
        key_size: size_of::<K>() as u32,
        value_size: size_of::<V>() as u32,
        max_entries,
    }
}

/// All maps.
pub const ALL: [Map; 14] = [
    map::<ServiceKey, Service>(SERVICES, Kind::Hash, MAX_SERVICES),
    map::<u32, Gateway>(GATEWAYS, Kind::Array, MAX_GATEWAYS),
    map::<u64, u32>(IDENTITIES, Kind::Hash, MAX_IDENTITIES),
    map::<VerdictKey, Verdicts>(VERDICTS, Kind::Hash, MAX_VERDICTS),
    map::<u32, u32>(LISTENERS, Kind::SockMap, MAX_LISTENERS),
    map::<TargetKey, Target>(TARGETS, Kind::Hash, MAX_TARGETS),
    map::<u32, u32>(TARGET_SOCKETS, Kind::SockMap, MAX_TARGET_SOCKETS),
    map::<u32, Origin>(STEERED, Kind::SkStorage, 0),
    map::<Tuple, Origin>(HANDOFF, Kind::LruHash, MAX_HANDOFF),
    map::<u32, Origin>(ORIGINS, Kind::SkStorage, 0),
    map::<u64, Flow>(FLOWS, Kind::Hash, MAX_FLOWS),
    map::<(), ()>(REFUSALS, Kind::RingBuf, REFUSALS_BYTES),
    map::<u32, Probe>(PROBES, Kind::Array, MAX_PROBES),
    map::<u32, u64>(COUNTERS, Kind::PerCpuArray, crate::reason::COUNT),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_the_kernel() {
        for (index, map) in ALL.iter().enumerate() {
            assert!(map.name.len() <= 15, "{}", map.name);
            assert!(
                ALL[..index].iter().all(|other| other.name != map.name),
                "{}",
                map.name
            );
        }
    }
}
