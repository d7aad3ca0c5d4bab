//! The flags of `clusterlink run`. Values are texts here and are checked together, so that all
//! wrong ones are reported in one run.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clusterlink_process::logging::{KernelLogArgs, LogArgs};

use crate::options::{AdminArgs, StateArgs};

/// Flags of a standalone peer.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// Manifests: *.yaml, *.yml and *.json, in subdirectories too; changes are picked up.
    #[arg(long, value_name = "DIR", env = "CLUSTERLINK_MANIFESTS")]
    pub(super) manifests: PathBuf,
    /// cert.pem, key.pem and ca.pem as `clusterlink create peer-cert` makes them, and an optional
    /// crl.pem; loaded again when they change.
    #[arg(long, value_name = "DIR", env = "CLUSTERLINK_CERTS")]
    pub(super) certs: PathBuf,
    /// Where other peers connect (TCP).
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "CLUSTERLINK_LISTEN",
        default_value = "0.0.0.0:4443"
    )]
    pub(super) listen: String,
    /// Where steered connections go, one address per family; put on lo. [default: 169.254.77.1 and
    /// fd77:636c::1]
    #[arg(
        long,
        value_name = "ADDR",
        env = "CLUSTERLINK_GATEWAY_ADDRESS",
        value_delimiter = ','
    )]
    pub(super) gateway_address: Vec<String>,
    /// Where the imports' addresses come from. [default: 10.114.0.0/16 and fd77:636d::/112]
    #[arg(
        long,
        value_name = "CIDR",
        env = "CLUSTERLINK_SERVICE_CIDR",
        value_delimiter = ','
    )]
    pub(super) service_cidr: Vec<String>,
    /// A hosts file that gets a block with the imports' names. [default: none]
    #[arg(long, value_name = "FILE", env = "CLUSTERLINK_HOSTS_FILE")]
    pub(super) hosts_file: Option<PathBuf>,
    /// The cgroup whose processes' connects are steered. [default: the cgroup v2 root]
    #[arg(long, value_name = "PATH", env = "CLUSTERLINK_CGROUP")]
    pub(super) cgroup: Option<PathBuf>,
    /// Where kernel programs and maps are pinned. [default: /sys/fs/bpf/clusterlink/<peer>]
    #[arg(long, value_name = "DIR", env = "CLUSTERLINK_BPF_DIR")]
    pub(super) bpf_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) state: StateArgs,
    /// A label of this peer, which policies of other peers may select. [default: none]
    #[arg(
        long,
        value_name = "KEY=VALUE",
        env = "CLUSTERLINK_LABEL",
        value_delimiter = ','
    )]
    pub(super) label: Vec<String>,
    /// Steering in the kernel: auto and require need it, off comes later.
    #[arg(
        long,
        value_name = "MODE",
        env = "CLUSTERLINK_EBPF",
        default_value = "auto"
    )]
    pub(super) ebpf: EbpfMode,
    /// Refuse callers that have no Peer object here.
    #[arg(long, env = "CLUSTERLINK_REQUIRE_LISTED_PEERS")]
    pub(super) require_listed_peers: bool,
    /// Where Prometheus finds metrics (HTTP); `off` for nowhere.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "CLUSTERLINK_METRICS",
        default_value = "127.0.0.1:9477"
    )]
    pub(super) metrics: String,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
    /// Threads that carry connections. [default: one per core, at most 4]
    #[arg(long, value_name = "N", env = "CLUSTERLINK_WORKERS")]
    pub(super) workers: Option<String>,
    /// Makes imports with lbScheme random draw the same sequence of sources in every run, for tests.
    /// [default: another one in each run]
    #[arg(long, value_name = "NUMBER", env = "CLUSTERLINK_RANDOM_SEED")]
    pub(super) random_seed: Option<u64>,
    #[command(flatten)]
    pub(super) log: LogArgs,
    #[command(flatten)]
    pub(super) kernel_log: KernelLogArgs,
}

/// How connects are steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EbpfMode {
    /// By eBPF where the kernel lets us.
    Auto,
    /// By eBPF, or not at all.
    Require,
    /// Without eBPF.
    Off,
}
