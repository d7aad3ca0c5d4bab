//! One process at a time per state directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// A state directory in use by this process; the kernel frees it when the process ends.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// A state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made or written.
    #[error(
        "cannot use the state directory {path}; make it writable or choose another --state-dir"
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "the state directory {path} is in use by process {holder}; stop that one, or give this peer a --state-dir of its own"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process id of the other one.
        holder: String,
    },
}

impl StateDir {
    /// Makes the directory where needed, and locks it.
    pub fn lock(path: &Path) -> Result<Self, StateDirError> {
        let failed = |source| StateDirError::Io {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(failed)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).map_err(failed)?;
                return Err(StateDirError::InUse {
                    path: path.to_owned(),
                    holder: holder.trim().to_owned(),
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        lock.set_len(0).map_err(failed)?;
        writeln!(lock, "{}", std::process::id()).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::lock(&dir.path().join("state")).unwrap();
        let error = StateDir::lock(first.path()).unwrap_err();
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        let path = first.path().to_owned();
        drop(first);
        StateDir::lock(&path).unwrap();
    }
}
