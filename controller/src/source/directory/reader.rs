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
    last_good::LastGood,
    manifest::{self, Content, Item, Memory},
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
    /// What an earlier process read; what is read now is kept there.
    last_good: Option<LastGood>,
    swept: bool,
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
            last_good: None,
            swept: false,
            files: BTreeMap::new(),
            catalog: Catalog::default(),
            root_problem: None,
        }
    }

    /// Keeps what is read, and begins with what was kept where that cannot be read any more.
    pub(super) fn remember_in(self, last_good: Option<LastGood>) -> Self {
        Self { last_good, ..self }
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
        let hidden = |path: &Path| {
            unreadable
                .iter()
                .any(|directory| path.starts_with(directory))
        };
        let mut unseen: Vec<Arc<Path>> = self.files.keys().cloned().collect();
        unseen.retain(|path| hidden(path));
        if let Some(last_good) = self.last_good.as_ref().filter(|_| !self.swept) {
            let present = files.keys().map(|path| relative(&self.root, path));
            let kept = last_good.sweep(present, |file| hidden(&self.root.join(file)));
            unseen.extend(kept.into_iter().map(|file| self.root.join(file).into()));
            self.swept = true;
        }
        for path in unseen {
            files.entry(path).or_insert_with(|| {
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
            let memory = self.files.remove(&path).map(|seen| seen.memory);
            if let Some(seen) = self.read(&path, found, memory) {
                self.files.insert(path, seen);
            } else {
                self.forget(&path);
            }
        }
        for path in gone {
            self.files.remove(&path);
            self.forget(&path);
        }
    }

    fn forget(&mut self, path: &Path) {
        self.catalog.remove(path);
        if let Some(last_good) = &self.last_good {
            last_good.forget(relative(&self.root, path));
        }
    }

    /// Reads one file, which has no memory when it is read for the first time; `None` if it has
    /// gone.
    fn read(&mut self, path: &Arc<Path>, found: Found, memory: Option<Memory>) -> Option<Seen> {
        let content = match &found {
            Found::Unusable(why) => Err(why.clone()),
            Found::File(fingerprint) => match self.content(path, fingerprint) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                Err(error) => Err(format!("cannot be read: {error}")),
                Ok(content) => content,
            },
        };
        let certain = is_settled(path);
        let first = memory.is_none();
        let mut memory = memory.unwrap_or_default();
        match content {
            Ok(text) => {
                let items = manifest::read(path, &text, &mut memory);
                tracing::debug!(file = %path.display(), items = items.len(), "manifest file read");
                if first && !items.iter().all(is_good) {
                    self.recall(path);
                }
                self.catalog.update(path, items);
            }
            Err(message) => {
                if first {
                    self.recall(path);
                }
                self.catalog.unreadable(path, message);
            }
        }
        if let Some(last_good) = &self.last_good {
            let file = relative(&self.root, path);
            last_good.write(file, &self.catalog.objects(path));
        }
        Some(Seen {
            found,
            certain,
            memory,
        })
    }

    /// Takes in what an earlier process read of a file.
    fn recall(&mut self, path: &Arc<Path>) {
        if let Some(last_good) = &self.last_good {
            let items = last_good.read(relative(&self.root, path));
            self.catalog.update(path, items);
        }
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

/// A file as its copy is named, wherever the directory is.
fn relative<'a>(root: &Path, path: &'a Path) -> &'a Path {
    path.strip_prefix(root).unwrap_or(path)
}

/// Whether nothing is wrong with it that earlier content could stand for.
fn is_good(item: &Item) -> bool {
    match item.content {
        Content::Object(..) | Content::Foreign(..) => true,
        Content::Invalid(..) | Content::Unknown(..) => false,
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

    fn manifest(kind: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: clusterlink.net/v1alpha1\nkind: {kind}\nmetadata: {{name: web}}\nspec: {spec}\n"
        )
    }

    /// What a process that starts now finds: kind and name of the objects, and which are stale.
    fn started(root: &Path, state: &Path) -> (Vec<String>, Vec<String>) {
        let mut reader = Reader::new(root.to_owned(), 1 << 20, None)
            .remember_in(Some(LastGood::new(state.join("manifests"))));
        let update = reader.look();
        let mut applied: Vec<_> = (reader.files.keys())
            .flat_map(|file| reader.catalog.objects(file))
            .map(|(key, _)| key.to_string())
            .collect();
        applied.sort();
        assert_eq!(update.changes.len(), applied.len(), "each of them is told");
        let stale = update.problems.iter().filter(|problem| problem.stale);
        let mut stale: Vec<_> = stale
            .filter_map(|problem| {
                Some(format!(
                    "{} {}",
                    problem.kind.as_ref()?,
                    problem.object.as_ref()?
                ))
            })
            .collect();
        stale.sort();
        (applied, stale)
    }

    #[test]
    fn a_restart_in_the_middle_of_a_mistake_keeps_all_but_allows() {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = root.path().join("all.yaml");
        let good = [
            manifest("Import", "{port: 80, sources: []}"),
            manifest("Export", "{port: 80}"),
            manifest("Peer", "{gateways: [{host: 10.0.0.1, port: 4443}]}"),
            "---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n".to_owned(),
            format!("---\n{}", policy("allow")),
        ]
        .concat();
        fs::write(&file, &good).unwrap();
        let all = started(root.path(), state.path());
        assert_eq!((all.0.len(), all.1.len()), (5, 0), "{all:?}");
        let kept = [
            "Export default/web",
            "Import default/web",
            "Peer default/web",
            "Service default/web",
        ];
        for (row, text) in [
            ("every field wrong", good.replace("port: ", "port: x")),
            ("no text", "\0\0".to_owned()),
            ("no manifest", "roses: [are red".to_owned()),
            ("still none", "roses: [are blue".to_owned()),
        ] {
            fs::write(&file, text).unwrap();
            let (objects, stale) = started(root.path(), state.path());
            let objects: Vec<_> = objects
                .iter()
                .filter(|name| !name.contains("Policy"))
                .collect();
            assert_eq!(objects, kept, "{row}");
            for name in kept {
                assert!(
                    stale.iter().any(|stale| stale == name),
                    "{row}: {name} of {stale:?}"
                );
            }
        }
        // What is deleted while nobody looks is deleted, also when a mistake comes back later.
        fs::remove_file(&file).unwrap();
        assert_eq!(started(root.path(), state.path()).0, Vec::<String>::new());
        fs::write(&file, "roses: [are red").unwrap();
        assert_eq!(started(root.path(), state.path()).0, Vec::<String>::new());
    }

    #[test]
    fn a_directory_that_cannot_be_read_at_the_start_hides_what_was_in_it() {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let closed = root.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::write(
            closed.join("web.yaml"),
            manifest("Import", "{port: 80, sources: []}"),
        )
        .unwrap();
        assert_eq!(started(root.path(), state.path()).0, ["Import default/web"]);

        // Root can read everything, so the look at the tree is given.
        let mut reader = Reader::new(root.path().to_owned(), 1 << 20, None)
            .remember_in(Some(LastGood::new(state.path().join("manifests"))));
        reader.read_changed(BTreeMap::new(), std::slice::from_ref(&closed));
        let changes = reader.catalog.settle();
        let [(key, Change::Apply(_))] = changes.as_slice() else {
            panic!("{changes:?}")
        };
        assert_eq!(key.to_string(), "Import default/web");
    }
}
