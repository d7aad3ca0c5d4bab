//! The record of what was put on the host, in the state directory.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

const FILE: &str = "host.json";

/// What this peer put on the host, or was about to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Contents {
    /// The peer that wrote this.
    pub peer: Option<String>,
    /// `unreachable` routes.
    pub routes: Vec<IpNet>,
    /// Addresses on `lo`.
    pub addresses: Vec<IpAddr>,
    /// The hosts file that carries a block of ours.
    pub hosts_file: Option<PathBuf>,
    /// Where the kernel's programs and maps are pinned.
    pub bpf_dir: Option<PathBuf>,
    /// The admin socket.
    pub admin: Option<PathBuf>,
}

impl Contents {
    /// Whether nothing is recorded: the last process stopped in order.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The hosts file and the name in its markers, if there is a block of ours.
    pub fn hosts_block(&self) -> Option<(PathBuf, String)> {
        Some((self.hosts_file.clone()?, self.peer.clone()?))
    }
}

/// The record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Reading or writing failed.
    #[error("cannot {what} the record of host changes {path}; is --state-dir writable?")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error("the record of host changes {path} is damaged; look at it and remove it")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The record file; every change is on disk before [`Record::change`] returns.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    contents: Contents,
}

impl Record {
    /// Reads the record in `state_dir`; none is an empty one.
    pub fn open(state_dir: &Path) -> Result<Self, RecordError> {
        let path = state_dir.join(FILE);
        let contents = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| RecordError::Damaged {
                path: path.clone(),
                source,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Contents::default(),
            Err(source) => {
                return Err(RecordError::Io {
                    what: "read",
                    path,
                    source,
                });
            }
        };
        Ok(Self { path, contents })
    }

    /// What is recorded.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Changes the record and writes it, if anything changed.
    pub fn change(&mut self, change: impl FnOnce(&mut Contents)) -> Result<(), RecordError> {
        let before = self.contents.clone();
        change(&mut self.contents);
        if self.contents == before {
            return Ok(());
        }
        crate::file::replace_json(&self.path, &self.contents).map_err(|source| RecordError::Io {
            what: "write",
            path: self.path.clone(),
            source,
        })
    }

    /// Removes the file: nothing of ours is on the host any more.
    pub fn remove(&mut self) -> Result<(), RecordError> {
        self.contents = Contents::default();
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RecordError::Io {
                what: "remove",
                path: self.path.clone(),
                source: error,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_on_disk_before_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::open(dir.path()).unwrap();
        let route: IpNet = "10.114.0.0/16".parse().unwrap();
        record
            .change(|contents| contents.routes.push(route))
            .unwrap();
        assert_eq!(Record::open(dir.path()).unwrap().contents().routes, [route]);
        record.remove().unwrap();
        assert_eq!(
            *Record::open(dir.path()).unwrap().contents(),
            Contents::default()
        );
        record.remove().unwrap();
    }

    #[test]
    fn a_damaged_record_is_named_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        let error = Record::open(dir.path()).unwrap_err();
        assert!(
            error.to_string().contains("host.json is damaged"),
            "{error}"
        );
    }
}
