//! The ledger: a file that says what a scene made, so that others can remove it.
//!
//! Its owner holds a lock on it for as long as it lives; the kernel lets go of the lock with the
//! owner's death, however it comes. Whoever gets the lock afterwards may clear what the ledger
//! names: the watcher that was started beside the scene, or the next scene.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use super::{DIRECTORY, remove};
use crate::tools;

const FILE_NAME: &str = "ledger";

/// One thing that outlives the process that made it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    /// A cgroup subtree with the processes in it.
    Cgroup(PathBuf),
    /// A named network namespace.
    Namespace(String),
    /// A directory of BPF pins.
    Pins(PathBuf),
}

/// The open, locked ledger of a living scene.
#[derive(Debug)]
pub(super) struct Ledger {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    watcher: Option<Child>,
    seen: BTreeSet<Entry>,
}

impl Ledger {
    /// Makes the scene's directory and its ledger, takes the lock and starts the watcher.
    pub(super) fn create(directory: &Path, title: &str) -> Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(FILE_NAME);
        // Locked under another name first: nobody may find a ledger that looks ownerless.
        let unlocked = directory.join("ledger.new");
        let mut file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .append(true)
            .open(&unlocked)
            .with_context(|| format!("cannot make {}", unlocked.display()))?;
        file.lock()
            .with_context(|| format!("cannot lock {}", unlocked.display()))?;
        writeln!(file, "scene {title} of process {}", std::process::id())
            .with_context(|| format!("cannot write {}", unlocked.display()))?;
        fs::rename(&unlocked, &path).with_context(|| format!("cannot name {}", path.display()))?;
        let watcher = Command::new(tools::clt()?)
            .args(["watch-owner", tools::text(&path)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the watcher of the ledger")?;
        let state = State {
            file,
            watcher: Some(watcher),
            seen: BTreeSet::new(),
        };
        Ok(Self {
            directory: directory.to_owned(),
            state: Mutex::new(state),
        })
    }

    /// Writes down what is about to be made.
    pub(super) fn record(&self, entry: &Entry) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.seen.insert(entry.clone()) {
            let line = format!("{}\n", entry.line());
            state
                .file
                .write_all(line.as_bytes())
                .context("cannot write to the ledger")?;
        }
        Ok(())
    }

    /// Removes all that was recorded, then the ledger, and sees the watcher off.
    pub(super) fn clear(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = clear(&self.directory, &mut state.file);
        // Not knowing of a living owner any more, the watcher finishes whatever is left.
        state.file.unlock().context("cannot unlock the ledger")?;
        if let Some(mut watcher) = state.watcher.take() {
            watcher
                .wait()
                .context("cannot wait for the watcher of the ledger")?;
        }
        result
    }
}

impl Entry {
    fn line(&self) -> String {
        match self {
            Self::Cgroup(path) => format!("cgroup {}", path.display()),
            Self::Namespace(name) => format!("namespace {name}"),
            Self::Pins(path) => format!("pins {}", path.display()),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, value) = line.split_once(' ')?;
        match kind {
            "cgroup" => Some(Self::Cgroup(value.into())),
            "namespace" => Some(Self::Namespace(value.to_owned())),
            "pins" => Some(Self::Pins(value.into())),
            _ => None,
        }
    }
}

/// Clears the ledgers whose owners are dead, and says how many there were.
pub fn reap() -> Result<usize> {
    let mut cleared = 0;
    for scene in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let path = scene.path().join(FILE_NAME);
        let Ok(mut file) = File::open(&path) else {
            continue;
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        if still_linked(&file) {
            clear(&scene.path(), &mut file)?;
            cleared += 1;
        }
    }
    Ok(cleared)
}

/// Waits for the death of a ledger's owner, then clears the ledger if the owner has not.
pub fn watch_owner(path: &Path) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    match path.parent() {
        Some(directory) if still_linked(&file) => clear(directory, &mut file),
        _ => Ok(()),
    }
}

fn still_linked(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

/// Removes what a ledger names, then its directory; to be called with the lock held.
fn clear(directory: &Path, file: &mut File) -> Result<()> {
    let mut text = String::new();
    file.rewind().context("cannot rewind the ledger")?;
    file.read_to_string(&mut text)
        .context("cannot read the ledger")?;
    let entries: BTreeSet<Entry> = text.lines().filter_map(Entry::parse).collect();
    // The order of the variants is the order of removal: processes first, since they hold the rest.
    for entry in &entries {
        match entry {
            Entry::Cgroup(path) => crate::cgroup::remove(path)?,
            Entry::Namespace(name) => crate::network::remove(name)?,
            Entry::Pins(path) => remove::pins(path)?,
        }
    }
    remove::directory(directory)?;
    remove::if_empty(Path::new(DIRECTORY))
}
