//! Removal of files and pins that may be gone already.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

/// Removes a directory of BPF pins and its parent, if that is empty then.
pub(super) fn pins(path: &Path) -> Result<()> {
    directory(path)?;
    match path.parent() {
        Some(parent) => if_empty(parent),
        None => Ok(()),
    }
}

/// Removes a directory and all in it.
pub(super) fn directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// Removes a directory that nobody else uses any more.
pub(super) fn if_empty(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}
