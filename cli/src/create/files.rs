//! Writing a set of new files: all or none, never over an existing one.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// The mode of certificates, which are public.
pub(super) const PUBLIC: u32 = 0o644;
/// The mode of private keys.
pub(super) const PRIVATE: u32 = 0o600;

/// A file to be written.
pub(super) struct NewFile<'a> {
    pub(super) name: &'a str,
    pub(super) content: &'a str,
    pub(super) mode: u32,
}

/// Files that were written; removed again when dropped, unless they are kept.
#[must_use]
pub(super) struct Written {
    paths: Vec<PathBuf>,
}

impl Written {
    /// Says that the whole set is good.
    pub(super) fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for path in &self.paths {
            // We made the file in this run; if it cannot be removed the next run names it.
            let _ = fs::remove_file(path);
        }
    }
}

/// Refuses if any of the files exists, naming it.
pub(super) fn refuse_existing(dir: &Path, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        let path = dir.join(name);
        match fs::symlink_metadata(&path) {
            Ok(_) => bail!(exists(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at {}", path.display()));
            }
        }
    }
    Ok(())
}

/// Writes the files into `dir`, which is made if it is missing. Each appears complete, with its
/// mode, or not at all.
pub(super) fn write_all(dir: &Path, files: &[NewFile<'_>]) -> anyhow::Result<Written> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let mut written = Written { paths: Vec::new() };
    for file in files {
        let path = dir.join(file.name);
        write(dir, &path, file)?;
        written.paths.push(path);
    }
    Ok(written)
}

fn write(dir: &Path, path: &Path, file: &NewFile<'_>) -> anyhow::Result<()> {
    let temporary = dir.join(format!(".{}.{}.tmp", file.name, std::process::id()));
    let result = write_temporary(&temporary, file)
        .with_context(|| format!("cannot write {}", temporary.display()))
        // A link never replaces what is there, unlike a rename.
        .and_then(|()| match fs::hard_link(&temporary, path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(exists(path)),
            Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
        });
    // The name was only a step on the way; a failure to remove it harms nothing.
    let _ = fs::remove_file(&temporary);
    result
}

fn write_temporary(path: &Path, file: &NewFile<'_>) -> io::Result<()> {
    let mut open = OpenOptions::new();
    let mut handle = open
        .write(true)
        .create_new(true)
        .mode(file.mode)
        .open(path)?;
    handle.write_all(file.content.as_bytes())?;
    handle.sync_all()
}

fn exists(path: &Path) -> String {
    format!(
        "{} exists already: remove it first, or choose another --path or --name",
        path.display()
    )
}
