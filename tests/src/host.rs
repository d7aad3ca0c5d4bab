//! A host: a network namespace on the scene's bridge, with a cgroup subtree of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Result, ensure};

use crate::network;
use crate::place::Place;
use crate::pod::Pod;
use crate::scene::Shared;

/// A plain Linux host as a peer sees it; as a [`Place`] it is the host's own processes.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) scene: Arc<Shared>,
    place: Place,
    name: String,
    number: u8,
    pods: Arc<AtomicU8>,
}

impl Host {
    pub(crate) fn new(scene: Arc<Shared>, name: &str, number: u8) -> Result<Self> {
        ensure!(number < 250, "a scene has room for 249 hosts");
        ensure!(name.len() <= 15, "the name {name} is too long for a link");
        let namespace = format!("{}-{name}", scene.id);
        scene.make_namespace(&namespace)?;
        network::batch(
            &scene.bridge(),
            &format!(
                "link add {name} type veth peer name eth0 netns {namespace}\n\
                 link set {name} master br0\n\
                 link set {name} up\n"
            ),
        )?;
        network::batch(
            &namespace,
            &format!(
                "link set eth0 up\n\
                 address add 10.77.0.{number}/24 dev eth0\n\
                 address add fd00:77::{number:x}/64 dev eth0 nodad\n\
                 route add default via 10.77.0.254\n\
                 route add default via fd00:77::fe\n"
            ),
        )?;
        let cgroup = scene.cgroup.join(name);
        let own = cgroup.join("system");
        scene.make_cgroup(&own)?;
        scene.make_cgroup(&cgroup.join("pods"))?;
        let hosts_file = scene.directory.join(format!("{name}.hosts"));
        std::fs::write(&hosts_file, "127.0.0.1 localhost\n::1 localhost\n")?;
        let place = Place::new(&scene, name, &namespace, own, Some(hosts_file))?;
        Ok(Self {
            scene,
            place,
            name: name.to_owned(),
            number,
            pods: Arc::default(),
        })
    }

    /// The IPv4 address on the scene's network.
    pub fn ipv4(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.number).into()
    }

    /// The IPv6 address on the scene's network.
    pub fn ipv6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, self.number.into()).into()
    }

    /// Takes the host off the scene's network: what it sends is lost, and nothing arrives, without
    /// any sign of it.
    pub fn cut_off(&self) -> Result<()> {
        let line = format!("link set {} nomaster\n", self.name);
        network::batch(&self.scene.bridge(), &line)
    }

    /// Puts it back after [`Host::cut_off`].
    pub fn reconnect(&self) -> Result<()> {
        let line = format!("link set {} master br0\n", self.name);
        network::batch(&self.scene.bridge(), &line)
    }

    /// The number that its addresses end with.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// The cgroup that holds the host's own processes, its pods and its peer: what is steered.
    pub fn subtree(&self) -> PathBuf {
        self.scene.cgroup.join(&self.name)
    }

    /// The file that its processes see as `/etc/hosts`.
    pub fn hosts_file(&self) -> PathBuf {
        self.scene.directory.join(format!("{}.hosts", self.name))
    }

    /// Adds a pod: a cgroup whose processes share the host's network, as a systemd unit's do.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        self.pod_on_host(name, &Path::new("pods").join(name))
    }

    /// [`Host::pod`] in a cgroup of any path below the host's subtree.
    pub fn pod_on_host(&self, name: &str, cgroup: &Path) -> Result<Pod> {
        Pod::in_host_network(self, name, cgroup)
    }

    /// Adds a pod with a network namespace and addresses of its own, linked to the host.
    pub fn pod_with_network(&self, name: &str) -> Result<Pod> {
        self.pod_in(name, &Path::new("pods").join(name))
    }

    /// [`Host::pod_with_network`] in a cgroup of any path below the host's subtree.
    pub fn pod_in(&self, name: &str, cgroup: &Path) -> Result<Pod> {
        let number = self.pods.fetch_add(1, Ordering::Relaxed) + 1;
        Pod::with_own_network(self, name, number, cgroup)
    }

    /// The range that the IPv4 addresses of its pods come from.
    pub fn pod_range(&self) -> String {
        format!("10.78.{}.0/24", self.number)
    }

    /// The range that the IPv6 addresses of its pods come from.
    pub fn pod_range_ipv6(&self) -> String {
        format!("fd00:78:{:x}::/64", self.number)
    }

    /// A place of this host in a cgroup of any other path below the host's subtree.
    pub fn place_in(&self, name: &str, cgroup: &Path) -> Result<Place> {
        self.place_with(name, cgroup, Some(self.hosts_file()))
    }

    /// [`Host::place_in`] in the machine's own mount namespace, where a peer's pins have to be:
    /// what it mounts for them must outlive it.
    pub(crate) fn place_for_peer(&self, name: &str, cgroup: &Path) -> Result<Place> {
        self.place_with(name, cgroup, None)
    }

    fn place_with(&self, name: &str, cgroup: &Path, hosts: Option<PathBuf>) -> Result<Place> {
        let cgroup = self.subtree().join(cgroup);
        self.scene.make_cgroup(&cgroup)?;
        let name = format!("{}/{name}", self.name);
        Place::new(&self.scene, &name, self.place.namespace(), cgroup, hosts)
    }
}

impl Deref for Host {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}
