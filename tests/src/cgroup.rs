//! Cgroup directories: making, filling, emptying and removing subtrees.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_for;

/// Where the cgroup v2 hierarchy is mounted, also on hosts that have version 1 beside it.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    mounts
        .lines()
        .find_map(|line| {
            let (fields, tail) = line.split_once(" - ")?;
            let is_v2 = tail.split(' ').next() == Some("cgroup2");
            is_v2.then(|| fields.split(' ').nth(4).map(PathBuf::from))?
        })
        .context(
            "no cgroup2 file system is mounted: `mount -t cgroup2 none /sys/fs/cgroup` gives one",
        )
}

/// The processes in one cgroup, those of its children left out.
pub fn processes(cgroup: &Path) -> Result<Vec<i32>> {
    let path = cgroup.join("cgroup.procs");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// The cgroup and all below it, children before their parents.
pub fn subtree(cgroup: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let children = fs::read_dir(cgroup).into_iter().flatten().flatten();
    for child in children {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(subtree(&child.path()));
        }
    }
    all.push(cgroup.to_owned());
    all
}

/// Kills every process of the subtree and removes its directories; a subtree that is not there is fine.
pub fn remove(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    wait_for(
        &format!("{} is removed", cgroup.display()),
        Duration::from_secs(20),
        || {
            kill_all(cgroup);
            for directory in subtree(cgroup) {
                match fs::remove_dir(&directory) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("cannot remove {}", directory.display()));
                    }
                }
            }
            Ok(true)
        },
    )
}

fn kill_all(cgroup: &Path) {
    for directory in subtree(cgroup) {
        for pid in processes(&directory).unwrap_or_default() {
            // A process that is gone by now is what we want.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
