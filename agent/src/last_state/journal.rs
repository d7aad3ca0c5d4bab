//! The file of the last state: one record a line, `<crc32> <json>`. The first says whose it is, the
//! second is a snapshot, the others are what changed since. A line that a crash cut short never
//! happened; any other that cannot be read condemns the file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use clusterlink_model::{PeerName, Snapshot, Update};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const FILE: &str = "last-state";

/// Changes whenever an older program would misread what a newer one writes, or the other way round.
const FORMAT: u32 = 1;

/// The snapshot is written anew when the changes are longer than it, and than this: so each byte of
/// change costs another one at most, however large the snapshot is.
const WORTHWHILE: u64 = 1 << 20;

/// Who wrote a state, and when it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The boot of the node, see [`crate::boot::id`].
    pub boot: Arc<str>,
    /// The peer that the node belongs to.
    pub peer: PeerName,
    /// The node.
    pub node: Arc<str>,
}

/// What a state directory holds.
pub(super) enum Found {
    /// No state.
    Nothing,
    /// A state that does not count.
    Outdated(&'static str),
    /// Something that cannot be read any more.
    Damaged { aside: PathBuf, why: String },
    /// A state to serve from.
    Snapshot(Snapshot),
}

/// The file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}; is --state-dir writable?")]
pub(super) struct JournalError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The state as it is on disk.
pub(super) struct Journal {
    path: PathBuf,
    origin: Origin,
    /// None before the first complete update, if nothing is stored: there is nothing to add to.
    snapshot: Option<Snapshot>,
    /// None when a write failed: the next one begins anew.
    file: Option<File>,
    /// Bytes of the snapshot and of the changes after it.
    size: (u64, u64),
}

#[derive(Serialize, Deserialize)]
struct Format {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    #[serde(flatten)]
    origin: Origin,
}

impl Journal {
    /// Reads the file; the first write begins it anew.
    pub(super) fn open(state_dir: &Path, origin: Origin) -> (Self, Found) {
        let path = state_dir.join(FILE);
        let found = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
            Err(error) => move_aside(&path, error.to_string()),
            Ok(bytes) => match read(&bytes, &origin) {
                Ok(found) => found,
                Err(why) => move_aside(&path, why),
            },
        };
        let journal = Self {
            path,
            origin,
            snapshot: match &found {
                Found::Snapshot(snapshot) => Some(snapshot.clone()),
                Found::Nothing | Found::Outdated(_) | Found::Damaged { .. } => None,
            },
            file: None,
            size: (0, 0),
        };
        (journal, found)
    }

    /// Adds an update; those before the first complete one are not worth keeping. If that fails, there
    /// is no file any more: what it says has been withdrawn since, and nobody may serve from it.
    pub(super) fn write(&mut self, update: Update) -> Result<(), JournalError> {
        let written = self.try_write(update);
        if written.is_err() {
            match fs::remove_file(&self.path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(self.error(source)),
            }
        }
        written
    }

    fn try_write(&mut self, update: Update) -> Result<(), JournalError> {
        if update.complete {
            self.file = None;
            self.snapshot = Some(Snapshot::default());
        }
        let Some(snapshot) = &mut self.snapshot else {
            return Ok(());
        };
        let Some(mut file) = self.file.take() else {
            snapshot.apply(update);
            return self.replace();
        };
        let line = line(&update);
        snapshot.apply(update);
        let (base, changes) = &mut self.size;
        *changes += line.len() as u64;
        if *changes > (*base).max(WORTHWHILE) {
            return self.replace();
        }
        match file.write_all(&line) {
            Ok(()) => {
                self.file = Some(file);
                Ok(())
            }
            Err(source) => Err(self.error(source)),
        }
    }

    fn replace(&mut self) -> Result<(), JournalError> {
        let file = self.try_replace().map_err(|source| self.error(source))?;
        self.file = Some(file);
        Ok(())
    }

    fn try_replace(&mut self) -> io::Result<File> {
        let new = self.path.with_extension("new");
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        let mut out = BufWriter::new(file);
        let snapshot = self.snapshot.as_ref().map(Snapshot::to_update);
        let snapshot = line(&snapshot.unwrap_or_default());
        out.write_all(&line(&Header {
            format: FORMAT,
            origin: self.origin.clone(),
        }))?;
        out.write_all(&snapshot)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(&new, &self.path)?;
        self.size = (snapshot.len() as u64, 0);
        Ok(file)
    }

    fn error(&self, source: io::Error) -> JournalError {
        JournalError {
            path: self.path.clone(),
            source,
        }
    }
}

fn line(record: &impl Serialize) -> Vec<u8> {
    // Names and labels are strings, so nothing in a record can fail to be written.
    let json = serde_json::to_vec(record).unwrap_or_default();
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

fn read(bytes: &[u8], origin: &Origin) -> Result<Found, String> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n');
    let mut lines = (bytes[..whole.map_or(0, |end| end + 1)].split_inclusive(|b| *b == b'\n'))
        .enumerate()
        .map(|(number, line)| (number + 1, line));
    let header = lines.next().ok_or("it has no first line")?;
    let Format { format } = parse(header)?;
    if format != FORMAT {
        return Ok(Found::Outdated("it has the format of another version"));
    }
    let Header { origin: wrote, .. } = parse(header)?;
    if wrote.boot != origin.boot {
        return Ok(Found::Outdated("it is from before the node was started"));
    }
    if wrote != *origin {
        return Ok(Found::Outdated("another peer or node wrote it"));
    }
    let first: Update = parse(lines.next().ok_or("it has no snapshot")?)?;
    if !first.complete {
        return Err("its first update is no snapshot".to_owned());
    }
    let mut snapshot = Snapshot::default();
    snapshot.apply(first);
    for line in lines {
        snapshot.apply(parse(line)?);
    }
    Ok(Found::Snapshot(snapshot))
}

fn parse<T: DeserializeOwned>((number, line): (usize, &[u8])) -> Result<T, String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (sum, json) = (line.split_at_checked(9)).ok_or(format!("line {number} is too short"))?;
    if sum != format!("{:08x} ", crc32fast::hash(json)).as_bytes() {
        return Err(format!("line {number} is not what was written"));
    }
    serde_json::from_slice(json).map_err(|error| format!("line {number}: {error}"))
}

fn move_aside(path: &Path, why: String) -> Found {
    let aside = path.with_extension("damaged");
    if let Err(error) = fs::rename(path, &aside) {
        tracing::warn!(%error, path = %path.display(), "cannot be moved aside");
    }
    Found::Damaged { aside, why }
}
