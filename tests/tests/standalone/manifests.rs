//! Manifests that are wrong: told with file, document, line and field, and nobody else's trouble.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clusterlink_crds::wrong::{self, Wrong};
use clusterlink_tests::manifests::{self, everything, matching, with_label};
use clusterlink_tests::traffic::{Client, Server, any};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, wait_verdict};
use clusterlink_tests::{Peer, Pod, Process, Scene, story};
use serde_json::{Value, json};

/// How soon a few hundred new files have to be read and told of.
const PATIENCE: Duration = Duration::from_secs(10);

/// What works before anything wrong is applied, and has to go on working.
struct Stage {
    world: World,
    client: Pod,
    /// A workload that a policy denies.
    denied: Pod,
    /// A transfer without end.
    transfer: Process,
    _servers: [Server; 2],
}

fn stage(scene: &Scene) -> Result<Stage> {
    let world = World::new(scene, &["east"])?;
    world.allow_all()?;
    let from = matching("client.clusterlink.net/labels.app", "thief");
    let deny = manifests::privileged_policy("no-thieves", "deny", &from, &everything());
    world.west.apply("no-thieves.yaml", &[deny])?;
    let client = world.workload("client", |pod| with_label(pod, "app", "cart"))?;
    let denied = world.workload("denied", |pod| with_label(pod, "app", "thief"))?;
    let servers = [
        Server::named(world.east().host(), "web")?,
        Server::start(world.east().host(), "flood", any(0), &[])?,
    ];
    for (name, server) in ["web", "flood"].into_iter().zip(&servers) {
        let backend = SocketAddr::new(world.east().host().ipv4(), server.address.port());
        world.export(world.east(), name, 80, backend)?;
    }
    let flood = world.import("flood", 80, "static", &["east"])?;
    world.import("web", 80, "static", &["east"])?;
    wait_for("the flood comes", SOON, || {
        let some = Client::to(flood).set("--receive", 1).flag("--keep-open");
        Ok(some.once(&client)?.received.bytes > 0)
    })?;
    let transfer = Client::to(flood).flag("--keep-open").start(&client)?;
    let stage = Stage {
        world,
        client,
        denied,
        transfer,
        _servers: servers,
    };
    stage.served()?;
    Ok(stage)
}

impl Stage {
    fn west(&self) -> &Peer {
        &self.world.west
    }

    fn address(&self) -> Result<SocketAddr> {
        self.west().import_address(NAMESPACE, "web", false)
    }

    fn expect(&self, place: &Pod, wanted: Verdict) -> Result<()> {
        let what = "as the manifests say";
        wait_verdict(what, SOON, place, self.address()?, &[wanted]).map(drop)
    }

    fn served(&self) -> Result<()> {
        self.expect(&self.client, Verdict::Served)
    }

    /// The bytes that the transfer has brought so far.
    fn transferred(&self) -> Result<u64> {
        let flows = self.west().flows()?;
        let live = flows["live"].as_array().context("no live flows")?;
        let bytes = live
            .iter()
            .filter_map(|flow| flow["bytesReceived"].as_u64());
        bytes.max().context("the transfer is over")
    }

    /// What worked works, what was denied is denied, and the transfer goes on.
    fn undisturbed(&mut self) -> Result<()> {
        let before = self.transferred()?;
        self.served()?;
        self.expect(&self.denied, Verdict::Refused)?;
        ensure!(self.transfer.ended()?.is_none(), "the transfer has ended");
        wait_for("the transfer goes on", SOON, || {
            Ok(self.transferred()? > before)
        })
    }

    fn wait_well(&self) -> Result<()> {
        let none = |status: &Value| status["problems"] == json!([]);
        self.west()
            .wait_status("no problem is left", PATIENCE, none)
            .map(drop)
    }
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// What a problem points at: its file's name, document, line and field.
fn place_of(problem: &Value) -> (String, u64, u64, String) {
    let place = &problem["place"];
    let file = place["file"].as_str().unwrap_or_default();
    (
        file.rsplit('/').next().unwrap_or_default().to_owned(),
        place["document"].as_u64().unwrap_or_default(),
        place["line"].as_u64().unwrap_or_default(),
        problem["field"].as_str().unwrap_or_default().to_owned(),
    )
}

/// A manifest of its own name, unless the name is what is wrong.
fn named(mut wrong: Wrong, name: &str) -> Wrong {
    if wrong.field != "metadata.name" {
        wrong.manifest["metadata"]["name"] = json!(name);
    }
    wrong
}

/// Documents that are right, to stand before and after a wrong one.
fn neighbours(name: &str) -> [Value; 2] {
    let source = manifests::source("east", NAMESPACE, "web");
    [
        manifests::import(NAMESPACE, name, 80, &[source]),
        manifests::export(NAMESPACE, name, 80),
    ]
}

/// The names of the objects of a kind that the status shows.
fn shown(status: &Value, kind: &str) -> BTreeSet<String> {
    let name = |object: &Value| object["name"]["name"].as_str().map(str::to_owned);
    array(status, kind).iter().filter_map(name).collect()
}

#[test]
fn every_field_of_every_kind_that_is_wrong_is_told_where_it_is() -> Result<()> {
    story("manifests-fields", |scene| {
        let mut stage = stage(scene)?;
        let all = wrong::wrong_manifests();
        ensure!(all.len() > 250, "only {} were derived", all.len());
        let mut expected = BTreeMap::new();
        let mut names = BTreeSet::new();
        let start = Instant::now();
        for (number, one) in all.iter().enumerate() {
            let name = format!("wrong-{number}");
            let wrong = named(one.clone(), &name);
            let rendered = wrong.render();
            let [before, after] = neighbours(&name).map(|one| format!("{one:#}\n"));
            let line = 1 + before.lines().count() as u64 + 1 + u64::from(rendered.line);
            let text = format!(
                "# {}\n{before}---\n{}---\n{after}",
                wrong.what, rendered.text
            );
            let file = format!("{name}.yaml");
            stage.west().apply_text(&file, &text)?;
            expected.insert((file, 2, line, wrong.field), wrong.kind);
            names.insert(name);
        }
        let written = start.elapsed();
        let status = stage.west().wait_status(
            "each is told, and its neighbours are there",
            PATIENCE,
            |status| {
                let told = array(status, "problems").iter().map(place_of);
                // Problems are told before the objects that were read with them.
                let there =
                    ["imports", "exports"].map(|kind| shown(status, kind).is_superset(&names));
                told.collect::<BTreeSet<_>>().len() >= expected.len() && there == [true, true]
            },
        )?;
        eprintln!(
            "{} wrong manifests: written in {:.1} s, all told {:.1} s after the first",
            all.len(),
            written.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );
        for problem in array(&status, "problems") {
            let place = place_of(problem);
            let kind = expected.get(&place);
            ensure!(
                kind.is_some_and(|kind| problem["kind"] == json!(kind)),
                "{problem:#} is not where something is wrong"
            );
            let message = problem["message"].as_str().unwrap_or_default();
            ensure!(message.len() > 10, "{problem:#} says nothing");
        }
        let table = stage.west().cli(&["status"])?;
        for (file, _, line, field) in expected.keys() {
            let line = format!("{file}:{line} (document 2)");
            let told = table.lines().filter(|text| text.contains(&line));
            ensure!(
                told.clone().any(|text| text.contains(field)),
                "{line} with {field} is not in\n{table}"
            );
        }
        stage.undisturbed()?;

        for name in &names {
            stage
                .west()
                .apply(&format!("{name}.yaml"), &neighbours(name))?;
        }
        stage.wait_well()?;
        stage.undisturbed()
    })
}

#[test]
fn a_wrong_manifest_that_is_put_right_comes_into_force() -> Result<()> {
    story("manifests-mended", |scene| {
        let mut stage = stage(scene)?;
        for mut right in wrong::complete_manifests() {
            right["metadata"]["name"] = json!("mended");
            // Nobody is to be called.
            if right["kind"] == "Peer" {
                right["spec"]["gateways"] = json!([]);
            }
            let kind = right["kind"].as_str().unwrap_or_default().to_owned();
            let mut wrong = right.clone();
            wrong["spec"] = json!("none");
            stage.west().apply("mended.yaml", &[wrong])?;
            let told = |status: &Value| array(status, "problems").len() == 1;
            let what = format!("a wrong {kind} is told");
            stage.west().wait_status(&what, SOON, told)?;
            stage.west().apply("mended.yaml", &[right])?;
            let list = match kind.as_str() {
                "Import" => "imports",
                "Export" => "exports",
                "Peer" => "peers",
                _ => "policies",
            };
            let what = format!("the {kind} is in force, and no problem left");
            stage.west().wait_status(&what, SOON, |status| {
                let shown = array(status, list)
                    .iter()
                    .any(|one| one["name"].to_string().contains("mended"));
                shown && array(status, "problems").is_empty()
            })?;
        }
        stage.undisturbed()
    })
}

/// Replaces a part of a file of manifests, which must be there.
fn edit(peer: &Peer, file: &str, old: &str, new: &str) -> Result<()> {
    let text = fs::read_to_string(peer.manifests().join(file))?;
    ensure!(text.contains(old), "no {old} in {text}");
    peer.apply_text(file, &text.replace(old, new))
}

#[test]
fn what_was_read_last_stays_in_force_but_for_an_allow() -> Result<()> {
    story("manifests-stale", |scene| {
        let mut stage = stage(scene)?;
        let east = stage.world.east();
        for (peer, file, old, new) in [
            (stage.west(), "web.yaml", "\"port\": 80", "\"port\": 70000"),
            (stage.west(), "peers.yaml", "\"port\": 4443", "\"port\": 0"),
            (stage.west(), "no-thieves.yaml", "\"deny\"", "\"forbid\""),
            (
                east,
                "web.yaml",
                "\"kind\": \"Export\"",
                "\"kind\": \"Export",
            ),
        ] {
            edit(peer, file, old, new)?;
            let what = format!("{file} is told to be stale");
            peer.wait_status(&what, SOON, |status| {
                let problems = array(status, "problems");
                let mut told = problems.iter().filter(|one| place_of(one).0 == file);
                told.any(|one| one["stale"] == true)
            })?;
        }
        stage.undisturbed()?;

        edit(stage.west(), "allow-all.yaml", "\"allow\"", "\"admit\"")?;
        stage.expect(&stage.client, Verdict::Refused)?;
        stage
            .transfer
            .wait(2 * SOON)
            .context("the transfer that was allowed by it")?;
        edit(stage.west(), "allow-all.yaml", "\"admit\"", "\"allow\"")?;
        stage.served()
    })
}

/// The manifest on the page that the project was created from, its label unquoted.
const MERGE: &str = "apiVersion: clusterlink.net/v1alpha1
kind: Import
metadata:
  name: iperf3-server
  namespace: default
  labels:
    import.clusterlink.net/merge: true
spec:
  port:       5000
  sources:
    - exportName:       iperf3-server
      exportNamespace:  default
      peer:             server
";

/// File, text, and what has to be told of it: document, line, field, and a part of the message.
type Mistake = (&'static str, String, u64, u64, &'static str, &'static str);

fn mistakes() -> Vec<Mistake> {
    let import = |name: &str, port: u16| {
        let source = manifests::source("east", NAMESPACE, "web");
        manifests::import(NAMESPACE, name, port, &[source]).to_string()
    };
    let merge = "metadata.labels[import.clusterlink.net/merge]";
    vec![
        ("merge.yaml", MERGE.to_owned(), 1, 7, merge, "with quotes"),
        (
            "poem.yaml",
            "roses are red:\n\tviolets: [are blue\n".to_owned(),
            1,
            2,
            "",
            "not YAML",
        ),
        (
            "half.json",
            "{\"kind\": \"Import\",\n \"metadata\": {\"na".to_owned(),
            1,
            2,
            "",
            "not JSON",
        ),
        (
            "deployment.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n".to_owned(),
            1,
            2,
            "kind",
            "is skipped",
        ),
        (
            "typo.yaml",
            "apiVersion: clusterlink.net/v1alpha1\nkind: Imports\nmetadata: {name: web}\n"
                .to_owned(),
            1,
            2,
            "kind",
            "Imports",
        ),
        (
            "twice.yaml",
            format!("{}\n---\n{}\n", import("twice", 80), import("twice", 81)),
            2,
            3,
            "",
            "twice.yaml:1 (document 1)",
        ),
        // The file of the import in force comes first by its name.
        (
            "zz-web.yaml",
            format!("---\n{}\n", import("web", 81)),
            1,
            2,
            "",
            "web.yaml:1 (document 1)",
        ),
    ]
}

#[test]
fn files_of_all_other_kinds_of_wrong_are_told_too() -> Result<()> {
    story("manifests-files", |scene| {
        let mut stage = stage(scene)?;
        let mistakes = mistakes();
        for (file, text, ..) in &mistakes {
            stage.west().apply_text(file, text)?;
        }
        let status = stage.west().wait_status("all is told", SOON, |status| {
            // The first of the two counts.
            let mut imports = array(status, "imports").iter();
            let twice = imports.find(|import| import["name"]["name"] == "twice");
            array(status, "problems").len() >= mistakes.len()
                && twice.is_some_and(|import| import["port"] == 80)
        })?;
        for (file, _, document, line, field, message) in &mistakes {
            let told: Vec<_> = array(&status, "problems")
                .iter()
                .filter(|problem| place_of(problem).0 == *file)
                .collect();
            let [problem] = told.as_slice() else {
                anyhow::bail!("{file}: {told:#?}")
            };
            let wanted = ((*file).to_owned(), *document, *line, (*field).to_owned());
            ensure!(place_of(problem) == wanted, "{problem:#}");
            ensure!(
                problem["message"]
                    .as_str()
                    .unwrap_or_default()
                    .contains(message),
                "{problem:#}"
            );
        }
        stage.undisturbed()?;
        for (file, ..) in &mistakes {
            stage.west().delete(file)?;
        }
        stage.wait_well()?;
        stage.undisturbed()
    })
}

#[test]
fn files_of_tens_of_megabytes_cost_neither_memory_nor_time() -> Result<()> {
    const MEGA: usize = 1_000_000;
    story("manifests-large", |scene| {
        let mut stage = stage(scene)?;
        let before = stage.world.west.process()?.memory("VmRSS")?;
        let label = |megabytes: usize| {
            let import = manifests::import(NAMESPACE, "large", 80, &[]);
            with_label(import, "note", "VALUE")
                .to_string()
                .replace("VALUE", &"x".repeat(megabytes * MEGA))
        };
        let documents = |megabytes: usize| {
            let one = "---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}\n";
            one.repeat(megabytes * MEGA / one.len())
        };
        // What is too large is not even read; what is read costs some copies of itself for a moment,
        // which the allocator keeps.
        for (what, text, message, limit) in [
            ("50 MB of documents", documents(50), "split it", 16.0),
            ("one document of 50 MB", label(50), "split it", 16.0),
            ("one label of 15 MB", label(15), "63", 48.0),
            (
                "15 MB of foreign documents",
                documents(15),
                "is skipped",
                160.0,
            ),
            (
                "15 MB of brackets",
                "[".repeat(15 * MEGA),
                "not YAML",
                160.0,
            ),
        ] {
            let start = Instant::now();
            stage.west().apply_text("large.yaml", &text)?;
            wait_until(&format!("{what} are told"), PATIENCE, || {
                let status = stage.west().status()?;
                let told = array(&status, "problems").iter().any(|problem| {
                    let text = problem["message"].as_str().unwrap_or_default();
                    text.contains(message) && place_of(problem).0 == "large.yaml"
                });
                Ok(told.then_some(()))
            })?;
            let told = start.elapsed();
            let now = stage.world.west.process()?.memory("VmRSS")?;
            eprintln!(
                "{what}: told after {:.2} s; memory {before:.1} MiB before, {now:.1} MiB with it",
                told.as_secs_f64()
            );
            ensure!(
                now - before < limit,
                "{what}: {before:.1} MiB became {now:.1} MiB"
            );
            stage.undisturbed()?;
            stage.west().delete("large.yaml")?;
            stage.wait_well()?;
        }
        Ok(())
    })
}
