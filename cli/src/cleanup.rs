//! `clusterlink cleanup`.

use std::path::PathBuf;

use anyhow::Context as _;
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
    let directory = &args.state.state_dir;
    let is_new = !directory.exists();
    let removed = admin::block_on(async {
        let _lock = StateDir::lock(directory)?;
        Ok(app::cleanup(directory, args.bpf_dir.as_deref(), &args.admin.admin).await?)
    })?;
    if is_new {
        std::fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    if removed.is_empty() {
        println!("nothing to remove");
    }
    for item in removed {
        println!("removed {item}");
    }
    Ok(())
}
