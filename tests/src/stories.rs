//! Stories that are told in more than one world: of plain hosts with directories of manifests, and
//! of clusters that are driven by kubectl.
//!
//! A story sees its world as a [`Stage`]: two peers that manifests are given to ([`Side`]), and
//! workloads of the importing one. It takes away again what it has applied, so that the next story
//! can be told on the same stage.

pub mod balancing;
pub mod bodies;
pub mod changes;
pub mod ends;
pub mod failover;
pub mod identity;
pub mod idle;
pub mod live;
pub mod outage;
pub mod policy;
pub mod revocation;
pub mod transfers;
pub mod transport;

mod clusters;
mod hosts;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

pub use self::clusters::Clusters;
use crate::host::Host;
use crate::manifests::allow_all;
use crate::pod::Pod;
use crate::traffic::{Client, Server};
use crate::wait::wait_until;
use crate::world::{NAMESPACE, Verdict, wait_verdict};

/// A peer, as whoever writes its manifests sees it.
pub trait Side: Debug {
    /// The name of the peer.
    fn peer(&self) -> &str;

    /// Puts manifests into force under the name of a file; what was there under that name goes.
    fn apply(&self, file: &str, manifests: &[Value]) -> Result<()>;

    /// Takes away what was applied under that name.
    fn withdraw(&self, file: &str) -> Result<()>;

    /// Gives an object another value of its only label, or takes the label away. A Peer without
    /// labels in its object has those that it says of itself.
    fn label(&self, object: Labelled<'_>, key: &str, value: Option<&str>) -> Result<()>;

    /// What `clusterlink flows -o json` says at its gateway.
    fn flows(&self) -> Result<Value>;

    /// What `clusterlink status -o json` says at its gateway.
    fn status(&self) -> Result<Value>;

    /// The host of its gateway.
    fn host(&self) -> &Host;

    /// Where other peers reach its gateway.
    fn address(&self) -> SocketAddr;

    /// The process id of its gateway.
    fn pid(&self) -> Result<u32>;

    /// Gives some of its certificate files, each by its name, another content.
    fn renew(&self, files: &[(&str, &str)]) -> Result<()>;

    /// Takes one of its certificate files away.
    fn take_away(&self, file: &str) -> Result<()>;
}

/// How long it may take until what is shared is served, where that is not what is looked at.
const PATIENCE: Duration = Duration::from_secs(30);
/// An object with labels that policies select by. All but a Peer are in [`NAMESPACE`].
#[derive(Clone, Copy, Debug)]
pub enum Labelled<'a> {
    /// What [`Stage::share`] has exported under this name.
    Export(&'a str),
    /// What [`Stage::share`] has imported under this name.
    Import(&'a str),
    /// The Peer of this name, whose labels are in its `spec`.
    Peer(&'a str),
    /// The Pod of a [`Stage::workload`].
    Workload(&'a Pod),
}

/// A service that `east` exports and `west` imports.
#[derive(Debug)]
pub struct Share {
    /// Its name in [`NAMESPACE`], at both peers.
    pub name: String,
    /// Its only backend.
    pub server: Server,
    /// The imported address of IPv4.
    pub address: SocketAddr,
    /// The imported address of IPv6.
    pub ipv6: SocketAddr,
}

impl Share {
    /// Connects until the server has heard of it, whatever it says then.
    pub fn wait_open(&self, client: &Pod) -> Result<()> {
        let before = self.server.accepted()?;
        let some = Client::to(self.address).set("--receive", 1);
        let some = some.patience(Duration::from_secs(5));
        wait_until(&format!("{} is shared", self.name), PATIENCE, || {
            let seen = some.once(client)?;
            if self.server.accepted()? > before {
                return Ok(Some(()));
            }
            bail!("{seen:?}")
        })
    }
}

/// Two peers that know each other, and nothing shared or allowed yet.
pub trait Stage {
    /// The importing peer.
    fn west(&self) -> &dyn Side;

    /// The exporting peer; it says of itself that its `zone` is `north`, as `west` does.
    fn east(&self) -> &dyn Side;

    /// How soon what was applied has to be in force for new connections.
    fn soon(&self) -> Duration;

    /// What a client sees whose own side denies it.
    fn refused(&self) -> Verdict;

    /// Starts a server of a mode at `east`, exports it, and imports it at `west`.
    fn share(&self, name: &str, mode: &str, flags: &[&str]) -> Result<Share>;

    /// Starts a workload of [`NAMESPACE`] at `west`; `change` may edit its Pod document.
    fn workload(&self, name: &str, change: impl FnOnce(Value) -> Value) -> Result<Pod>;

    /// Starts processes with a network of their own at `west` that no manifest tells of.
    fn stranger(&self) -> Result<Pod>;

    /// Allows everything at both peers.
    fn allow_all(&self) -> Result<()> {
        for side in [self.west(), self.east()] {
            side.apply("allow-all.yaml", &[allow_all(NAMESPACE)])?;
        }
        Ok(())
    }

    /// Takes [`Stage::allow_all`] back.
    fn allow_nothing(&self) -> Result<()> {
        for side in [self.west(), self.east()] {
            side.withdraw("allow-all.yaml")?;
        }
        Ok(())
    }

    /// Waits until a client sees one of these verdicts, as soon as it must.
    fn sees(
        &self,
        what: &str,
        client: &Pod,
        target: SocketAddr,
        wanted: &[Verdict],
    ) -> Result<Verdict> {
        wait_verdict(what, self.soon(), client, target, wanted)
    }
}

/// Waits until a recent flow at a side is as wanted.
fn wait_flow(
    side: &dyn Side,
    what: &str,
    deadline: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Result<()> {
    wait_until(what, deadline, || {
        let flows = side.flows()?;
        let recent = flows["recent"].as_array().context("no recent flows")?;
        if recent.iter().any(&wanted) {
            return Ok(Some(()));
        }
        bail!("{flows:#}")
    })
}
