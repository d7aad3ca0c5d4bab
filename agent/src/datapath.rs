//! The kernel's side of the node, in the words of the domain: services are steered, workloads have
//! identity classes, classes have verdicts, and accepted connections have an origin.
//!
//! ```text
//! connect(import) ─▶ hook: SERVICES ─▶ IDENTITIES ─▶ VERDICTS ─▶ gateway address, or an errno
//!                                                                      │
//! origin(accepted socket) ◀── record of the connect, by way of the sock_ops hook
//! ```
//!
//! The *Service path* is what clients take whose connect no hook sees: kube-proxy or a CNI sends them to
//! a *target*, the leased port of an import at an address of this node.
//!
//! ```text
//! SYN to a target ─▶ sk_lookup: TARGETS ─▶ the gateway's own listening sockets, or a reset
//! ```
//!
//! [`KernelDatapath`] is the only place that knows eBPF; [`MemoryDatapath`] lets everything else be
//! tested without a kernel. No map or program name appears outside of this module.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::BorrowedFd,
    path::PathBuf,
};

use clusterlink_gateway::view::Origin;

mod attach;
mod bpffs;
mod cgroup;
mod clock;
mod error;
mod kernel;
mod log;
mod memory;
mod object;
mod off;
mod overlap;
mod pins;
mod probe;
mod sys;
mod tables;

pub use cgroup::{cgroup_id, cgroup2_mount};
pub use error::DatapathError;
pub use kernel::{KernelDatapath, cleanup, remove_pins};
pub use memory::{MemoryDatapath, Write};
pub use off::OffDatapath;

/// The class of clients that nothing is known of: the gateway judges them.
pub const CLASS_UNKNOWN: u32 = 0;

/// The class of the host's own processes. Workloads have classes from 2 on.
pub const CLASS_HOST: u32 = 1;

/// How many imports one [`VerdictBlock`] covers.
pub const BLOCK_IMPORTS: u32 = 512;

/// The verdicts of one class on 512 consecutive imports: a set bit means that some source of the
/// import is allowed. Import `n` is bit `n % 64` of word `n / 64 % 8` in block `n / 512`.
pub type VerdictBlock = [u64; 8];

/// A connection that the kernel refused because the client's class has no verdict for the import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The import that the client wanted.
    pub import: u32,
    /// The identity class of the client.
    pub class: u32,
    /// The cgroup of the client: the one that gave the class, else its own.
    pub cgroup: u64,
    /// The address and port that the client asked for.
    pub destination: SocketAddr,
    /// The process, as the initial pid namespace numbers it.
    pub pid: u32,
    /// When, in the kernel's monotonic time.
    pub kernel_time_ns: u64,
}

/// A steered connection that is open, as the client's socket sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFlow {
    /// The cookie of the client's socket.
    pub cookie: u64,
    /// The import that the client connected to.
    pub import: u32,
    /// The cgroup of the client.
    pub cgroup: u64,
    /// The address and port that the client asked for.
    pub destination: SocketAddr,
    /// The TCP state of the client's socket.
    pub state: &'static str,
    /// The smoothed round-trip time to the gateway, in microseconds.
    pub rtt_us: u32,
    /// Bytes that the gateway acknowledged.
    pub bytes_sent: u64,
    /// Bytes received from the gateway.
    pub bytes_received: u64,
    /// Segments that were sent again.
    pub retransmits: u32,
}

/// What the agent tells the kernel, and what it learns from it.
///
/// Writes take effect for the next connect. The order is the caller's: a denial is in force once
/// [`set_verdicts`](Self::set_verdicts) returned.
pub trait Datapath: Send + Sync + 'static {
    /// Names the gateway's listening sockets. Connects are steered only while one of them lives:
    /// the kernel forgets them when the process ends, and refuses from then on.
    fn set_listeners(&self, listeners: &[BorrowedFd<'_>]) -> Result<(), DatapathError>;

    /// Says that the gateway is alive; called every 500 ms.
    fn heartbeat(&self) -> Result<(), DatapathError>;

    /// Steers TCP connects to `address`; other protocols to the same IP address are refused.
    fn set_service(&self, address: SocketAddr, import: u32) -> Result<(), DatapathError>;

    /// Stops steering `address`; not an error if it was not steered.
    fn remove_service(&self, address: SocketAddr) -> Result<(), DatapathError>;

    /// What is steered now, in no order. After a restart this includes what the last process left.
    fn services(&self) -> Result<Vec<(SocketAddr, u32)>, DatapathError>;

    /// Names the gateway's listening sockets of the Service path, of either family. Connections to
    /// targets go to one of them, or are refused while there is none.
    fn set_target_listeners(&self, listeners: &[BorrowedFd<'_>]) -> Result<(), DatapathError>;

    /// Takes connections to a port of this node for an import: no other listener gets them.
    fn set_target(&self, address: SocketAddr, import: u32) -> Result<(), DatapathError>;

    /// Leaves a port to whoever listens on it; not an error if it was no target.
    fn remove_target(&self, address: SocketAddr) -> Result<(), DatapathError>;

    /// The targets as they are now, in no order. After a restart this includes what the last process
    /// left.
    fn targets(&self) -> Result<Vec<(SocketAddr, u32)>, DatapathError>;

    /// Gives the processes of a cgroup, and of those below it, an identity class.
    fn set_workload(&self, cgroup: u64, class: u32) -> Result<(), DatapathError>;

    /// Forgets a cgroup; not an error if it was not known.
    fn remove_workload(&self, cgroup: u64) -> Result<(), DatapathError>;

    /// The cgroups that have a class now, in no order.
    fn workloads(&self) -> Result<Vec<(u64, u32)>, DatapathError>;

    /// Replaces a class's verdicts on the imports of one block.
    fn set_verdicts(
        &self,
        class: u32,
        block: u32,
        verdicts: &VerdictBlock,
    ) -> Result<(), DatapathError>;

    /// Removes all verdicts: every known class is denied everything.
    fn clear_verdicts(&self) -> Result<(), DatapathError>;

    /// The record of the connect that led to an accepted socket; `None` if it was not steered.
    fn origin(&self, socket: BorrowedFd<'_>) -> io::Result<Option<Origin>>;

    /// Takes the refusals since the last call. What the hooks logged is logged by this as well.
    fn refusals(&self) -> Vec<Refusal>;

    /// The steered connections that are open.
    fn flows(&self) -> Result<Vec<KernelFlow>, DatapathError>;

    /// Makes a connect that the hooks must see, and learns from it how the kernel numbers this
    /// process. Steering works only if this succeeds.
    fn probe(&self) -> Result<(), DatapathError>;

    /// What the hooks counted, by reason.
    fn counters(&self) -> Result<Vec<(&'static str, u64)>, DatapathError>;
}

/// What the kernel datapath needs to know to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where programs and maps are pinned: a directory of this peer's own on a bpffs.
    pub bpf_dir: PathBuf,
    /// The directory of the cgroup (under the cgroup v2 mount) whose connects are steered.
    pub cgroup: PathBuf,
    /// Where steered IPv4 connections go.
    pub gateway_v4: Option<SocketAddrV4>,
    /// Where steered IPv6 connections go.
    pub gateway_v6: Option<SocketAddrV6>,
    /// While the gateway is not heard of, connects are left alone instead of refused: on Kubernetes
    /// the Service path brings them to the agent of another node, which judges them. A standalone
    /// peer has nobody who would.
    pub pass_when_stale: bool,
    /// Whether the Service path is served in the network namespace of the calling thread.
    pub service_path: bool,
    /// What the hooks log, besides what they count and report: 0 is nothing, 1 errors, up to 5 for
    /// everything. Each line costs a connect about 0.1 µs.
    pub log_level: u8,
}

/// What [`cleanup`] or [`remove_pins`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The pinned links: each was a program attached to a cgroup or network namespace.
    pub links: Vec<PathBuf>,
    /// The pinned maps.
    pub maps: Vec<PathBuf>,
    /// The directories.
    pub directories: Vec<PathBuf>,
    /// Where a bpffs that had been mounted for us was unmounted.
    pub unmounted: Option<PathBuf>,
}
