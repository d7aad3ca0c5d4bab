//! `cargo xtask demo`.

use anyhow::{Result, bail};
use clap::Args;

use crate::{release, setup, step};

/// How to end.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leaves everything up at the end, with the commands to look around, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) fn run(&self) -> Result<()> {
        let missing = setup::missing_to_run()?;
        if !missing.is_empty() {
            bail!("{}", setup::explain(&missing));
        }
        let clusterlink = release::clusterlink()?;
        let demo = release::harness()?.join("demo");
        let mut command = std::process::Command::new(demo);
        command
            .env("CLUSTERLINK_BIN", clusterlink)
            .env("PATH", crate::workspace::search_path());
        if self.keep {
            command.arg("--keep");
        }
        step::openly("demo", &mut command)
    }
}
