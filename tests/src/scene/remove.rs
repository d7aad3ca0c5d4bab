//! Removal of files and pins that may be gone already.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::umount;

use crate::bpffs::MOUNT_POINT as BPFFS;

/// Removes a directory of BPF pins, its parent if that is empty then, and the mount below them if
/// it was made by a peer that did not live to unmount it.
pub(super) fn pins(path: &Path) -> Result<()> {
    directory(path)?;
    if let Some(parent) = path.parent() {
        if_empty(parent)?;
    }
    // The lock that peers take while they change mounts.
    let lock = File::open("/sys/fs").context("cannot open /sys/fs")?;
    lock.lock().context("cannot lock /sys/fs")?;
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let last = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(1) == Some(BPFFS));
    let by_a_peer = last.is_some_and(|line| line.starts_with("clusterlink "));
    // Names with a dot are the kernel's own, which every such file system has.
    let names = fs::read_dir(BPFFS)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    let in_use = names
        .into_iter()
        .any(|name| !name.as_encoded_bytes().contains(&b'.'));
    if by_a_peer && !in_use {
        match umount(BPFFS) {
            // Somebody looks at it; whoever is the next to clear up tries again.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot unmount {BPFFS}")),
        }
    }
    Ok(())
}

/// Removes a directory and all in it.
pub(super) fn directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// Removes a directory that nobody else uses any more.
pub(super) fn if_empty(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}
