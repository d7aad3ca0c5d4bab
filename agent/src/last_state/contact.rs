//! When the controller was last heard from, kept over restarts: the lease of the steered addresses
//! counts from then.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tracing::warn;

const FILE: &str = "last-contact";

/// A restart may take the last contact for this much earlier than it was.
const PAUSE: Duration = Duration::from_secs(10);

/// The file with the time of the last contact.
#[derive(Debug)]
pub struct LastContact {
    path: PathBuf,
    boot: Arc<str>,
    written: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    boot: Arc<str>,
    since_boot: Duration,
}

impl LastContact {
    /// Reads the file; a time of another boot is none, and so is one that cannot be read.
    pub fn open(state_dir: &Path, boot: Arc<str>) -> Self {
        let path = state_dir.join(FILE);
        let contents = (fs::read(&path).ok())
            .and_then(|bytes| serde_json::from_slice::<Contents>(&bytes).ok())
            .filter(|contents| contents.boot == boot && contents.since_boot <= crate::boot::time());
        Self {
            path,
            boot,
            written: contents.map(|contents| contents.since_boot),
        }
    }

    /// The last contact that was written down, in time since the boot.
    pub fn last(&self) -> Option<Duration> {
        self.written
    }

    /// Writes down a contact, unless one was a moment before.
    pub fn note(&mut self, since_boot: Duration) {
        if (self.written).is_some_and(|written| since_boot < written + PAUSE) {
            return;
        }
        self.written = Some(since_boot);
        let contents = Contents {
            boot: self.boot.clone(),
            since_boot,
        };
        if let Err(error) = crate::file::replace_json(&self.path, &contents) {
            warn!(
                %error,
                path = %self.path.display(),
                "the last contact with the controller is not kept; a restart would not steer until it is heard"
            );
        }
    }
}
