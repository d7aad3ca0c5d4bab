//! Fifty agents of one controller and a real API server: what goes over the wire is what changed.

mod crowd;

use anyhow::{Context as _, Result, bail, ensure};
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::manifests::{import, source};
use clusterlink_tests::wait::wait_until;
use clusterlink_tests::world::NAMESPACE;
use clusterlink_tests::{Controller, Host, network, story};

use crate::agents::crowd::{Agent, PATIENCE, Seen, Way, node_name};

const AGENTS: usize = 50;
const IMPORTS: usize = 20;

struct Crowd<'a> {
    way: Way<'a>,
    host: &'a Host,
    controller: Controller,
    agents: Vec<Agent>,
}

#[test]
fn fifty_agents_are_told_what_changed_and_nothing_else() -> Result<()> {
    story("kubernetes-agents", |scene| {
        let host = scene.host("cluster")?;
        let plane = ControlPlane::start(&host)?;
        plane.install_clusterlink()?;
        plane.run(&["create", "namespace", NAMESPACE])?;
        let controller = Controller::start(&host, &plane)?;
        network::within(host.namespace(), || {
            // Threads that it starts are in the network of the thread that makes it.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let way = Way {
                runtime: &runtime,
                plane: &plane,
                directory: scene.directory(),
            };
            let mut crowd = Crowd::gather(way, &host, controller)?;
            crowd.one_change().context("one change")?;
            crowd.one_is_slow().context("one is slow")?;
            crowd.one_lies().context("one lies")?;
            crowd.one_comes_back().context("one comes back")?;
            crowd.controller_restarted().context("another controller")
        })?
    })
}

/// The label that changes, of an Import that an agent knows.
fn round<'a>(seen: &'a Seen, import: &str) -> Option<&'a str> {
    let labels = &seen.import(import)?.labels;
    labels.get("round").map(|value| &**value)
}

impl<'a> Crowd<'a> {
    fn gather(way: Way<'a>, host: &'a Host, controller: Controller) -> Result<Self> {
        way.make_nodes(AGENTS)?;
        let imports = (0..IMPORTS).map(|number| {
            let sources = [source("east", NAMESPACE, "web")];
            import(NAMESPACE, &format!("i{number}"), 80, &sources)
        });
        way.plane.apply(&imports.collect::<Vec<_>>())?;
        way.refresh_authorities()?;
        let mut crowd = Self {
            way,
            host,
            controller,
            agents: Vec::new(),
        };
        for number in 0..AGENTS {
            let agent = crowd.agent(number, None);
            crowd.agents.push(agent);
        }
        crowd.wait_all("every agent knows every Import", |seen| {
            let imports = &seen.snapshot.imports;
            let served = imports
                .values()
                .all(|import| !import.addresses.is_empty() && import.target_port.is_some());
            imports.len() == IMPORTS && served
        })?;
        Ok(crowd)
    }

    fn agent(&self, number: usize, kept: Option<clusterlink_model::Snapshot>) -> Agent {
        let node = node_name(number);
        let controller = format!("{}:4445", self.host.ipv4());
        self.way.start(&controller, &node, &node, kept)
    }

    fn wait_all(&self, what: &str, holds: impl Fn(&Seen) -> bool) -> Result<()> {
        wait_all(what, &self.agents, holds)
    }

    /// What every agent was told so far.
    fn seen(&self) -> Vec<Seen> {
        self.agents.iter().map(Agent::seen).collect()
    }

    fn label(&self, import: &str, round: &str) -> Result<()> {
        let label = format!("round={round}");
        let arguments = ["label", "import", import, "-n", NAMESPACE, "--overwrite"];
        let all = [&arguments[..], &[&label]].concat();
        self.way.plane.run(&all).map(drop)
    }

    /// Every agent but those left out was told so many resources more than before.
    fn told(&self, before: &[Seen], left_out: &[usize], wanted: (usize, usize)) -> Result<()> {
        for (number, (now, before)) in self.seen().iter().zip(before).enumerate() {
            let more = (now.upserts - before.upserts, now.removals - before.removals);
            ensure!(
                left_out.contains(&number) || more == wanted,
                "agent {number} was told (upserts, removals) {more:?} instead of {wanted:?}"
            );
        }
        Ok(())
    }

    /// One label of one Import is one resource for each agent.
    fn one_change(&self) -> Result<()> {
        let before = self.seen();
        let counts = || -> Result<[f64; 2]> {
            let count = |name| self.controller.metric(name, &[]);
            Ok([
                count("clusterlink_controller_push_upserts_total")?,
                count("clusterlink_controller_push_sent_bytes_total")?,
            ])
        };
        let [upserts, bytes] = counts()?;
        self.label("i0", "one")?;
        self.wait_all("all know of the change", |seen| {
            round(seen, "i0") == Some("one")
        })?;
        self.told(&before, &[], (1, 0))?;
        let [more, more_bytes] = counts()?.map(f64::round);
        eprintln!(
            "one change: {} resources, {} bytes for {AGENTS} agents",
            more - upserts,
            more_bytes - bytes
        );
        ensure!(more - upserts == AGENTS as f64, "{}", more - upserts);
        Ok(())
    }

    /// An agent that does not get on is told the newest state when it does.
    fn one_is_slow(&self) -> Result<()> {
        const ROUNDS: usize = 10;
        let (slow, others) = self.agents.split_first().context("there are agents")?;
        slow.pause(true);
        let before = slow.seen().upserts;
        for number in 0..ROUNDS {
            let value = number.to_string();
            self.label("i1", &value)?;
            let what = "the others know of the change";
            wait_all(what, others, |seen| round(seen, "i1") == Some(&*value))?;
        }
        slow.pause(false);
        let last = (ROUNDS - 1).to_string();
        let what = "the slow one knows of the last change";
        wait_all(what, std::slice::from_ref(slow), |seen| {
            round(seen, "i1") == Some(&*last)
        })?;
        let told = slow.seen().upserts - before;
        eprintln!("a slow agent was told {told} of {ROUNDS} changes");
        // One may have been on its way, and one waited for it.
        ensure!(told <= 3, "it was told {told} of {ROUNDS} changes");
        Ok(())
    }

    /// An agent with the token of another node is refused and counted, and nobody else minds.
    fn one_lies(&self) -> Result<()> {
        let before = self.seen();
        let refused = || {
            let name = "clusterlink_controller_push_refused_total";
            self.controller.metric(name, &[])
        };
        let count = refused()?;
        let controller = format!("{}:4445", self.host.ipv4());
        let (node, token) = (node_name(7), node_name(3));
        let liar = self.way.start(&controller, &node, &token, None);
        let reason = liar.wait_refused()?;
        eprintln!("a liar is told: {reason}");
        ensure!(refused()? > count, "it was not counted");
        ensure!(liar.seen().upserts == 0, "it was told something");
        drop(liar.stop());
        self.label("i2", "lied")?;
        self.wait_all("all know of the change", |seen| {
            round(seen, "i2") == Some("lied")
        })?;
        self.told(&before, &[], (1, 0))
    }

    /// An agent that kept what it knew is told what has changed since.
    fn one_comes_back(&mut self) -> Result<()> {
        let kept = self.agents.remove(5).stop();
        let before = self.seen();
        self.label("i3", "missed")?;
        let plane = self.way.plane;
        plane.run(&["delete", "import", "i4", "-n", NAMESPACE])?;
        self.wait_all("the others know", |seen| {
            round(seen, "i3") == Some("missed") && seen.import("i4").is_none()
        })?;
        self.told(&before, &[], (1, 1))?;
        let back = self.agent(5, Some(kept));
        back.wait_synced()?;
        let seen = back.seen();
        self.agents.insert(5, back);
        ensure!(round(&seen, "i3") == Some("missed"), "{seen:?}");
        let told = (seen.upserts, seen.removals);
        ensure!(told == (1, 1), "it was told {told:?}");
        Ok(())
    }

    /// The controller that comes after another tells what has changed meanwhile.
    fn controller_restarted(mut self) -> Result<()> {
        self.controller.process().kill9()?;
        let before = self.seen();
        self.label("i6", "alone")?;
        self.controller = Controller::start(self.host, self.way.plane)?;
        self.way.refresh_authorities()?;
        self.wait_all("all know what changed", |seen| {
            round(seen, "i6") == Some("alone")
        })?;
        self.told(&before, &[], (1, 0))?;
        self.label("i7", "again")?;
        self.wait_all("all know of the change", |seen| {
            round(seen, "i7") == Some("again")
        })?;
        self.told(&before, &[], (2, 0))
    }
}

fn wait_all(what: &str, agents: &[Agent], holds: impl Fn(&Seen) -> bool) -> Result<()> {
    wait_until(what, PATIENCE, || {
        let not = agents.iter().find(|agent| !holds(&agent.seen()));
        match not {
            None => Ok(Some(())),
            Some(agent) => {
                let seen = agent.seen();
                bail!(
                    "{} imports: {:?}",
                    seen.snapshot.imports.len(),
                    seen.import("i0")
                )
            }
        }
    })
}
