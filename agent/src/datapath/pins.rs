//! Where maps and links are pinned, and whether what is found there can be used again.
//!
//! `<bpf_dir>/v<layout>/maps` and `…/links`. Pins keep programs attached and maps filled while no
//! process has them open.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::MapData;
use clusterlink_ebpf_common::{LAYOUT, maps};

use super::{DatapathError, Removed};

/// The pins of the current layout.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    bpf_dir: PathBuf,
}

impl Pins {
    /// The pins in a peer's directory.
    pub(super) fn new(bpf_dir: &Path) -> Self {
        Self {
            bpf_dir: bpf_dir.to_owned(),
        }
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.layout().join("maps").join(name)
    }

    /// Where a link is pinned.
    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.layout().join("links").join(name)
    }

    /// Makes the directories. What is there but cannot be used again is moved aside, still
    /// attached, to be removed by [`remove_outdated`](Self::remove_outdated) later. Returns
    /// whether maps are used again.
    pub(super) fn prepare(&self) -> Result<bool, DatapathError> {
        let layout = self.layout();
        let reuse = match fs::symlink_metadata(&layout) {
            Ok(_) => match self.mismatch() {
                None => true,
                Some(why) => {
                    // Names on a bpffs must not contain a dot.
                    let aside = self
                        .bpf_dir
                        .join(format!("outdated-{}", std::process::id()));
                    tracing::warn!(
                        pins = %layout.display(),
                        "the pinned maps cannot be used again ({why}); they are replaced"
                    );
                    remove_tree(&aside, &mut Removed::default())?;
                    fs::rename(&layout, &aside)
                        .map_err(|source| DatapathError::path("move aside", &layout, source))?;
                    false
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(source) => return Err(DatapathError::path("look at", &layout, source)),
        };
        for directory in [layout.join("maps"), layout.join("links")] {
            fs::create_dir_all(&directory)
                .map_err(|source| DatapathError::path("create", &directory, source))?;
        }
        Ok(reuse)
    }

    /// Removes what other layouts left; their programs are detached by that.
    pub(super) fn remove_outdated(&self) -> Result<(), DatapathError> {
        let current = self.layout();
        for path in entries(&self.bpf_dir)? {
            if path != current {
                tracing::info!(pins = %path.display(), "removing the pins of another layout");
                remove_tree(&path, &mut Removed::default())?;
            }
        }
        Ok(())
    }

    /// Removes all pins of all layouts.
    pub(super) fn remove_all(&self, removed: &mut Removed) -> Result<(), DatapathError> {
        for path in entries(&self.bpf_dir)? {
            remove_tree(&path, removed)?;
        }
        Ok(())
    }

    fn layout(&self) -> PathBuf {
        self.bpf_dir.join(format!("v{LAYOUT}"))
    }

    /// Why the pinned maps cannot be used again: the kernel would accept a map of another shape
    /// without a word.
    fn mismatch(&self) -> Option<String> {
        maps::ALL.iter().find_map(|map| {
            let info = match MapData::from_pin(self.map(map.name)).and_then(|data| data.info()) {
                Ok(info) => info,
                Err(error) => return Some(format!("{}: {error}", map.name)),
            };
            let found = (
                info.map_type().map(|kind| kind as u32).unwrap_or_default(),
                info.key_size(),
                info.value_size(),
                info.max_entries(),
            );
            let wanted = (
                map.kind.number(),
                map.key_size,
                map.value_size,
                map.max_entries,
            );
            (found != wanted).then(|| {
                format!(
                    "{}: (type, key, value, entries) is {found:?} instead of {wanted:?}",
                    map.name
                )
            })
        })
    }
}

/// Removes a directory and everything in it: links first, so that no program runs without its
/// maps' pins.
fn remove_tree(path: &Path, removed: &mut Removed) -> Result<(), DatapathError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(DatapathError::path("look at", path, source)),
    };
    if !metadata.is_dir() {
        fs::remove_file(path).map_err(|source| DatapathError::path("remove", path, source))?;
        let in_links = path
            .parent()
            .is_some_and(|parent| parent.ends_with("links"));
        let list = if in_links {
            &mut removed.links
        } else {
            &mut removed.maps
        };
        list.push(path.to_owned());
        return Ok(());
    }
    let mut entries = entries(path)?;
    entries.sort_by_key(|entry| !entry.ends_with("links"));
    for entry in entries {
        remove_tree(&entry, removed)?;
    }
    fs::remove_dir(path).map_err(|source| DatapathError::path("remove", path, source))?;
    removed.directories.push(path.to_owned());
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    let failed = |source| DatapathError::path("list", directory, source);
    fs::read_dir(directory)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}
