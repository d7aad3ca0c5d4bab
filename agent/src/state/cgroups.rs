//! Which cgroup directory is which workload, found by looking at the directories again and again:
//! a unit's directory comes and goes with the unit, under a new number each time.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Component, Path, PathBuf},
};

use clusterlink_model::{ObjectName, Workload};

use crate::datapath::cgroup_id;

/// The directories of the workloads, and those that lost their workload.
#[derive(Debug)]
pub(super) struct Cgroups {
    root: PathBuf,
    declared: BTreeMap<ObjectName, Declared>,
    tombstones: HashMap<u64, PathBuf>,
}

#[derive(Debug)]
struct Declared {
    path: PathBuf,
    id: Option<u64>,
}

impl Cgroups {
    /// `root` is where cgroup v2 is mounted.
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            declared: BTreeMap::new(),
            tombstones: HashMap::new(),
        }
    }

    /// Entries that an earlier process left in the kernel: those whose directory still exists
    /// stay without an identity until their workload claims them or the directory goes.
    pub(super) fn take_over(&mut self, mut left: Vec<u64>) {
        if left.is_empty() {
            return;
        }
        left.sort_unstable();
        walk(&self.root, &mut |path, id| {
            if left.binary_search(&id).is_ok() {
                self.tombstones.insert(id, path.to_owned());
            }
            false
        });
    }

    /// A workload is new, changed or (`None`) gone. Returns whether anything is different.
    pub(super) fn declare(&mut self, name: &ObjectName, workload: Option<&Workload>) -> bool {
        let path = workload
            .and_then(|w| w.cgroup.as_deref())
            .and_then(|cgroup| {
                let relative = Path::new(cgroup.trim_start_matches('/'));
                let plain = relative
                    .components()
                    .all(|part| matches!(part, Component::Normal(_)));
                (plain && relative.components().next().is_some()).then(|| self.root.join(relative))
            });
        let old = self.declared.get(name).map(|declared| &declared.path);
        if old == path.as_ref() {
            return false;
        }
        if let Some(Declared { path, id: Some(id) }) = self.declared.remove(name) {
            self.bury(id, path);
        }
        if let Some(path) = path {
            self.declared
                .insert(name.clone(), Declared { path, id: None });
        }
        true
    }

    /// Looks at every directory again. Returns whether any number changed.
    pub(super) fn scan(&mut self) -> bool {
        let mut changed = false;
        let mut lost = Vec::new();
        for declared in self.declared.values_mut() {
            let id = cgroup_id(&declared.path).ok();
            if id != declared.id {
                // A renamed directory keeps its number: it may still be there under another name.
                lost.extend(declared.id.map(|id| (id, declared.path.clone())));
                declared.id = id;
                changed = true;
            }
        }
        for (id, path) in lost {
            self.bury(id, path);
        }
        let before = self.tombstones.len();
        let claimed: Vec<u64> = self.declared.values().filter_map(|d| d.id).collect();
        self.tombstones
            .retain(|id, path| !claimed.contains(id) && cgroup_id(path).ok() == Some(*id));
        changed || before != self.tombstones.len()
    }

    /// The number of a workload's cgroup, where its directory exists.
    pub(super) fn id(&self, name: &ObjectName) -> Option<u64> {
        self.declared.get(name)?.id
    }

    /// Declared directories of all workloads, found or not.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&ObjectName, &Path)> {
        self.declared
            .iter()
            .map(|(name, declared)| (name, &*declared.path))
    }

    /// Workloads whose directory does not exist.
    pub(super) fn missing(&self) -> impl Iterator<Item = (&ObjectName, &Path)> {
        (self.declared.iter())
            .filter(|(_, declared)| declared.id.is_none())
            .map(|(name, declared)| (name, &*declared.path))
    }

    /// Cgroups that exist and whose workload is gone.
    pub(super) fn tombstones(&self) -> impl Iterator<Item = u64> {
        self.tombstones.keys().copied()
    }

    fn bury(&mut self, id: u64, path: PathBuf) {
        if cgroup_id(&path).ok() == Some(id) {
            self.tombstones.insert(id, path);
        }
    }
}

/// The innermost cgroup that is known of those around `wanted`, if that is at or below `directory`.
pub(super) fn nearest(
    directory: &Path,
    wanted: u64,
    is_known: &dyn Fn(u64) -> bool,
    around: Option<u64>,
) -> Option<u64> {
    let id = cgroup_id(directory).ok()?;
    let around = if is_known(id) { Some(id) } else { around };
    if id == wanted {
        return around;
    }
    let entries = std::fs::read_dir(directory).ok()?;
    (entries.flatten())
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|entry| nearest(&entry.path(), wanted, is_known, around))
}

/// Visits every cgroup at and below `directory` until `visit` returns true.
pub(super) fn walk(directory: &Path, visit: &mut dyn FnMut(&Path, u64) -> bool) -> bool {
    let Ok(id) = cgroup_id(directory) else {
        return false;
    };
    if visit(directory, id) {
        return true;
    }
    let Ok(entries) = std::fs::read_dir(directory) else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry.file_type().is_ok_and(|kind| kind.is_dir()) && walk(&entry.path(), visit)
    })
}
