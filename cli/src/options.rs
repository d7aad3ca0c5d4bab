//! Flags that several commands have in common.

use std::path::PathBuf;

use clap::Args;

/// Where the local API is.
#[derive(Clone, Debug, Args)]
pub(crate) struct AdminArgs {
    /// The socket of the local API of `clusterlink run`.
    #[arg(
        long,
        value_name = "PATH",
        env = "CLUSTERLINK_ADMIN",
        default_value = "/run/clusterlink/admin.sock"
    )]
    pub(crate) admin: PathBuf,
}

/// Where the state is.
#[derive(Clone, Debug, Args)]
pub(crate) struct StateArgs {
    /// The last good state, address and port leases, and the record of what is on this host.
    #[arg(
        long,
        value_name = "DIR",
        env = "CLUSTERLINK_STATE_DIR",
        default_value = "/var/lib/clusterlink"
    )]
    pub(crate) state_dir: PathBuf,
}
