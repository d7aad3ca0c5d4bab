//! The usual world of a story: one importing peer and some exporting ones that know each other.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::fabric::Fabric;
use crate::manifests;
use crate::peer::{Peer, PeerOptions};
use crate::place::Place;
use crate::pod::Pod;
use crate::report::Exchange;
use crate::scene::Scene;
use crate::traffic::{Client, Server};
use crate::wait::wait_until;

/// The namespace that the services of the usual world live in.
pub const NAMESPACE: &str = "shop";

/// How soon a change of manifests has to be in force for new connections.
pub const SOON: Duration = Duration::from_secs(1);

/// Peers of one fabric, started and connected.
#[derive(Debug)]
pub struct World {
    /// The fabric of all peers.
    pub fabric: Fabric,
    /// The peer that imports, on the host `west`.
    pub west: Peer,
    /// The peers that export, each on a host of its name.
    pub exporters: Vec<Peer>,
}

impl World {
    /// Starts the importing peer `west` and exporting peers of these names, without policies.
    pub fn new(scene: &Scene, exporters: &[&str]) -> Result<Self> {
        Self::with(scene, exporters, &PeerOptions::default())
    }

    /// [`World::new`] with options for all peers.
    pub fn with(scene: &Scene, exporters: &[&str], options: &PeerOptions) -> Result<Self> {
        let fabric = Fabric::create(scene, "fabric")?;
        let mut west = Peer::prepare(&scene.host("west")?, &fabric, options.clone())?;
        let mut started = Vec::new();
        for name in exporters {
            let mut peer = Peer::prepare(&scene.host(name)?, &fabric, options.clone())?;
            peer.apply("peers.yaml", &[manifests::peer("west", &[])])?;
            peer.run()?;
            started.push(peer);
        }
        let known: Vec<Value> = started
            .iter()
            .map(|peer| manifests::peer(peer.name(), &[peer.address()]))
            .collect();
        west.apply("peers.yaml", &known)?;
        west.run()?;
        for peer in &started {
            west.wait_connected(peer.name())?;
        }
        Ok(Self {
            fabric,
            west,
            exporters: started,
        })
    }

    /// The first exporting peer.
    pub fn east(&self) -> &Peer {
        self.exporters
            .first()
            .expect("a story's world has an exporting peer")
    }

    /// Has every exporter export a server that answers with its peer's name.
    pub fn export_names(&self, service: &str, port: u16) -> Result<Vec<Server>> {
        let export = |peer: &Peer| {
            let server = Server::named(peer.host(), peer.name())?;
            let backend = SocketAddr::new(peer.host().ipv4(), server.address.port());
            self.export(peer, service, port, backend)?;
            Ok(server)
        };
        self.exporters.iter().map(export).collect()
    }

    /// Exports a backend from a peer as a service of [`NAMESPACE`].
    pub fn export(&self, from: &Peer, service: &str, port: u16, backend: SocketAddr) -> Result<()> {
        from.apply(
            &format!("{service}.yaml"),
            &manifests::shared(NAMESPACE, service, port, backend),
        )
    }

    /// Imports a service of [`NAMESPACE`] from these peers at `west`, and gives its IPv4 address.
    pub fn import(
        &self,
        service: &str,
        port: u16,
        scheme: &str,
        from: &[&str],
    ) -> Result<SocketAddr> {
        let sources: Vec<_> = from
            .iter()
            .map(|peer| manifests::source(peer, NAMESPACE, service))
            .collect();
        let import = manifests::import(NAMESPACE, service, port, &sources);
        self.west.apply(
            &format!("{service}.yaml"),
            &[manifests::with_scheme(import, scheme)],
        )?;
        self.west.import_address(NAMESPACE, service, false)
    }

    /// Allows everything at every peer.
    pub fn allow_all(&self) -> Result<()> {
        for peer in self.exporters.iter().chain([&self.west]) {
            peer.apply("allow-all.yaml", &[manifests::allow_all(NAMESPACE)])?;
        }
        Ok(())
    }

    /// Adds a workload of [`NAMESPACE`] at `west` with its Pod document.
    pub fn workload(&self, name: &str, change: impl FnOnce(Value) -> Value) -> Result<Pod> {
        let pod = self.west.host().pod(name)?;
        let document = manifests::pod(NAMESPACE, name, &pod.cgroup_annotation()?);
        self.west
            .apply(&format!("pod-{name}.yaml"), &[change(document)])?;
        Ok(pod)
    }
}

/// What a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It worked from end to end.
    Served,
    /// `connect()` itself said ECONNREFUSED.
    Refused,
    /// It connected and was then reset before the first byte.
    Reset,
}

impl Verdict {
    /// The verdict that a client saw.
    pub fn of(exchange: &Exchange) -> Result<Self> {
        if exchange.succeeded() {
            Ok(Self::Served)
        } else if exchange.failed_with(nix::errno::Errno::ECONNREFUSED) {
            Ok(Self::Refused)
        } else if exchange.was_refused() {
            Ok(Self::Reset)
        } else {
            bail!("neither served nor refused: {exchange:?}")
        }
    }
}

/// Connects once from a place and tells the verdict.
pub fn verdict(place: &Place, target: SocketAddr) -> Result<Verdict> {
    let exchange = Client::to(target)
        .patience(Duration::from_secs(5))
        .once(place)?;
    Verdict::of(&exchange).with_context(|| format!("from {} to {target}", place.name()))
}

/// Connects from a place until the verdict is one of those wanted, for at most the given time.
pub fn wait_verdict(
    what: &str,
    deadline: Duration,
    place: &Place,
    target: SocketAddr,
    wanted: &[Verdict],
) -> Result<Verdict> {
    let what = format!("{what}: {} sees {wanted:?} at {target}", place.name());
    wait_until(&what, deadline, || {
        let seen = verdict(place, target)?;
        if wanted.contains(&seen) {
            Ok(Some(seen))
        } else {
            bail!("{seen:?}")
        }
    })
}
