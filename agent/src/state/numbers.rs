//! The numbers that the kernel knows imports by.
//!
//! A number outlives its import for a while: a connection that was steered to the old import may
//! still be on its way to the gateway, and must not be taken for one to the next import.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clusterlink_model::{ObjectName, class::Numbers};

/// The kernel ignores records of connects that are older than 130 seconds.
const REST: Duration = Duration::from_secs(150);

const FILE: &str = "import-numbers.json";

/// Import numbers, kept in a file so that kernel entries mean the same after a restart.
#[derive(Debug)]
pub(super) struct ImportNumbers {
    path: PathBuf,
    numbers: Numbers<ObjectName>,
    /// Imports that are gone, oldest first; their numbers are not given again until they rested.
    resting: VecDeque<(Instant, ObjectName)>,
}

/// The numbers could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} the import numbers {path}; is --state-dir writable?")]
pub struct NumbersError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl ImportNumbers {
    /// Reads the numbers of an earlier process. A damaged file is as good as none: entries that
    /// nobody can read the meaning of are taken out of the kernel.
    pub(super) fn open(state_dir: &Path) -> Result<Self, NumbersError> {
        let path = state_dir.join(FILE);
        let numbers = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|_| Numbers::starting_at(0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Numbers::starting_at(0),
            Err(source) => {
                return Err(NumbersError {
                    what: "read",
                    path,
                    source,
                });
            }
        };
        Ok(Self {
            path,
            numbers,
            resting: VecDeque::new(),
        })
    }

    /// Whether some import has this number.
    pub(super) fn is_known(&self, number: u32) -> bool {
        self.numbers.key(number).is_some()
    }

    /// The number of an import, also while it rests.
    pub(super) fn number(&self, import: &ObjectName) -> Option<u32> {
        self.numbers.number(import)
    }

    /// Every import that has a number.
    pub(super) fn imports(&self) -> impl Iterator<Item = &ObjectName> {
        self.numbers.iter().map(|(_, import)| import)
    }

    /// The number of an import, a new one if it has none. Returns whether it is new.
    pub(super) fn take(&mut self, import: &ObjectName) -> (u32, bool) {
        if let Some(number) = self.numbers.number(import) {
            self.resting.retain(|(_, resting)| resting != import);
            return (number, false);
        }
        let number = self.numbers.assign(import);
        (number.expect("there are fewer imports than numbers"), true)
    }

    /// The import is gone: its number rests.
    pub(super) fn release(&mut self, import: &ObjectName, now: Instant) {
        if self.numbers.number(import).is_some() {
            self.resting.push_back((now, import.clone()));
        }
    }

    /// Numbers that rested long enough may be given again.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((since, _)) = self.resting.front()
            && now.duration_since(*since) >= REST
        {
            if let Some((_, import)) = self.resting.pop_front() {
                self.numbers.release(&import);
            }
        }
    }

    /// Writes the file; to be called before the kernel hears of a new number.
    pub(super) fn save(&self) -> Result<(), NumbersError> {
        crate::file::replace_json(&self.path, &self.numbers).map_err(|source| NumbersError {
            what: "write",
            path: self.path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName::new("shop", name)
    }

    #[test]
    fn a_number_is_given_again_only_after_a_rest() {
        let dir = tempfile::tempdir().unwrap();
        let mut numbers = ImportNumbers::open(dir.path()).unwrap();
        let start = Instant::now();
        assert_eq!(numbers.take(&name("a")), (0, true));
        assert_eq!(numbers.take(&name("b")), (1, true));
        numbers.release(&name("a"), start);
        numbers.wake(start + REST / 2);
        assert_eq!(numbers.take(&name("c")), (2, true));
        numbers.wake(start + REST);
        assert_eq!(numbers.take(&name("d")), (0, true));
    }

    #[test]
    fn an_import_that_returns_has_its_number_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut numbers = ImportNumbers::open(dir.path()).unwrap();
        let start = Instant::now();
        numbers.take(&name("a"));
        numbers.release(&name("a"), start);
        assert_eq!(numbers.take(&name("a")), (0, false));
        numbers.wake(start + 2 * REST);
        assert_eq!(numbers.take(&name("a")), (0, false));
    }

    #[test]
    fn numbers_survive_a_restart_and_gaps_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut numbers = ImportNumbers::open(dir.path()).unwrap();
        let start = Instant::now();
        for import in ["a", "b", "c"] {
            numbers.take(&name(import));
        }
        numbers.release(&name("b"), start);
        numbers.wake(start + REST);
        numbers.save().unwrap();
        let mut again = ImportNumbers::open(dir.path()).unwrap();
        assert_eq!(again.take(&name("c")), (2, false));
        assert_eq!(again.take(&name("d")), (1, true));
        assert_eq!(again.take(&name("e")), (3, true));
        assert!(again.is_known(3) && !again.is_known(4));
        assert_eq!(again.number(&name("a")), Some(0));
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "[{").unwrap();
        assert_eq!(
            ImportNumbers::open(dir.path()).unwrap().imports().count(),
            0
        );
    }
}
