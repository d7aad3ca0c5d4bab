//! Watches the directories that matter, whichever these are after each look at the tree.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{
    Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;

/// A set of watched directories.
#[derive(Debug)]
pub(super) struct Watcher {
    watcher: RecommendedWatcher,
    /// Watched directories with device and inode: another directory may come to have the same path.
    watched: HashMap<PathBuf, (u64, u64)>,
    /// Directories that cannot be watched, so that each is told once.
    refused: BTreeSet<PathBuf>,
}

impl Watcher {
    /// A watcher that watches nothing yet, and tells `changed` when something happens.
    pub(super) fn new(changed: Arc<Notify>) -> notify::Result<Self> {
        let on_event = move |event: notify::Result<Event>| {
            // An error may mean that events were lost, so that it counts as a change.
            if event.map_or(true, |event| matters(&event.kind)) {
                changed.notify_one();
            }
        };
        let watcher = RecommendedWatcher::new(on_event, Config::default())?;
        Ok(Self {
            watcher,
            watched: HashMap::new(),
            refused: BTreeSet::new(),
        })
    }

    /// Watches `directories` and nothing else. True if one was added: what happened in it before
    /// has not been seen.
    pub(super) fn set(&mut self, directories: &BTreeSet<PathBuf>) -> bool {
        let gone: Vec<_> = self
            .watched
            .keys()
            .filter(|path| !directories.contains(*path))
            .cloned()
            .collect();
        for path in gone {
            self.forget(&path);
        }
        let mut added = false;
        for path in directories {
            let Some(identity) = identity(path) else {
                self.forget(path);
                continue;
            };
            if self.watched.get(path) == Some(&identity) {
                continue;
            }
            self.forget(path);
            match self.watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone(), identity);
                    self.refused.remove(path);
                    added = true;
                }
                Err(error) if self.refused.insert(path.clone()) => tracing::warn!(
                    path = %path.display(),
                    %error,
                    "cannot watch the directory: changes in it are found by looking again from time to time"
                ),
                Err(_) => {}
            }
        }
        added
    }

    fn forget(&mut self, path: &Path) {
        if self.watched.remove(path).is_some() {
            // A directory that was removed has taken its watch with it.
            let _ = self.watcher.unwatch(path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Reading is no change; the end of writing is.
fn matters(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
