//! Brings the catalog up to date with the directory, reading only the files that changed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    catalog::{Catalog, Change},
    manifest::{self, Memory},
    walk::{self, Fingerprint, Found},
    watch::Watcher,
};
use crate::source::{Place, Problem};

/// A file that was written less than this before it was read may change once more without a new
/// time of modification: clocks of file systems tick that slowly.
const CLOCK_TICK: Duration = Duration::from_millis(20);
/// How often a look at the tree is repeated because new directories have come to be watched.
const LOOKS: usize = 4;

/// Reads a directory again and again.
#[derive(Debug)]
pub(super) struct Reader {
    root: PathBuf,
    largest_file: u64,
    watcher: Option<Watcher>,
    files: BTreeMap<Arc<Path>, Seen>,
    catalog: Catalog,
    /// What is wrong with the directory itself.
    root_problem: Option<Problem>,
}

#[derive(Debug)]
struct Seen {
    found: Found,
    /// Whether `found` will tell if the file changes from now on.
    certain: bool,
    memory: Memory,
}

/// What a look at the directory has brought.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) changes: Vec<Change>,
    pub(super) problems: Vec<Problem>,
    /// Whether to look again at once, since a file was still being written.
    pub(super) uncertain: bool,
}

impl Reader {
    pub(super) fn new(root: PathBuf, largest_file: u64, watcher: Option<Watcher>) -> Self {
        Self {
            root,
            largest_file,
            watcher,
            files: BTreeMap::new(),
            catalog: Catalog::default(),
            root_problem: None,
        }
    }

    /// Looks at the directory.
    pub(super) fn look(&mut self) -> Update {
        for _ in 0..LOOKS {
            let watched_more = match walk::walk(&self.root) {
                Ok(tree) => {
                    self.root_problem = None;
                    // What happens from here on is seen; so the files are read after it.
                    let added = self
                        .watcher
                        .as_mut()
                        .is_some_and(|w| w.set(&tree.directories));
                    self.read_changed(tree.files, &tree.unreadable);
                    added
                }
                Err(error) => {
                    self.root_problem = Some(self.root_problem(&error));
                    false
                }
            };
            if !watched_more {
                break;
            }
        }
        let changes = self
            .catalog
            .settle()
            .into_iter()
            .map(|(_, change)| change)
            .collect();
        let mut problems = self.catalog.problems();
        problems.extend(self.root_problem.clone());
        problems.sort();
        let uncertain = self.files.values().any(|seen| !seen.certain);
        Update {
            changes,
            problems,
            uncertain,
        }
    }

    fn root_problem(&self, error: &io::Error) -> Problem {
        Problem {
            place: Place {
                file: self.root.display().to_string(),
                document: None,
                line: None,
            },
            kind: None,
            object: None,
            field: None,
            message: format!(
                "the manifest directory cannot be read ({error}): what was last read stays in force until it is there again"
            ),
            stale: true,
        }
    }

    fn read_changed(&mut self, mut files: BTreeMap<Arc<Path>, Found>, unreadable: &[PathBuf]) {
        // What was in a directory that cannot be looked through may be there still, changed.
        let hidden = |path: &&Arc<Path>| {
            unreadable
                .iter()
                .any(|directory| path.starts_with(directory))
        };
        for path in self.files.keys().filter(hidden) {
            files.entry(Arc::clone(path)).or_insert_with(|| {
                Found::Unusable("its directory cannot be read: check its permissions".to_owned())
            });
        }
        let is_gone = |path: &&Arc<Path>| !files.contains_key(*path);
        let gone: Vec<_> = self.files.keys().filter(is_gone).cloned().collect();
        for (path, found) in files {
            let seen = self.files.get(&path);
            if seen.is_some_and(|seen| seen.certain && seen.found == found) {
                continue;
            }
            let memory = self
                .files
                .remove(&path)
                .map(|seen| seen.memory)
                .unwrap_or_default();
            if let Some(seen) = self.read(&path, found, memory) {
                self.files.insert(path, seen);
            } else {
                self.catalog.remove(&path);
            }
        }
        for path in gone {
            self.files.remove(&path);
            self.catalog.remove(&path);
        }
    }

    /// Reads one file; `None` if it has gone.
    fn read(&mut self, path: &Arc<Path>, found: Found, mut memory: Memory) -> Option<Seen> {
        let content = match &found {
            Found::Unusable(why) => Err(why.clone()),
            Found::File(fingerprint) => match self.content(path, fingerprint) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                Err(error) => Err(format!("cannot be read: {error}")),
                Ok(content) => content,
            },
        };
        let certain = is_settled(path);
        match content {
            Ok(text) => {
                let items = manifest::read(path, &text, &mut memory);
                tracing::debug!(file = %path.display(), items = items.len(), "manifest file read");
                self.catalog.update(path, items);
            }
            Err(message) => self.catalog.unreadable(path, message),
        }
        Some(Seen {
            found,
            certain,
            memory,
        })
    }

    /// The text of a file, or why it is refused.
    fn content(
        &self,
        path: &Path,
        fingerprint: &Fingerprint,
    ) -> io::Result<Result<String, String>> {
        let too_large = |size: u64| {
            let limit = self.largest_file;
            let message = format!(
                "has {size} bytes, which is more than the {limit} bytes that are read: split it"
            );
            Ok(Err(message))
        };
        if fingerprint.size > self.largest_file {
            return too_large(fingerprint.size);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(fingerprint.size).unwrap_or(0));
        // It may grow while it is read.
        File::open(path)?
            .take(self.largest_file + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > self.largest_file {
            return too_large(bytes.len() as u64);
        }
        Ok(String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..valid]
                .iter()
                .filter(|b| **b == b'\n')
                .count();
            format!("is not UTF-8 text (first wrong byte on line {line}): convert it")
        }))
    }
}

/// Whether a later change will show in the file's times.
fn is_settled(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let Ok(modified) = modified else { return true };
    match SystemTime::now().duration_since(modified) {
        Ok(age) => age > CLOCK_TICK,
        // A time in the future, set by hand, will not be given by chance again.
        Err(ahead) => ahead.duration() > CLOCK_TICK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(action: &str) -> String {
        format!(
            "apiVersion: clusterlink.net/v1alpha1\nkind: PrivilegedAccessPolicy\n\
             metadata: {{name: {action}}}\n\
             spec: {{action: {action}, from: [{{workloadSelector: {{}}}}], to: [{{workloadSelector: {{}}}}]}}\n"
        )
    }

    #[test]
    fn a_directory_that_cannot_be_read_withdraws_its_allows_and_keeps_the_rest() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let closed = root.path().join("closed");
        fs::create_dir(&closed).expect("a directory");
        for action in ["allow", "deny"] {
            fs::write(closed.join(format!("{action}.yaml")), policy(action)).expect("a file");
        }
        let mut reader = Reader::new(root.path().to_owned(), 1 << 20, None);
        assert_eq!(reader.look().changes.len(), 2);

        // Root can read everything, so the look at the tree is given.
        reader.read_changed(BTreeMap::new(), std::slice::from_ref(&closed));
        let changes = reader.catalog.settle();
        let [(key, Change::Delete(_))] = changes.as_slice() else {
            panic!("{changes:?}")
        };
        assert_eq!(key.to_string(), "PrivilegedAccessPolicy allow");
        let stale: Vec<_> = (reader.catalog.problems().into_iter())
            .filter_map(|problem| Some((problem.object?, problem.stale)))
            .collect();
        assert_eq!(
            stale,
            [("allow".to_owned(), false), ("deny".to_owned(), true)]
        );

        let again = reader.look();
        assert_eq!(again.problems, []);
        let [Change::Apply(object)] = again.changes.as_slice() else {
            panic!("{:?}", again.changes)
        };
        assert!(object.is_allow());
    }
}
