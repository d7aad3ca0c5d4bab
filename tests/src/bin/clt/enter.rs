//! Becoming another program somewhere else.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Where to run what.
#[derive(Debug, Args)]
pub(crate) struct Enter {
    /// The file of the network namespace.
    #[arg(long)]
    netns: Option<PathBuf>,
    /// The directory of the cgroup.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// The file that stands in for /etc/hosts.
    #[arg(long)]
    hosts: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

impl Enter {
    pub(crate) fn run(self) -> Result<()> {
        if let Some(cgroup) = &self.cgroup {
            let procs = cgroup.join("cgroup.procs");
            fs::write(&procs, "0").with_context(|| format!("cannot join {}", cgroup.display()))?;
        }
        if let Some(netns) = &self.netns {
            let file =
                File::open(netns).with_context(|| format!("cannot open {}", netns.display()))?;
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter {}", netns.display()))?;
        }
        if let Some(hosts) = &self.hosts {
            stand_in(hosts)?;
        }
        // Whatever started the tests in the background may have made them ignore SIGINT, which
        // every program from here on would inherit.
        let error = Command::new("env")
            .args(["--default-signal=INT,QUIT", "--"])
            .args(&self.program)
            .exec();
        Err(error).context("cannot run env")
    }
}

/// Puts a file in the place of /etc/hosts for this process and its children only.
fn stand_in(hosts: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    // A slave still sees what is mounted outside, such as bpffs, but shows nothing to the outside.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .context("cannot detach the mount namespace")?;
    mount(
        Some(hosts),
        "/etc/hosts",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("cannot put {} over /etc/hosts", hosts.display()))
}
