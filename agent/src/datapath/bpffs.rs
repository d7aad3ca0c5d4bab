//! The file system for pins: mounted if need be, unmounted again if it was us and nothing is left
//! on it; and the locks that keep processes apart.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{FlockOperation, flock, statfs};

use super::{DatapathError, cgroup::mounts};

/// Where a bpffs belongs.
const MOUNT_POINT: &str = "/sys/fs/bpf";

/// The source that our mount is given: by this we know it again.
const MOUNT_SOURCE: &str = "clusterlink";

/// `BPF_FS_MAGIC`
const BPF_FS: u64 = 0xcafe_4a11;

/// Held while mounts are changed, or subtrees claimed, so that peers on one host do it in turn. The
/// kernel releases it when the process ends.
pub(super) struct HostLock(#[expect(dead_code, reason = "closing it releases the lock")] File);

impl HostLock {
    /// Waits for the lock. It is taken on a directory that every host has, so that no file is left.
    pub(super) fn acquire() -> Result<Self, DatapathError> {
        let path = "/sys/fs";
        let failed = |source| DatapathError::path("lock", path, source);
        let directory = File::open(path).map_err(failed)?;
        flock(&directory, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(Self(directory))
    }
}

/// A peer's directory of pins, used by this process alone.
#[derive(Debug)]
pub(super) struct PinDirectory {
    path: PathBuf,
    /// Closing it releases the lock; open, it keeps the bpffs from being unmounted.
    lock: Mutex<Option<File>>,
}

impl PinDirectory {
    /// Makes the directory if need be, and locks it.
    pub(super) fn open(path: &Path, _host: &HostLock) -> Result<Self, DatapathError> {
        mount_for(path)?;
        fs::create_dir_all(path).map_err(|source| DatapathError::path("create", path, source))?;
        Self::lock(path)
    }

    /// Locks the directory if there is one.
    pub(super) fn existing(path: &Path, _host: &HostLock) -> Result<Option<Self>, DatapathError> {
        match fs::metadata(path) {
            Ok(_) if !is_bpffs(path)? => Err(DatapathError::NotBpffs {
                path: path.to_owned(),
            }),
            Ok(_) => Self::lock(path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DatapathError::path("look at", path, source)),
        }
    }

    /// Removes the directory, and the directory of all peers when this was the last. The lock is
    /// released by that.
    pub(super) fn remove(&self, _host: &HostLock) -> Result<Vec<PathBuf>, DatapathError> {
        let mut removed = Vec::new();
        let shared = self
            .path
            .parent()
            .filter(|parent| parent.ends_with("clusterlink"));
        for path in std::iter::once(self.path.as_path()).chain(shared) {
            match fs::remove_dir(path) {
                Ok(()) => removed.push(path.to_owned()),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                    ) => {}
                Err(source) => return Err(DatapathError::path("remove", path, source)),
            }
        }
        self.lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Ok(removed)
    }

    fn lock(path: &Path) -> Result<Self, DatapathError> {
        let failed = |source| DatapathError::path("lock", path, source);
        let directory = File::open(path).map_err(failed)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
                return Err(DatapathError::Locked {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        Ok(Self {
            path: path.to_owned(),
            lock: Mutex::new(Some(directory)),
        })
    }
}

/// Unmounts the bpffs if we mounted it and nothing is on it.
pub(super) fn unmount_if_ours(_host: &HostLock) -> Result<Option<PathBuf>, DatapathError> {
    let point = Path::new(MOUNT_POINT);
    let info = "/proc/self/mountinfo";
    let text = fs::read(info).map_err(|source| DatapathError::path("read", info, source))?;
    let ours = mounts(&text)
        .filter(|mount| mount.point == point)
        .last()
        .is_some_and(|mount| mount.kind == b"bpf" && mount.source == MOUNT_SOURCE.as_bytes());
    if !ours {
        return Ok(None);
    }
    // Names with a dot are the kernel's own and always there. An entry keeps the directory open,
    // so only names are kept.
    let used = fs::read_dir(point)
        .and_then(|entries| {
            entries
                .map(|e| Ok(e?.file_name()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(|source| DatapathError::path("list", point, source))?
        .iter()
        .any(|name| !name.as_encoded_bytes().contains(&b'.'));
    if used {
        return Ok(None);
    }
    match umount2(point, MntFlags::empty()) {
        Ok(()) => Ok(Some(point.to_owned())),
        // Somebody looks at it; the next to stop will try again.
        Err(nix::errno::Errno::EBUSY) => Ok(None),
        Err(error) => Err(DatapathError::path("unmount", point, error)),
    }
}

/// Sees to it that a path is on a bpffs.
fn mount_for(path: &Path) -> Result<(), DatapathError> {
    let existing = path
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .ok_or_else(|| DatapathError::NotBpffs {
            path: path.to_owned(),
        })?;
    if is_bpffs(existing)? {
        return Ok(());
    }
    let point = Path::new(MOUNT_POINT);
    if !path.starts_with(point) || !point.is_dir() {
        return Err(DatapathError::NotBpffs {
            path: path.to_owned(),
        });
    }
    mount(
        Some(MOUNT_SOURCE),
        point,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME,
        Some("mode=0700"),
    )
    .map_err(|error| DatapathError::path("mount a bpffs at", point, error))
}

fn is_bpffs(path: &Path) -> Result<bool, DatapathError> {
    let found = statfs(path).map_err(|error| DatapathError::path("look at", path, error))?;
    // The field is signed on some targets; only its low half means anything.
    Ok(found.f_type as u64 & 0xffff_ffff == BPF_FS)
}
