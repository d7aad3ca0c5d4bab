//! The flags of `clusterlink-agent`. Values are texts here and are checked together, so that all
//! wrong ones are reported in one run.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use clusterlink_process::logging::{KernelLogArgs, LogArgs};

use crate::app::Ebpf;

/// Steers the connections of a node's pods to other peers, and serves theirs.
#[derive(Debug, Parser)]
#[command(
    name = "clusterlink-agent",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Remove what agents left on this node: pinned programs and maps, addresses; refuses while one
    /// runs.
    Cleanup(CleanupArgs),
}

/// Flags of `clusterlink-agent cleanup`; the state directory knows the rest.
#[derive(Debug, Args)]
pub(super) struct CleanupArgs {
    #[command(flatten)]
    pub(super) dirs: DirArgs,
}

/// Where things are on the node.
#[derive(Clone, Debug, Args)]
pub(super) struct DirArgs {
    /// Where kernel programs and maps are pinned. [default: /sys/fs/bpf/clusterlink/<peer>]
    #[arg(long, value_name = "DIR", env = "CLUSTERLINK_BPF_DIR")]
    pub(super) bpf_dir: Option<PathBuf>,
    /// The last good state, import numbers, and the record of what is on this node.
    #[arg(
        long,
        value_name = "DIR",
        env = "CLUSTERLINK_STATE_DIR",
        default_value = "/var/lib/clusterlink-agent"
    )]
    pub(super) state_dir: PathBuf,
    /// The socket of the local API.
    #[arg(
        long,
        value_name = "PATH",
        env = "CLUSTERLINK_ADMIN",
        default_value = "/run/clusterlink/admin.sock"
    )]
    pub(super) admin: PathBuf,
}

/// Flags of an agent.
#[derive(Clone, Debug, Args)]
pub(super) struct RunArgs {
    /// The node that this agent is for. [required]
    #[arg(long, value_name = "NAME", env = "NODE_NAME", default_value = "")]
    pub(super) node_name: String,
    /// Where the controller listens. [default: clusterlink-controller.<namespace>.svc:4445]
    #[arg(long, value_name = "HOST:PORT", env = "CLUSTERLINK_CONTROLLER")]
    pub(super) controller: Option<String>,
    /// The certificate authority of the controller, which it publishes itself.
    #[arg(
        long,
        value_name = "FILE",
        env = "CLUSTERLINK_CONTROLLER_CA",
        default_value = "/etc/clusterlink/controller/ca.crt"
    )]
    pub(super) controller_ca: PathBuf,
    /// The projected token of this agent's ServiceAccount.
    #[arg(
        long,
        value_name = "FILE",
        env = "CLUSTERLINK_TOKEN",
        default_value = "/var/run/secrets/clusterlink.net/token"
    )]
    pub(super) token: PathBuf,
    /// The system namespace, where the controller is.
    #[arg(
        long,
        value_name = "NAME",
        env = "CLUSTERLINK_NAMESPACE",
        default_value = "clusterlink-system"
    )]
    pub(super) namespace: String,
    /// The peer's Secret: cert.pem, key.pem and ca.pem, and an optional crl.pem; loaded again when
    /// they change.
    #[arg(
        long,
        value_name = "DIR",
        env = "CLUSTERLINK_CERTS",
        default_value = "/etc/clusterlink/certs"
    )]
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
    /// Where this node serves imports by the Service path. [default: the addresses that the cluster
    /// knows the node by]
    #[arg(
        long,
        value_name = "ADDR",
        env = "CLUSTERLINK_NODE_ADDRESS",
        value_delimiter = ','
    )]
    pub(super) node_address: Vec<String>,
    /// The cgroup whose processes' connects are steered. [default: the cgroup v2 root]
    #[arg(long, value_name = "PATH", env = "CLUSTERLINK_CGROUP")]
    pub(super) cgroup: Option<PathBuf>,
    #[command(flatten)]
    pub(super) dirs: DirArgs,
    /// A label of this peer, which policies of other peers may select. [default: none]
    #[arg(
        long,
        value_name = "KEY=VALUE",
        env = "CLUSTERLINK_LABEL",
        value_delimiter = ','
    )]
    pub(super) label: Vec<String>,
    /// Refuse callers that have no Peer object here.
    #[arg(long, env = "CLUSTERLINK_REQUIRE_LISTED_PEERS")]
    pub(super) require_listed_peers: bool,
    /// A range of addresses outside of the cluster that may use imports by the Service path, as far as
    /// policies allow. [default: none]
    #[arg(
        long,
        value_name = "CIDR",
        env = "CLUSTERLINK_OUTSIDE_RANGE",
        value_delimiter = ','
    )]
    pub(super) outside_range: Vec<String>,
    /// A range that no name of an ExternalName Service may resolve into: the cluster's ClusterIPs and the
    /// API server's addresses belong here. Nodes and pods are refused anyway. [default: none]
    #[arg(
        long,
        value_name = "CIDR",
        env = "CLUSTERLINK_REFUSE_BACKEND_RANGE",
        value_delimiter = ','
    )]
    pub(super) refuse_backend_range: Vec<String>,
    /// A range of backends that is dialled although it is link-local or loopback. [default: none]
    #[arg(
        long,
        value_name = "CIDR",
        env = "CLUSTERLINK_ALLOW_BACKEND_RANGE",
        value_delimiter = ','
    )]
    pub(super) allow_backend_range: Vec<String>,
    /// Whether the kernel steers the connects of this node. Where it does not, clients come by the
    /// Service path alone, and the agent listens at the imports' target ports itself.
    #[arg(
        long,
        value_name = "MODE",
        env = "CLUSTERLINK_EBPF",
        default_value = "auto"
    )]
    pub(super) ebpf: Ebpf,
    /// Where Prometheus finds metrics, and the kubelet /readyz and /livez (HTTP); `off` for nowhere.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "CLUSTERLINK_METRICS",
        default_value = "127.0.0.1:9477"
    )]
    pub(super) metrics: String,
    /// Threads that carry connections. [default: one per core, at most 4]
    #[arg(long, value_name = "N", env = "CLUSTERLINK_WORKERS")]
    pub(super) workers: Option<String>,
    #[command(flatten)]
    pub(super) log: LogArgs,
    #[command(flatten)]
    pub(super) kernel_log: KernelLogArgs,
}
