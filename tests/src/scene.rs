//! A scene: everything that one story builds, with one name, one directory and one ledger.

mod ledger;
mod remove;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::place::Place;
use crate::{cgroup, network};
use ledger::{Entry, Ledger};
pub use ledger::{reap, watch_owner};

/// Where scenes keep their ledgers, logs, certificates and manifests.
pub const DIRECTORY: &str = "/run/clusterlink-tests";

/// One story's world; all of it goes when this value is dropped.
#[derive(Debug)]
pub struct Scene {
    shared: Arc<Shared>,
}

/// What hosts, pods and peers need to know of their scene.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: String,
    pub(crate) directory: PathBuf,
    pub(crate) cgroup: PathBuf,
    ledger: Ledger,
    hosts: AtomicU8,
    places: Mutex<Vec<Place>>,
}

impl Scene {
    /// Clears what dead scenes left and builds an empty scene: a bridge in a namespace of its own.
    pub fn new(name: &str) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the scene {name} needs root: it makes network namespaces and cgroups");
        }
        reap()?;
        let id = format!("cl-{:06x}", rand::random::<u32>() & 0x00ff_ffff);
        let directory = Path::new(DIRECTORY).join(&id);
        let ledger = Ledger::create(&directory, name)?;
        let shared = Arc::new(Shared {
            cgroup: cgroup::root()?.join(&id),
            id,
            directory,
            ledger,
            hosts: AtomicU8::new(0),
            places: Mutex::default(),
        });
        // From here on a failure drops the scene, which removes what is in the ledger.
        let scene = Self { shared };
        scene.build()?;
        Ok(scene)
    }

    fn build(&self) -> Result<()> {
        let shared = &self.shared;
        fs::create_dir_all(shared.directory.join("logs"))
            .context("cannot make the directory for logs")?;
        shared.make_cgroup(&shared.cgroup)?;
        let bridge = shared.bridge();
        shared.make_namespace(&bridge)?;
        // A bridge takes the lowest address of its ports unless it is given one: its neighbours would
        // send to nobody once that port is taken off.
        network::batch(
            &bridge,
            "link add br0 address 02:00:00:4d:00:fe type bridge\n\
             link set br0 up\n\
             address add 10.77.0.254/24 dev br0\n\
             address add fd00:77::fe/64 dev br0 nodad\n",
        )?;
        network::sysctl(&bridge, "ipv4/ip_forward", "1")?;
        network::sysctl(&bridge, "ipv4/conf/all/send_redirects", "0")?;
        network::sysctl(&bridge, "ipv4/conf/br0/send_redirects", "0")?;
        network::sysctl(&bridge, "ipv6/conf/all/forwarding", "1")
    }

    /// The unique name, such as `cl-3fa91c`, that everything of this scene begins with.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// A directory of the scene for files of all kinds.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Adds a host: a network namespace on the scene's bridge and a cgroup subtree.
    pub fn host(&self, name: &str) -> Result<Host> {
        let number = self.shared.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        Host::new(Arc::clone(&self.shared), name, number)
    }

    /// The router that every host's default route leads to: a good place for decoys.
    pub fn router(&self) -> Result<Place> {
        let cgroup = self.shared.cgroup.join("router");
        self.shared.make_cgroup(&cgroup)?;
        Place::new(&self.shared, "router", &self.shared.bridge(), cgroup, None)
    }

    /// Removes all of it, and says what cannot be removed; dropping a scene only prints that.
    pub fn end(self) -> Result<()> {
        self.shared
            .ledger
            .clear()
            .with_context(|| format!("the scene {} could not be removed", self.shared.id))
    }

    /// What a person needs after a failure: how to enter each place, and the end of every log.
    pub fn explain(&self) -> String {
        let mut text = format!(
            "scene {} in {}\n",
            self.shared.id,
            self.shared.directory.display()
        );
        for place in self
            .shared
            .places
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            text += &format!("  enter {}: {}\n", place.name(), place.enter_line());
        }
        for (path, tail) in self.log_tails() {
            text += &format!("--- {}\n{tail}\n", path.display());
        }
        text
    }

    fn log_tails(&self) -> Vec<(PathBuf, String)> {
        let files = fs::read_dir(self.shared.directory.join("logs"))
            .into_iter()
            .flatten()
            .flatten();
        let mut tails: Vec<_> = files
            .map(|file| file.path())
            .filter_map(|path| {
                let text = String::from_utf8_lossy(&fs::read(&path).ok()?).into_owned();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(25)..].join("\n");
                (!tail.is_empty()).then_some((path, tail))
            })
            .collect();
        tails.sort();
        tails
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.explain());
        }
        if let Err(error) = self.shared.ledger.clear() {
            eprintln!(
                "the scene {} could not be removed: {error:#}",
                self.shared.id
            );
        }
    }
}

impl Shared {
    /// The namespace that has the bridge.
    pub(crate) fn bridge(&self) -> String {
        format!("{}-bridge", self.id)
    }

    pub(crate) fn make_namespace(&self, name: &str) -> Result<()> {
        self.ledger.record(&Entry::Namespace(name.to_owned()))?;
        network::create(name)?;
        // A measurement makes more connections to one address in a few seconds than the 28,000
        // ports of the default can serve while each rests in TIME_WAIT for a minute.
        network::sysctl(name, "ipv4/ip_local_port_range", "16384 65535")?;
        network::sysctl(name, "ipv4/tcp_tw_reuse", "1")
    }

    pub(crate) fn make_cgroup(&self, path: &Path) -> Result<()> {
        self.ledger.record(&Entry::Cgroup(self.cgroup.clone()))?;
        fs::create_dir_all(path)
            .with_context(|| format!("cannot make the cgroup {}", path.display()))
    }

    /// Promises to remove a directory of BPF pins that a peer will make.
    pub(crate) fn expect_pins(&self, path: &Path) -> Result<()> {
        self.ledger.record(&Entry::Pins(path.to_owned()))
    }

    pub(crate) fn remember(&self, place: &Place) {
        self.places
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(place.clone());
    }
}
