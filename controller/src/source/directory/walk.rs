//! Finds the manifest files below a directory.
//!
//! Names that begin with a dot are left out: editors put their temporary files there, and a mounted
//! ConfigMap the directories that its links lead to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How many directories may lie in each other.
const DEPTH: usize = 32;

/// What lies below a directory.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Manifest files by path.
    pub(super) files: BTreeMap<Arc<Path>, Found>,
    /// The directories in which a change can change the manifests.
    pub(super) directories: BTreeSet<PathBuf>,
    /// The directories that could not be looked through: what was in them may be there still.
    pub(super) unreadable: Vec<PathBuf>,
}

/// What a manifest's path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A regular file.
    File(Fingerprint),
    /// Nothing that can be read, and why.
    Unusable(String),
}

/// What changes when a file's content changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) size: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// The fingerprint of the file that `metadata` is of.
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            size: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Looks through `root`, which must be a directory that can be read.
pub(super) fn walk(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::default();
    note_links(root, &mut tree.directories);
    let mut inside = Vec::new();
    enter(root, &mut inside, &mut tree)?;
    Ok(tree)
}

fn enter(directory: &Path, inside: &mut Vec<(u64, u64)>, tree: &mut Tree) -> io::Result<()> {
    let metadata = fs::metadata(directory)?;
    let identity = (metadata.dev(), metadata.ino());
    // A link may lead back to a directory that is being looked through.
    if inside.contains(&identity) || inside.len() >= DEPTH {
        return Ok(());
    }
    let entries = fs::read_dir(directory)?;
    inside.push(identity);
    tree.directories.insert(directory.to_owned());
    for entry in entries {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        let is_link = path.is_symlink();
        if is_link {
            note_target(&path, &mut tree.directories);
        }
        let named_manifest = is_manifest(&path);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                let depth = inside.len();
                let entered = enter(&path, inside, tree);
                inside.truncate(depth);
                if let Err(error) = entered
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tree.unreadable.push(path.clone());
                    let message =
                        format!("the directory cannot be read ({error}): check its permissions");
                    tree.files.insert(path.into(), Found::Unusable(message));
                }
            }
            Ok(metadata) if named_manifest && metadata.is_file() => {
                tree.files
                    .insert(path.into(), Found::File(Fingerprint::of(&metadata)));
            }
            Ok(_) if named_manifest => {
                let message =
                    "is no regular file: only files and links to files are read".to_owned();
                tree.files.insert(path.into(), Found::Unusable(message));
            }
            // What has gone in the meantime was a temporary file.
            Err(error)
                if named_manifest && (is_link || error.kind() != io::ErrorKind::NotFound) =>
            {
                let message = if is_link {
                    format!("the link leads nowhere ({error}): correct or remove it")
                } else {
                    format!("cannot be read ({error})")
                };
                tree.files.insert(path.into(), Found::Unusable(message));
            }
            Ok(_) | Err(_) => {}
        }
    }
    inside.pop();
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Notes where the file or directory lies that a link leads to: what happens there is not seen in
/// the directory of the link.
fn note_target(link: &Path, directories: &mut BTreeSet<PathBuf>) {
    if let Ok(target) = fs::canonicalize(link)
        && let Some(parent) = target.parent()
    {
        directories.insert(parent.to_owned());
    }
}

/// Notes the directories of all links on the way to `root`, and of `root` itself, any of which may be
/// swapped for another.
fn note_links(root: &Path, directories: &mut BTreeSet<PathBuf>) {
    const MOST_LINKS: usize = 16;
    let mut waiting = vec![std::path::absolute(root).unwrap_or_else(|_| root.to_owned())];
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        for (steps, part) in path.ancestors().enumerate() {
            let Some(parent) = part.parent() else { break };
            let target = fs::read_link(part).ok();
            if steps == 0 || target.is_some() {
                directories.insert(parent.to_owned());
            }
            if let Some(target) = target
                && seen < MOST_LINKS
            {
                seen += 1;
                waiting.push(parent.join(target));
            }
        }
    }
}
