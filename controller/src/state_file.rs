//! Files of the state directory: JSON, replaced atomically, so that a crash leaves either the old
//! content or the new.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// Why a file of the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It cannot be read.
    #[error("cannot read state file {}: make it readable, or choose another --state-dir", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Its content was not written by this program.
    #[error(
        "state file {} is damaged: restore it from a backup, or move it away to start without what it remembers",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the content stops making sense.
        #[source]
        source: serde_json::Error,
    },
    /// It cannot be written.
    #[error("cannot write state file {}: check free space and permissions of --state-dir", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Reads a file; one that does not exist has the default content.
pub(crate) fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T, StateFileError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| StateFileError::Damaged {
            path: path.to_owned(),
            source,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(source) => Err(StateFileError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Replaces a file by `value` as JSON.
pub(crate) fn write_json<T: Serialize + ?Sized>(
    path: &Path,
    value: &T,
) -> Result<(), StateFileError> {
    let bytes = serde_json::to_vec(value).map_err(|source| StateFileError::Write {
        path: path.to_owned(),
        source: source.into(),
    })?;
    write(path, &bytes)
}

/// Replaces a file: once this returns `Ok`, the content outlives a power failure.
fn write(path: &Path, bytes: &[u8]) -> Result<(), StateFileError> {
    replace(path, bytes).map_err(|source| StateFileError::Write {
        path: path.to_owned(),
        source,
    })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let temporary = path.with_extension("json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    // The rename itself is only durable once the directory is.
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_has_the_default_content() {
        let directory = tempfile::tempdir().unwrap();
        let content: Vec<u32> = read(&directory.path().join("none.json")).unwrap();
        assert!(content.is_empty());
    }

    #[test]
    fn what_was_written_is_read_back_and_no_temporary_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deeper/numbers.json");
        write(&path, b"[1]").unwrap();
        write(&path, b"[1,2]").unwrap();
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), [1, 2]);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_named_with_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("numbers.json");
        fs::write(&path, "[1,").unwrap();
        let error = read::<Vec<u32>>(&path).unwrap_err();
        assert!(
            error.to_string().contains("numbers.json is damaged: "),
            "{error}"
        );
    }

    #[test]
    fn a_failed_write_keeps_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("numbers.json");
        write(&path, b"[1]").unwrap();
        // A directory in the temporary file's place makes the write fail, even for root.
        fs::create_dir(path.with_extension("json.new")).unwrap();
        let error = write(&path, b"[2]").unwrap_err();
        assert!(
            error.to_string().contains("cannot write state file"),
            "{error}"
        );
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), [1]);
    }
}
