//! What a node knows and how it decides: names, labels, the node snapshot, access policy, source
//! selection, leases and identity classes.
//!
//! Everything here is pure: no I/O, no clock, no randomness of its own. The controller fills a
//! [`Snapshot`] by [`Update`]s; agents and gateways ask it questions. Kubernetes types never get
//! this far: `clusterlink-controller` translates them.

#![forbid(unsafe_code)]

pub mod class;
pub mod client;
pub mod lease;
pub mod name;
pub mod policy;
pub mod resource;
pub mod select;
pub mod selector;
pub mod snapshot;

pub use client::{Client, WorkloadAttributes};
pub use name::{HostPort, ObjectName, PeerName, PolicyName};
pub use resource::{
    Action, Backend, Endpoint, Export, Import, LbScheme, LocalPeer, Node, Peer, Policy, Source,
    Workload,
};
pub use selector::{Labels, Operator, Requirement, Selector};
pub use snapshot::{Resource, ResourceKey, Snapshot, Update};
