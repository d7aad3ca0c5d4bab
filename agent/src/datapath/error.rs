//! What can go wrong between us and the kernel, and what to do about it.

use std::{io, net::SocketAddr, path::PathBuf};

/// An error of the datapath. Each names the object, and the cure where one is known.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The process may not use BPF.
    #[error(
        "missing {missing}: run as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (CAP_SYS_ADMIN too where a bpffs must be mounted)"
    )]
    Capabilities {
        /// The capabilities that are missing.
        missing: String,
    },

    /// No cgroup v2 file system is mounted.
    #[error(
        "no cgroup v2 file system is mounted: mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`"
    )]
    CgroupMount,

    /// A path is not a directory of the cgroup v2 file system.
    #[error("{path} is not a directory under the cgroup v2 mount {mount}")]
    NotACgroup {
        /// The path that was given.
        path: PathBuf,
        /// Where cgroup v2 is mounted.
        mount: PathBuf,
    },

    /// The directory for pins is not on a bpffs.
    #[error(
        "{path} is not on a bpffs: choose a directory under /sys/fs/bpf, or mount one with `mount -t bpf bpf {path}`"
    )]
    NotBpffs {
        /// The path that was given.
        path: PathBuf,
    },

    /// The kernel lacks something that steering cannot do without.
    #[error("the kernel does not support {feature}: it needs Linux {since} or newer{hint}")]
    Unsupported {
        /// What is missing.
        feature: &'static str,
        /// The first kernel that has it.
        since: &'static str,
        /// How else it may be missing.
        hint: &'static str,
    },

    /// This binary carries no kernel programs.
    #[error(
        "this binary was built without its kernel programs: install bpf-linker and rust-src (`cargo xtask setup`) and build it again"
    )]
    ObjectMissing,

    /// Another process uses the same pins.
    #[error(
        "{path} is in use by another process: stop it first, or choose another --bpf-dir for this peer"
    )]
    Locked {
        /// The directory of the pins.
        path: PathBuf,
    },

    /// Another live peer steers an overlapping subtree.
    #[error(
        "cgroup {cgroup} overlaps with {other}, which another running peer steers: give each peer a subtree of its own with --cgroup"
    )]
    Overlap {
        /// Our cgroup.
        cgroup: PathBuf,
        /// The other peer's.
        other: PathBuf,
    },

    /// Neither an IPv4 nor an IPv6 gateway address was given.
    #[error("no gateway address was given: steered connections need at least one")]
    NoGatewayAddress,

    /// More listeners than the kernel table has room for.
    #[error("{count} listeners were given, but at most {limit} can be used")]
    TooManyListeners {
        /// How many were given.
        count: usize,
        /// How many there may be.
        limit: u32,
    },

    /// The object could not be loaded into the kernel.
    #[error("cannot load the kernel programs")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// A program could not be loaded or attached.
    #[error("cannot {action} program {program}")]
    Program {
        /// What was attempted.
        action: &'static str,
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A map could not be used.
    #[error("cannot {action} map {map}")]
    Map {
        /// What was attempted.
        action: &'static str,
        /// The map.
        map: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The table of steered addresses is full.
    #[error("no room to steer {address}: the table holds {limit} entries")]
    ServicesFull {
        /// The address that did not fit.
        address: SocketAddr,
        /// How many entries there may be.
        limit: u32,
    },

    /// The table of targets is full.
    #[error("no room for the Service path's port {address}: the table holds {limit} entries")]
    TargetsFull {
        /// The address and port that did not fit.
        address: SocketAddr,
        /// How many entries there may be.
        limit: u32,
    },

    /// A file, directory or mount could not be used.
    #[error("cannot {action} {path}")]
    Path {
        /// What was attempted.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },

    /// A connect of our own could not be made.
    #[error("cannot make a probe connect to {address}")]
    ProbeConnect {
        /// Where the probe should have connected to.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },

    /// A connect of our own was not seen by the hooks.
    #[error(
        "a probe connect to {address} was not seen by the hooks on {cgroup}: on a hybrid cgroup host before Linux 5.15, net_cls or net_prio may have switched cgroup v2 off for sockets"
    )]
    Probe {
        /// Where the probe connected to.
        address: SocketAddr,
        /// The cgroup whose hooks should have seen it.
        cgroup: PathBuf,
    },
}

impl DatapathError {
    pub(super) fn path(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Path {
            action,
            path: path.into(),
            source: source.into(),
        }
    }

    pub(super) fn map(
        action: &'static str,
        map: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Map {
            action,
            map,
            source: source.into(),
        }
    }

    pub(super) fn program(
        action: &'static str,
        program: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Program {
            action,
            program: program.to_owned(),
            source: source.into(),
        }
    }
}
