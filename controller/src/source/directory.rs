//! Manifests from a directory: the API server of a peer that has none.
//!
//! ```text
//! inotify ─▶ settle ─▶ walk ─▶ changed files ─▶ documents ─▶ schema ─▶ catalog ─▶ events, problems
//! ```
//! Every `*.yaml`, `*.yml` and `*.json` below the directory is read. A change is taken in once the
//! directory has been quiet for a moment, and in any case soon; a slow look at everything finds what
//! a watch cannot tell, such as changes on a network file system.

mod catalog;
mod documents;
mod kinds;
mod last_good;
mod manifest;
mod node;
mod outlet;
mod reader;
mod schema;
mod walk;
mod watch;
mod yaml;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch as channel},
    time::{Instant, sleep, sleep_until, timeout},
};

use self::{
    last_good::LastGood,
    outlet::Outlet,
    reader::{Reader, Update},
    watch::Watcher,
};
use super::{Problem, Problems, Source, Streams};

/// How long nothing must happen before a change is taken in.
const QUIET: Duration = Duration::from_millis(50);
/// After how long a change is taken in although more keep coming.
const LATEST: Duration = Duration::from_millis(300);
/// How often everything is looked at although nothing was heard.
const RESCAN: Duration = Duration::from_secs(10);

/// The largest file that is read unless told otherwise: 16 MiB.
pub const LARGEST_FILE: u64 = 16 << 20;

/// A directory of manifests.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    largest_file: u64,
    last_good: Option<PathBuf>,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// There is no such directory.
    #[error(
        "manifest directory {path:?} does not exist: create it, or name another with --manifests"
    )]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// There is something else of that name.
    #[error("{path:?} is not a directory: name the directory that holds the manifests")]
    NotDirectory {
        /// What was named.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("manifest directory {path:?} cannot be read: check its permissions")]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
}

impl Directory {
    /// Makes sure that `root` can be read.
    ///
    /// # Errors
    /// If it is missing, no directory, or not readable.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, DirectoryError> {
        let path = root.into();
        match std::fs::read_dir(&path) {
            Ok(_) => Ok(Self {
                root: path,
                largest_file: LARGEST_FILE,
                last_good: None,
            }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound => DirectoryError::Missing { path },
                io::ErrorKind::NotADirectory => DirectoryError::NotDirectory { path },
                _ => DirectoryError::Unreadable { path, error },
            }),
        }
    }

    /// Refuses files of more than `bytes` bytes.
    #[must_use]
    pub fn largest_file(self, bytes: u64) -> Self {
        Self {
            largest_file: bytes,
            ..self
        }
    }

    /// Keeps copies of what is read in `directory`: what cannot be read after a restart stays as it
    /// was read last, except for policies.
    #[must_use]
    pub fn remember_in(self, directory: PathBuf) -> Self {
        Self {
            last_good: Some(directory),
            ..self
        }
    }
}

impl Source for Directory {
    fn start(self: Box<Self>) -> (Streams, Problems) {
        let changed = Arc::new(Notify::new());
        let watcher = Watcher::new(Arc::clone(&changed)).inspect_err(|error| {
            tracing::warn!(
                %error,
                rescan = ?RESCAN,
                "cannot watch the manifest directory: changes are found by looking again"
            );
        });
        let reader = Reader::new(self.root, self.largest_file, watcher.ok())
            .remember_in(self.last_good.map(LastGood::new));
        let (outlet, streams) = outlet::channels();
        let (tell, problems) = channel::channel(Arc::default());
        tokio::spawn(run(reader, changed, outlet, tell));
        (streams, problems)
    }
}

async fn run(
    mut reader: Reader,
    changed: Arc<Notify>,
    outlet: Outlet,
    tell: channel::Sender<Arc<Vec<Problem>>>,
) {
    let mut first = true;
    loop {
        // Reading files and parsing would hold up other tasks of the runtime.
        let looked = tokio::task::spawn_blocking(move || {
            let update = reader.look();
            (reader, update)
        });
        let Ok((returned, update)) = looked.await else {
            tracing::error!(
                "reading the manifest directory has failed: changes are not seen any more"
            );
            return;
        };
        reader = returned;
        let Update {
            changes,
            problems,
            uncertain,
        } = update;
        publish(&tell, problems);
        let sent = if first {
            outlet.init(changes).await
        } else {
            outlet.send(changes).await
        };
        if sent.is_err() {
            return;
        }
        first = false;
        let rescan = if uncertain { QUIET } else { RESCAN };
        tokio::select! {
            () = outlet.closed() => return,
            () = sleep(rescan) => {}
            () = changed.notified() => settle(&changed).await,
        }
    }
}

/// Waits until the directory is quiet.
async fn settle(changed: &Notify) {
    let latest = Instant::now() + LATEST;
    loop {
        tokio::select! {
            () = sleep_until(latest) => return,
            quiet = timeout(QUIET, changed.notified()) => {
                if quiet.is_err() {
                    return;
                }
            }
        }
    }
}

/// Logs problems that are new, and tells all of them.
fn publish(tell: &channel::Sender<Arc<Vec<Problem>>>, problems: Vec<Problem>) {
    const LOGGED: usize = 20;
    let before = Arc::clone(&tell.borrow());
    if *before == problems {
        return;
    }
    let new: Vec<_> = problems
        .iter()
        .filter(|p| before.binary_search(p).is_err())
        .collect();
    for problem in new.iter().take(LOGGED) {
        tracing::warn!("{problem}");
    }
    if new.len() > LOGGED {
        tracing::warn!(
            more = new.len() - LOGGED,
            "there are more problems with the manifests"
        );
    }
    tell.send_replace(Arc::new(problems));
}

#[cfg(test)]
mod tests;
