//! The addresses that a controller asks to be let go of. They are not steered, whichever controller
//! names them as an import's: one whose watch is late may do so after the leader was told that they
//! are not steered any more, and has given them back.
//!
//! ```text
//! Report stream ── ask ─▶ Released ─▶ state (takes them out of the kernel) ─▶ file ─▶ in force
//!       ◀── answer ───────────────────────────────────────────────────────────────────────┘
//! ```
//! They are kept on the node, so that the next process knows them, too. A node that knows of no question
//! steers nothing.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

const FILE: &str = "released";

/// Released addresses; `None` while that is not known.
pub type ReleasedAddresses = Option<Arc<BTreeSet<IpAddr>>>;

/// What controllers have asked last, and how far that is in force. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Released {
    asked: watch::Sender<Asked>,
    in_force: watch::Sender<u64>,
}

/// What is not to be steered, after so many questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// How many questions there were.
    pub number: u64,
    /// What they have led to.
    pub addresses: ReleasedAddresses,
}

/// What is kept on the node.
#[derive(Debug)]
pub struct ReleasedFile {
    path: PathBuf,
    boot: Arc<str>,
    written: ReleasedAddresses,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    boot: Arc<str>,
    addresses: Arc<BTreeSet<IpAddr>>,
}

impl Released {
    /// Goes on with what an earlier process was asked.
    pub fn new(addresses: ReleasedAddresses) -> Self {
        Self {
            asked: watch::Sender::new(Asked {
                number: 0,
                addresses,
            }),
            in_force: watch::Sender::new(0),
        }
    }

    /// Takes a question, which replaces the one before it or `adds` to it, and returns its number.
    pub fn ask(&self, addresses: BTreeSet<IpAddr>, adds: bool) -> u64 {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            asked.number += 1;
            number = asked.number;
            let mut all = addresses;
            if adds {
                all.extend(asked.addresses.iter().flat_map(|before| before.iter()));
            }
            if asked.addresses.as_deref() != Some(&all) {
                asked.addresses = Some(Arc::new(all));
            }
        });
        number
    }

    /// What is asked, as it changes.
    pub fn asked(&self) -> watch::Receiver<Asked> {
        self.asked.subscribe()
    }

    /// Says that the questions up to this number are in force, in this process and for the next one.
    pub fn is_in_force(&self, number: u64) {
        self.in_force.send_replace(number);
    }

    /// Up to which question all is in force.
    pub fn in_force(&self) -> watch::Receiver<u64> {
        self.in_force.subscribe()
    }
}

impl ReleasedFile {
    /// Reads the file; one of another boot says nothing, and so does one that cannot be read.
    pub fn open(state_dir: &Path, boot: Arc<str>) -> Self {
        let path = state_dir.join(FILE);
        let contents = (fs::read(&path).ok())
            .and_then(|bytes| serde_json::from_slice::<Contents>(&bytes).ok())
            .filter(|contents| contents.boot == boot);
        Self {
            path,
            boot,
            written: contents.map(|contents| contents.addresses),
        }
    }

    /// What is kept.
    pub fn addresses(&self) -> ReleasedAddresses {
        self.written.clone()
    }

    /// Keeps these addresses; what is kept already costs nothing.
    pub(crate) fn keep(&mut self, addresses: &Arc<BTreeSet<IpAddr>>) -> io::Result<()> {
        if self.written.as_ref() == Some(addresses) {
            return Ok(());
        }
        let contents = Contents {
            boot: self.boot.clone(),
            addresses: Arc::clone(addresses),
        };
        crate::file::replace_json(&self.path, &contents)?;
        self.written = Some(contents.addresses);
        Ok(())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: &[u8]) -> BTreeSet<IpAddr> {
        last.iter().map(|&last| [10, 96, 0, last].into()).collect()
    }

    fn known(released: &Released) -> Option<BTreeSet<IpAddr>> {
        let asked = released.asked().borrow().clone();
        asked.addresses.map(|all| (*all).clone())
    }

    #[test]
    fn a_question_replaces_the_one_before_it_unless_it_adds_to_it() {
        let released = Released::default();
        assert_eq!(known(&released), None, "nobody has asked");
        assert_eq!(released.ask(addresses(&[1]), true), 1);
        assert_eq!(known(&released), Some(addresses(&[1])));
        assert_eq!(released.ask(addresses(&[2]), true), 2);
        assert_eq!(known(&released), Some(addresses(&[1, 2])));
        assert_eq!(released.ask(addresses(&[3]), false), 3);
        assert_eq!(known(&released), Some(addresses(&[3])));
    }

    #[test]
    fn what_is_kept_counts_in_the_same_boot() {
        let dir = tempfile::tempdir().unwrap();
        let open = |boot: &str| ReleasedFile::open(dir.path(), boot.into());
        let mut file = open("this");
        assert_eq!(file.addresses(), None);
        file.keep(&Arc::default()).unwrap();
        assert_eq!(open("this").addresses(), Some(Arc::default()));
        let some = Arc::new(addresses(&[1, 2]));
        file.keep(&some).unwrap();
        assert_eq!(open("this").addresses(), Some(some));
        assert_eq!(open("next").addresses(), None);
        fs::write(file.path(), "nonsense").unwrap();
        assert_eq!(open("this").addresses(), None);
    }
}
