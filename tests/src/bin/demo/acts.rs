//! The acts of the demo, each with the check that it did what it says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::peer::PORT;
use clusterlink_tests::report::Exchange;
use clusterlink_tests::traffic::{Client, Server, any};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::{Fabric, Peer, PeerOptions, Place, Pod, Scene};

use crate::documents;
use crate::stage::{Stage, Typed};

/// How soon a change has to be in force.
const IN_FORCE: Duration = Duration::from_secs(1);

/// The three peers, the workloads at London and the web servers elsewhere.
#[derive(Debug)]
pub(crate) struct Acts<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) london: Peer,
    pub(crate) paris: Peer,
    tokyo: Peer,
    pub(crate) cart: Pod,
    guest: Pod,
    pub(crate) address: SocketAddr,
    _servers: Vec<Server>,
}

impl<'a> Acts<'a> {
    /// Three peers of one fabric; Paris and Tokyo export `shop/web`, London imports it.
    pub(crate) fn begin(scene: &Scene, stage: &'a Stage) -> Result<Self> {
        stage.title("Three Linux hosts, each a network namespace: London imports what Paris and Tokyo export");
        let fabric = Fabric::create(scene, "demo")?;
        stage.say("clusterlink create fabric --name demo");
        let prepare = |name: &str| -> Result<Peer> {
            let host = scene.host(name)?;
            stage.say(&format!(
                "clusterlink create peer-cert --fabric demo --name {name}"
            ));
            Peer::prepare(&host, &fabric, PeerOptions::default())
        };
        let (mut london, mut paris, mut tokyo) =
            (prepare("london")?, prepare("paris")?, prepare("tokyo")?);
        let mut servers = Vec::new();
        for peer in [&paris, &tokyo] {
            let greeting = format!("hello from {}", peer.name());
            let server = Server::start(peer.host(), "http", any(8080), &["--name", &greeting])?;
            let export = documents::export(peer.host().ipv4(), server.address.port());
            peer.apply_text("web.yaml", &export)?;
            peer.apply_text("peers.yaml", &documents::peer("london", None))?;
            servers.push(server);
        }
        stage.manifest(
            "paris",
            "web.yaml",
            &documents::export(paris.host().ipv4(), 8080),
        );
        let peers = [&paris, &tokyo]
            .map(|peer| documents::peer(peer.name(), Some((peer.host().ipv4(), PORT))))
            .join("---\n");
        london.apply_text("peers.yaml", &peers)?;
        london.apply_text("web.yaml", documents::IMPORT)?;
        stage.manifest("london", "web.yaml", documents::IMPORT);
        let workload = |name: &str| -> Result<Pod> {
            let pod = london.host().pod(name)?;
            let document = documents::pod(name, &pod.cgroup_annotation()?);
            london.apply_text(&format!("{name}.yaml"), &document)?;
            Ok(pod)
        };
        let (cart, guest) = (workload("cart")?, workload("guest")?);
        for peer in [&mut paris, &mut tokyo, &mut london] {
            peer.run()?;
        }
        london.wait_connected("paris")?;
        london.wait_connected("tokyo")?;
        let address = london.import_address("shop", "web", false)?;
        let acts = Self {
            stage,
            london,
            paris,
            tokyo,
            cart,
            guest,
            address,
            _servers: servers,
        };
        acts.at_london("clusterlink status", 40)?;
        Ok(acts)
    }

    /// Without a policy nothing is reached, and the kernel says so at connect().
    pub(crate) fn default_deny(&self) -> Result<()> {
        self.stage
            .title("Without a policy the kernel refuses the connect()");
        let typed = self.curl(&self.cart, "london/cart")?;
        // 7 is what curl says when it could not connect.
        ensure!(
            typed.code == Some(7),
            "curl was to be refused, and ended with {:?}",
            typed.code
        );
        Ok(())
    }

    /// One side's allow is not enough; with both, the server is reached by its name.
    pub(crate) fn allow_on_both_sides(&self) -> Result<()> {
        self.stage
            .title("London lets its cart out; Paris and Tokyo still let nobody in");
        self.apply(&self.london, "policy.yaml", documents::ALLOW_CART)?;
        self.wait_served(&self.cart, false, "refused by the other side")?;
        let typed = self.curl(&self.cart, "london/cart")?;
        ensure!(
            typed.code != Some(0),
            "curl was to be refused by the other side"
        );
        self.stage
            .title("Both sides allow: curl reaches the web server by name");
        for peer in [&self.paris, &self.tokyo] {
            self.apply(peer, "policy.yaml", documents::ALLOW_LONDON)?;
        }
        self.wait_served(&self.cart, true, "served")?;
        let typed = self.curl(&self.cart, "london/cart")?;
        ensure!(
            typed.output.contains("hello from "),
            "curl was to be greeted"
        );
        let typed = self.curl(&self.guest, "london/guest")?;
        ensure!(
            typed.code == Some(7),
            "the guest on the same host was to be refused"
        );
        Ok(())
    }

    /// Paris and Tokyo answer in turns.
    pub(crate) fn round_robin(&self) -> Result<()> {
        self.stage
            .title("Round-robin: Paris and Tokyo answer in turns");
        let command = "for i in 1 2 3 4 5 6; do curl -s --max-time 5 http://web.shop/; done";
        let typed =
            self.stage
                .type_at(&self.cart, "london/cart", &self.london.admin(), command, 6)?;
        for name in ["paris", "tokyo"] {
            let answers = typed
                .output
                .lines()
                .filter(|line| line.ends_with(name))
                .count();
            ensure!(
                answers == 3,
                "{name} was to answer three of six, and answered {answers}"
            );
        }
        Ok(())
    }

    /// A peer is killed under a client that calls all the time.
    pub(crate) fn failover(&mut self) -> Result<()> {
        self.stage
            .title("Tokyo's gateway is killed while a client calls 20 times a second");
        let client = Client::to(self.address)
            .set("--get", "/")
            .count(0)
            .set("--interval-ms", 50);
        let client = client.patience(Duration::from_secs(5)).start(&self.cart)?;
        let calls = || client.reports::<Exchange>();
        wait_for("the client has called", Duration::from_secs(5), || {
            Ok(calls()?.len() >= 20)
        })?;
        let before = calls()?.len();
        self.tokyo.kill9()?;
        self.stage.say("tokyo: kill -9");
        wait_for("the client has gone on", Duration::from_secs(10), || {
            Ok(calls()?.len() >= before + 40)
        })?;
        let all = calls()?;
        drop(client);
        let failed = all.iter().filter(|one| !one.succeeded()).count();
        let from = |name: &str| {
            all[before + 2..]
                .iter()
                .filter(|one| one.text.contains(name))
                .count()
        };
        self.stage.say(&format!(
            "{} calls, {failed} lost in flight; since the kill paris answered {}, tokyo {}",
            all.len(),
            from("hello from paris"),
            from("hello from tokyo")
        ));
        ensure!(
            failed <= 1,
            "more calls failed than were in flight: {failed}"
        );
        self.tokyo.run()?;
        self.london.wait_connected("tokyo")?;
        let target = "http://web.shop/";
        wait_until("tokyo answers again", Duration::from_secs(10), || {
            let answer = self.cart.run("curl", &["-s", "--max-time", "5", target])?;
            Ok(answer.contains("tokyo").then_some(()))
        })?;
        self.stage
            .say("tokyo is started again and answers again; nothing was applied anew");
        Ok(())
    }

    /// An administrator's deny ends what is under way.
    pub(crate) fn cut_a_live_connection(&self) -> Result<()> {
        self.stage.title("A deny cuts a download that is under way");
        let client = Client::to(self.address)
            .set("--get", "/forever")
            .flag("--keep-open");
        let mut client = client.start(&self.cart)?;
        let flows =
            || -> Result<bool> { Ok(self.london.flows()?["live"].to_string().contains("cart")) };
        wait_for(
            "the flow log shows the download",
            Duration::from_secs(5),
            flows,
        )?;
        let start = Instant::now();
        self.apply(&self.london, "lockdown.yaml", documents::DENY_CART)?;
        let status = client.wait(Duration::from_secs(5))?;
        let took = start.elapsed();
        let one: Exchange = client
            .reports()?
            .pop()
            .context("the client reports what it saw")?;
        ensure!(
            status.success() && one.receive_end.is_reset(),
            "the download was to be reset: {one:?}"
        );
        ensure!(took < Duration::from_secs(2), "it took {took:?}");
        self.stage.say(&format!(
            "the download saw a reset after {} bytes, {:.2} s after the deny was written",
            one.received.bytes,
            took.as_secs_f32()
        ));
        self.london.delete("lockdown.yaml")?;
        self.wait_served(&self.cart, true, "served again")
    }

    /// What an operator sees.
    pub(crate) fn look_inside(&self) -> Result<()> {
        self.stage.title("What an operator sees");
        for (command, lines) in [
            ("clusterlink status", 40),
            ("clusterlink flows --last 6", 20),
        ] {
            let typed = self.at_london(command, lines)?;
            ensure!(typed.code == Some(0), "{command} failed");
        }
        let maps =
            find_map(self.london.bpf_dir(), "SERVICES").context("the map SERVICES is pinned")?;
        let command = format!("bpftool map dump pinned {}", maps.display());
        let typed = self.at_london(&command, 24)?;
        ensure!(
            typed.code == Some(0) && typed.output.contains("import"),
            "the dump was to show named fields"
        );
        Ok(())
    }

    /// Stops all peers, which have to end well.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.stage
            .title("The peers are stopped, and everything that they put on their hosts is removed");
        for peer in [&mut self.london, &mut self.paris, &mut self.tokyo] {
            peer.stop()?;
            ensure!(
                !peer.bpf_dir().exists(),
                "{} is still there",
                peer.bpf_dir().display()
            );
        }
        Ok(())
    }

    /// Where one can look around, each by its name.
    pub(crate) fn places(&self) -> Vec<(String, Place)> {
        let hosts = [&self.london, &self.paris, &self.tokyo];
        let mut places: Vec<(String, Place)> = hosts
            .iter()
            .map(|peer| (peer.name().to_owned(), (**peer.host()).clone()))
            .collect();
        places
            .extend([&self.cart, &self.guest].map(|pod| (pod.name().to_owned(), (**pod).clone())));
        places
    }

    fn apply(&self, peer: &Peer, file: &str, content: &str) -> Result<()> {
        self.stage.manifest(peer.name(), file, content);
        peer.apply_text(file, content)
    }

    fn curl(&self, pod: &Pod, who: &str) -> Result<Typed> {
        let command = "curl -sS --max-time 5 http://web.shop/";
        self.stage
            .type_at(pod, who, &self.london.admin(), command, 5)
    }

    fn at_london(&self, command: &str, lines: usize) -> Result<Typed> {
        self.stage.type_at(
            self.london.host(),
            "london",
            &self.london.admin(),
            command,
            lines,
        )
    }

    /// Waits until the change that was just applied is in force.
    fn wait_served(&self, pod: &Pod, served: bool, what: &str) -> Result<()> {
        wait_until(&format!("{} is {what}", pod.name()), IN_FORCE, || {
            let one = Client::to(self.address).set("--get", "/").once(pod)?;
            let reached_the_gateway = one.connect_errno.is_none();
            if one.succeeded() == served && reached_the_gateway {
                return Ok(Some(()));
            }
            bail!("{one:?}")
        })
    }
}

fn find_map(directory: &std::path::Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find_map(&path, name) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Some(path);
        }
    }
    None
}
