//! The end-to-end harness: hosts, pods, peers and traffic on the real kernel.
//!
//! A story asks for a [`Scene`](scene::Scene), puts hosts (network namespaces with cgroups of
//! their own) into it, starts peers from the binary under test, applies manifests as a user
//! would, and watches what clients and servers see:
//!
//! ```text
//! Scene ── bridge namespace ─┬─ Host "east" ─ Pod "web"    (cgroup, netns of the host or its own)
//!                            │     └ Peer: `clusterlink run`
//!                            └─ Host "west" ─ Pod "client"
//! ```
//!
//! Whatever a scene makes is written into a ledger before it is made. The scene's end, a watcher
//! process that outlives it, and the next start each clear the ledger, so that nothing is left
//! behind after a panic, Ctrl-C or SIGKILL.
#![forbid(unsafe_code)]

mod bpffs;
pub mod caller;
pub mod cgroup;
pub mod cluster;
pub mod conditions;
pub mod controller;
pub mod fabric;
pub mod host;
pub mod kubernetes;
pub mod latency;
pub mod listing;
pub mod manifests;
pub mod network;
pub mod payload;
pub mod peer;
pub mod pki;
pub mod place;
pub mod pod;
pub mod process;
pub mod report;
pub mod scene;
pub mod stories;
pub mod story;
pub mod tools;
pub mod traffic;
pub mod wait;
pub mod world;

pub use controller::{Controller, ControllerOptions};
pub use fabric::Fabric;
pub use host::Host;
pub use listing::Listing;
pub use peer::{Peer, PeerOptions};
pub use place::Place;
pub use pod::Pod;
pub use process::Process;
pub use scene::Scene;
pub use story::story;
pub use wait::wait_until;
