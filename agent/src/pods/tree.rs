//! The pods' directories of this node, found by the kernel's notifications: a new pod's directory is
//! known within a millisecond, long before anything runs in it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::DirEntry,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tracing::{info, warn};

use super::{Place, PodDirectory};
use crate::datapath::cgroup_id;

/// How deep below the top the root of all pods may be. Nested nodes have theirs at 4 or 5, rootless
/// ones some levels further down.
const DEPTH: usize = 10;

/// How often the root of all pods is looked for while there is none. A search costs up to 7 µs for
/// each cgroup of the host, whose pods' own cgroups do not count.
const SEARCH: Duration = Duration::from_secs(1);

/// The same where there is one: a second kubelet is rare.
const SEARCH_AGAIN: Duration = Duration::from_secs(10);

/// What is of interest in a directory that has pods in it.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The directories of pods below one directory, and those above them.
#[derive(Debug)]
pub(crate) struct PodTree {
    top: PathBuf,
    /// None where the kernel has no more of them to give: directories are listed again and again.
    notifications: Option<OwnedFd>,
    watches: HashMap<i32, PathBuf>,
    above: BTreeMap<PathBuf, Above>,
    pods: BTreeMap<PathBuf, Pod>,
    by_key: HashMap<String, BTreeSet<PathBuf>>,
    next_search: Option<Instant>,
}

#[derive(Debug)]
struct Above {
    id: u64,
    place: Place,
}

#[derive(Debug)]
struct Pod {
    id: u64,
    name: PodDirectory,
}

impl PodTree {
    /// Looks for pods below `top` for the first time.
    pub(crate) fn open(top: &Path, now: Instant) -> Self {
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let notifications = inotify::init(flags)
            .inspect_err(|error| {
                warn!(
                    %error,
                    "no notifications of new pods' cgroups (is fs.inotify.max_user_instances reached?); they are listed four times a second instead"
                );
            })
            .ok();
        let mut tree = Self {
            top: top.to_owned(),
            notifications,
            watches: HashMap::new(),
            above: BTreeMap::new(),
            pods: BTreeMap::new(),
            by_key: HashMap::new(),
            next_search: None,
        };
        tree.poll(now);
        tree
    }

    /// Readable when [`Self::poll`] has something to do.
    pub(crate) fn notifications(&self) -> Option<BorrowedFd<'_>> {
        self.notifications.as_ref().map(|fd| fd.as_fd())
    }

    /// Takes notice of what came and went. Returns whether that is anything.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        let before = self.ids();
        let mut search = self.next_search.is_none_or(|at| at <= now);
        match self.read_notifications() {
            Some(directories) => {
                for directory in directories {
                    self.look_again(&directory);
                }
            }
            None => search = true,
        }
        if self.notifications.is_none() {
            for directory in self.above.keys().cloned().collect::<Vec<_>>() {
                self.look_again(&directory);
            }
        }
        if search {
            self.search();
            let pause = if self.above.is_empty() {
                SEARCH
            } else {
                SEARCH_AGAIN
            };
            self.next_search = Some(now + pause);
        }
        before != self.ids()
    }

    /// The cgroups of a pod that has any of these UIDs.
    pub(crate) fn of(&self, uids: &[Arc<str>]) -> BTreeSet<u64> {
        let paths = |uid: &str| self.by_key.get(&super::escape(uid)).into_iter().flatten();
        (uids.iter())
            .flat_map(|uid| paths(uid).map(move |path| (uid, path)))
            .filter_map(|(uid, path)| Some((uid, self.pods.get(path)?)))
            .filter(|(uid, pod)| pod.name.is_of(uid))
            .map(|(_, pod)| pod.id)
            .collect()
    }

    /// The cgroups of all pods.
    pub(crate) fn pods(&self) -> impl Iterator<Item = u64> {
        self.pods.values().map(|pod| pod.id)
    }

    /// The cgroups above pods: whatever is in there and in no pod that we know is in one that we do
    /// not know yet.
    pub(crate) fn above(&self) -> impl Iterator<Item = u64> {
        self.above.values().map(|above| above.id)
    }

    /// The topmost directories above pods: all pods are below them.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Path> {
        let is_top = |path: &&Path| path.parent().is_none_or(|up| !self.above.contains_key(up));
        self.above.keys().map(PathBuf::as_path).filter(is_top)
    }

    /// Whether a cgroup is a pod's, or above pods.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.pods().chain(self.above()).any(|known| known == id)
    }

    fn ids(&self) -> (Vec<u64>, Vec<u64>) {
        (self.above().collect(), self.pods().collect())
    }

    /// The directories in which something changed; `None` if the kernel lost count.
    fn read_notifications(&mut self) -> Option<BTreeSet<PathBuf>> {
        let mut changed = BTreeSet::new();
        let Some(fd) = &self.notifications else {
            return Some(changed);
        };
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        while let Ok(event) = reader.next() {
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                return None;
            }
            if let Some(directory) = self.watches.get(&event.wd()) {
                changed.insert(directory.clone());
            }
            if flags.contains(ReadFlags::IGNORED) {
                self.watches.remove(&event.wd());
            }
        }
        Some(changed)
    }

    /// Looks for roots of pods in the whole tree, and again into those that are known.
    fn search(&mut self) {
        let mut found = BTreeMap::new();
        find_roots(&self.top, &Place::Elsewhere, DEPTH, &mut found);
        let known = self.above.keys().cloned().collect::<Vec<_>>();
        for directory in known.iter().filter(|path| !found.contains_key(*path)) {
            self.look_again(directory);
        }
        for (directory, place) in found {
            if !self.above.contains_key(&directory) {
                info!(cgroup = %directory.display(), "pods are here");
            }
            self.look(&directory, &place);
        }
    }

    fn look_again(&mut self, directory: &Path) {
        if let Some(above) = self.above.get(directory) {
            let place = above.place.clone();
            self.look(directory, &place);
        }
    }

    /// Lists a directory that has pods in it, and keeps an eye on it from now on.
    fn look(&mut self, directory: &Path, place: &Place) {
        // First the watch, then the list: what comes in between is seen twice, not missed.
        let Ok(id) = self.watch(directory).and_then(|()| cgroup_id(directory)) else {
            self.forget(directory);
            return;
        };
        let previous = self.above.insert(
            directory.to_owned(),
            Above {
                id,
                place: place.clone(),
            },
        );
        if previous.is_some_and(|previous| previous.id != id) {
            self.forget_below(directory);
        }
        // A list that cannot be read says nothing about who is gone.
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        let mut present = BTreeSet::new();
        for entry in entries.flatten().filter(is_directory) {
            let path = entry.path();
            let below = entry.file_name().to_str().map(|name| place.below(name));
            match below {
                Some(Place::Pod(name)) => match cgroup_id(&path) {
                    Ok(id) => self.note(path.clone(), Pod { id, name }),
                    Err(_) => continue,
                },
                Some(below @ Place::Above { .. }) => self.look(&path, &below),
                Some(Place::Elsewhere) | None => continue,
            }
            present.insert(path);
        }
        let gone: Vec<PathBuf> = (self.pods.keys().chain(self.above.keys()))
            .filter(|path| path.parent() == Some(directory) && !present.contains(*path))
            .cloned()
            .collect();
        for path in gone {
            self.forget(&path);
        }
    }

    fn watch(&mut self, directory: &Path) -> io::Result<()> {
        let Some(fd) = &self.notifications else {
            return Ok(());
        };
        match inotify::add_watch(fd, directory, EVENTS) {
            Ok(watch) => {
                self.watches.insert(watch, directory.to_owned());
                Ok(())
            }
            Err(error) if error == rustix::io::Errno::NOSPC => {
                warn!(
                    "fs.inotify.max_user_watches is reached: pods' cgroups are listed four times a second instead"
                );
                self.notifications = None;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn note(&mut self, path: PathBuf, pod: Pod) {
        let key = pod.name.key();
        self.by_key.entry(key).or_default().insert(path.clone());
        self.pods.insert(path, pod);
    }

    fn forget(&mut self, path: &Path) {
        if self.above.remove(path).is_some() {
            self.forget_below(path);
        }
        if let Some(pod) = self.pods.remove(path) {
            let key = pod.name.key();
            if let Some(paths) = self.by_key.get_mut(&key) {
                paths.remove(path);
                if paths.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }

    fn forget_below(&mut self, directory: &Path) {
        let below: Vec<PathBuf> = (self.pods.keys().chain(self.above.keys()))
            .filter(|path| path.parent() == Some(directory))
            .cloned()
            .collect();
        for path in below {
            self.forget(&path);
        }
    }
}

fn find_roots(directory: &Path, place: &Place, depth: usize, found: &mut BTreeMap<PathBuf, Place>) {
    // A cgroup without others below has two links: its own and its parent's.
    let is_leaf = directory.metadata().is_ok_and(|data| data.nlink() == 2);
    if depth == 0 || is_leaf {
        return;
    }
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(is_directory) {
        let Some(below) = entry.file_name().to_str().map(|name| place.below(name)) else {
            continue;
        };
        match below {
            Place::Above { .. } => drop(found.insert(entry.path(), below)),
            Place::Elsewhere => find_roots(&entry.path(), &below, depth - 1, found),
            Place::Pod(_) => {}
        }
    }
}

fn is_directory(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}
