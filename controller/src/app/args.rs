//! The flags of `clusterlink-controller`. Values are texts here and are checked together, so that
//! all wrong ones are reported in one run.

use std::path::PathBuf;

use clap::Parser;
use clusterlink_process::logging::LogArgs;

/// Watches ClusterLink's resources of a cluster, serves its agents, and writes Services,
/// EndpointSlices and statuses while it holds the lease.
#[derive(Clone, Debug, Parser)]
#[command(name = "clusterlink-controller", version, max_term_width = 100)]
pub(crate) struct Args {
    /// How the API server is reached. [default: the pod's own ServiceAccount, or as kubectl does]
    #[arg(long, value_name = "FILE", env = "CLUSTERLINK_KUBECONFIG")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// The system namespace, where controller and agents run and Peers count. [default: the pod's
    /// own namespace, else clusterlink-system]
    #[arg(long, value_name = "NAME", env = "CLUSTERLINK_NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// The name of this peer. [default: what cert.pem of the Secret clusterlink-peer in the system
    /// namespace says]
    #[arg(long, value_name = "NAME", env = "CLUSTERLINK_PEER_NAME")]
    pub(super) peer_name: Option<String>,
    /// A label of this peer, which policies of other peers may select. [default: none]
    #[arg(
        long,
        value_name = "KEY=VALUE",
        env = "CLUSTERLINK_LABEL",
        value_delimiter = ','
    )]
    pub(super) label: Vec<String>,
    /// Where agents connect (TCP).
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "CLUSTERLINK_LISTEN",
        default_value = "0.0.0.0:4445"
    )]
    pub(super) listen: String,
    /// The address of this replica that agents are told, usually its pod's. [default: that of
    /// --listen, or if it is unspecified the one that the API server is reached from]
    #[arg(long, value_name = "ADDR", env = "CLUSTERLINK_ADVERTISE")]
    pub(super) advertise: Option<String>,
    /// Where Kubernetes asks for /livez and /readyz, and Prometheus for /metrics (HTTP).
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "CLUSTERLINK_METRICS",
        default_value = "0.0.0.0:9478"
    )]
    pub(super) metrics: String,
    /// Where the target ports of Imports are allocated from.
    #[arg(
        long,
        value_name = "FIRST-LAST",
        env = "CLUSTERLINK_TARGET_PORTS",
        default_value = "10000-29999"
    )]
    pub(super) target_ports: String,
    /// The NodePort range of the cluster, which no Import may have a target port of.
    #[arg(
        long,
        value_name = "FIRST-LAST",
        env = "CLUSTERLINK_NODE_PORTS",
        default_value = "30000-32767"
    )]
    pub(super) node_ports: String,
    /// The name of this replica, which has to be its pod's. [default: the name of the host]
    #[arg(long, value_name = "NAME", env = "CLUSTERLINK_IDENTITY")]
    pub(super) identity: Option<String>,
    /// How long the others wait for a lease holder that is not heard of.
    #[arg(
        long,
        value_name = "TIME",
        env = "CLUSTERLINK_LEASE_DURATION",
        default_value = "15s"
    )]
    pub(super) lease_duration: String,
    /// How long the lease holder itself goes on without a renewal; shorter than --lease-duration.
    #[arg(
        long,
        value_name = "TIME",
        env = "CLUSTERLINK_RENEW_DEADLINE",
        default_value = "10s"
    )]
    pub(super) renew_deadline: String,
    /// How often the lease is renewed or looked at.
    #[arg(
        long,
        value_name = "TIME",
        env = "CLUSTERLINK_RETRY_PERIOD",
        default_value = "2s"
    )]
    pub(super) retry_period: String,
    #[command(flatten)]
    pub(super) log: LogArgs,
}
