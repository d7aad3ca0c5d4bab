//! The file system for pinned programs and maps. A node of a cluster has it before any agent, which may
//! not mount anything.

use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::MsFlags;
use nix::sys::statfs::{FsType, statfs};

/// Where it is mounted.
pub(crate) const MOUNT_POINT: &str = "/sys/fs/bpf";

/// What `clusterlink cleanup` knows a mount by that it may undo.
const SOURCE: &str = "clusterlink";

/// `BPF_FS_MAGIC`
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// Mounts it, unless it is.
pub(crate) fn mount() -> Result<()> {
    let point = Path::new(MOUNT_POINT);
    let found = statfs(point).with_context(|| format!("cannot look at {MOUNT_POINT}"))?;
    if found.filesystem_type() == BPF_FS {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some(SOURCE), point, Some("bpf"), flags, Some("mode=0700"))
        .with_context(|| format!("cannot mount a bpffs at {MOUNT_POINT}"))
}
