//! A certificate is revoked by the list beside another peer's trust bundle, and the list is taken back.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::identity::refused;
use super::live::Live;
use super::{Share, Side, failover};
use crate::fabric::Fabric;
use crate::manifests::{allow_all, import, peer, source};
use crate::peer::{Peer, PeerOptions};
use crate::pki::Authority;
use crate::pod::Pod;
use crate::process::Process;
use crate::scene::Scene;
use crate::traffic::Client;
use crate::wait::{wait_for, wait_until};
use crate::world::{NAMESPACE, Verdict, verdict, wait_verdict};

const PATIENCE: Duration = Duration::from_secs(30);

/// How soon a revocation has to be in force.
const SOON: Duration = Duration::from_secs(1);

const SERVED: [Verdict; 1] = [Verdict::Served];

/// `east` revokes the certificate that `west` has from the fabric: connections of these clients to
/// these echo servers of `east` end within a second, and new ones are refused and counted, until the
/// list is taken back. A third peer goes on all the time.
pub fn a_revocation_cuts_its_peer_within_a_second_and_no_other(
    scene: &Scene,
    fabric: &Fabric,
    [west, east]: [&dyn Side; 2],
    callers: Vec<(Pod, Share)>,
) -> Result<()> {
    let (_, echo) = callers.first().context("there is nobody who calls")?;
    let mut witness = Witness::call(scene, fabric, east, &echo.name)?;
    let mut held = Vec::new();
    for (client, echo) in callers {
        wait_verdict("it works", PATIENCE, &client, echo.address, &SERVED)
            .with_context(|| failover::last_flow(west))?;
        let live = Live::connect(west, &client, &echo)?;
        held.push((client, echo, live));
    }
    let issued = fabric.directory().join(west.peer()).join("cert.pem");
    let issued =
        fs::read_to_string(&issued).with_context(|| format!("cannot read {}", issued.display()))?;
    let list = Authority::of(fabric)?.revocation_list(&issued)?;
    let before = refused(east, false, "revoked")?;
    ensure!(before == 0, "{before} were refused before");

    east.renew(&[("crl.pem", &list)])?;
    let start = Instant::now();
    let mut refused_now = Vec::new();
    for (client, mut echo, live) in held {
        let ends = live.cut(&mut echo, start)?;
        eprintln!("a revocation cut client and server after {ends:.2?}");
        ensure!(ends.iter().all(|end| *end < SOON), "that was late");
        refused_now.push((client, echo));
    }
    for (client, echo) in &refused_now {
        // Whether a call is over before it is refused is a matter of chance, and so is what is said.
        failover::nobody_serves(west, client, echo, (east.peer(), ""))?;
    }
    let calls = wait_until("the calls are counted", PATIENCE, || {
        let calls = refused(east, false, "revoked")?;
        Ok((calls > 0).then_some(calls))
    })?;
    eprintln!("{calls} calls were refused");
    witness.is_served_all_the_time()?;

    east.take_away("crl.pem")?;
    let start = Instant::now();
    for (client, echo) in &refused_now {
        let what = "the list is taken back";
        wait_verdict(what, PATIENCE, client, echo.address, &SERVED)?;
    }
    eprintln!(
        "served again {:.2?} after the list has gone",
        start.elapsed()
    );
    witness.is_served_all_the_time()
}

/// Another peer with a live connection to the same server.
struct Witness {
    _peer: Peer,
    client: Pod,
    address: SocketAddr,
    live: Process,
}

impl Witness {
    fn call(scene: &Scene, fabric: &Fabric, east: &dyn Side, export: &str) -> Result<Self> {
        let options = PeerOptions::default();
        let mut witness = Peer::prepare(&scene.host("witness")?, fabric, options)?;
        let source = source(east.peer(), NAMESPACE, export);
        let all = [
            allow_all(NAMESPACE),
            peer(east.peer(), &[east.address()]),
            import(NAMESPACE, export, 80, &[source]),
        ];
        witness.apply("all.yaml", &all)?;
        witness.run()?;
        witness.wait_connected(east.peer())?;
        let client = witness.host().pod("client")?;
        let address = witness.import_address(NAMESPACE, export, false)?;
        wait_verdict("it works", PATIENCE, &client, address, &SERVED)?;
        let live = Client::to(address).say("hello").flag("--keep-open");
        let live = live.start(&client)?;
        wait_for("the echo is back", PATIENCE, || {
            Ok(witness.flows()?["live"][0]["bytesReceived"] == 5)
        })?;
        Ok(Self {
            _peer: witness,
            client,
            address,
            live,
        })
    }

    fn is_served_all_the_time(&mut self) -> Result<()> {
        let ended = self.live.ended()?;
        ensure!(ended.is_none(), "another peer's client was cut: {ended:?}");
        let new = verdict(&self.client, self.address)?;
        ensure!(new == Verdict::Served, "another peer's client saw {new:?}");
        Ok(())
    }
}
