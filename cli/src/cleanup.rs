//! `clusterlink cleanup`.

use std::path::PathBuf;

use clap::Args;
use clusterlink_agent::{app, lock::StateDir};

use crate::{
    admin,
    options::{AdminArgs, StateArgs},
};

/// Flags of `clusterlink cleanup`; the state directory knows the rest.
#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Where kernel programs and maps are pinned. [default: as recorded in the state directory]
    #[arg(long, value_name = "DIR", env = "CLUSTERLINK_BPF_DIR")]
    bpf_dir: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Removes what a crashed peer left, and says what that was.
pub(crate) fn run(args: &CleanupArgs) -> anyhow::Result<()> {
    let removed = admin::block_on(async {
        let _lock = StateDir::lock(&args.state.state_dir)?;
        Ok(app::cleanup(
            &args.state.state_dir,
            args.bpf_dir.as_deref(),
            &args.admin.admin,
        )
        .await?)
    })?;
    if removed.is_empty() {
        println!("nothing to remove");
    }
    for item in removed {
        println!("removed {item}");
    }
    Ok(())
}
