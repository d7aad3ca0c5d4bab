//! Ten thousand imports under a hundred policies.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clusterlink_tests::latency::{self, Latency};
use clusterlink_tests::manifests::{self, everything, matching, source, with_label, with_scheme};
use clusterlink_tests::traffic::{Client, Server, any};
use clusterlink_tests::wait::wait_until;
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, wait_verdict};
use clusterlink_tests::{Peer, PeerOptions, Pod, Scene, story};
use serde_json::Value;

const IMPORTS: usize = 10_000;
const POLICIES: usize = 100;
/// Imports in one file.
const FILE: usize = 100;
/// Services of the exporting peer, which the imports take in turn.
const EXPORTS: usize = 8;

/// How soon all of them have to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// One exporting peer, `west` with many imports, and `south` with one.
struct Stage {
    world: World,
    south: Peer,
    client: Pod,
    /// A workload at `south` like the one at `west`.
    southern: Pod,
    _servers: Vec<Server>,
}

fn stage(scene: &Scene) -> Result<Stage> {
    let world = World::new(scene, &["east"])?;
    let east = world.east();
    let known = ["west", "south"].map(|name| manifests::peer(name, &[]));
    east.apply("peers.yaml", &known)?;
    let mut south = Peer::prepare(&scene.host("south")?, &world.fabric, PeerOptions::default())?;
    south.apply("peers.yaml", &[manifests::peer("east", &[east.address()])])?;
    south.run()?;
    south.wait_connected("east")?;
    world.allow_all()?;
    south.apply("allow-all.yaml", &[manifests::allow_all(NAMESPACE)])?;
    let servers: Result<Vec<_>> = (0..EXPORTS)
        .map(|number| {
            let name = format!("export-{number}");
            let flags = ["--name", &name, "--quiet"];
            let server = Server::start(east.host(), "name", any(0), &flags)?;
            let backend = SocketAddr::new(east.host().ipv4(), server.address.port());
            world.export(east, &name, 80, backend)?;
            Ok(server)
        })
        .collect();
    let client = world.workload("client", |pod| with_label(pod, "app", "cart"))?;
    let southern = south.host().pod("client")?;
    let document = manifests::pod(NAMESPACE, "client", &southern.cgroup_annotation()?);
    let document = with_label(document, "app", "cart");
    south.apply("pod-client.yaml", &[document])?;
    south.apply("imports.yaml", &[import(0, 0)])?;
    Ok(Stage {
        world,
        south,
        client,
        southern,
        _servers: servers?,
    })
}

/// The import of that number, of the export of another.
fn import(number: usize, export: usize) -> Value {
    let export = source("east", NAMESPACE, &format!("export-{export}"));
    let import = manifests::import(NAMESPACE, &format!("import-{number}"), 80, &[export]);
    with_scheme(import, "static")
}

fn file_of_imports(file: usize) -> Vec<Value> {
    (file * FILE..(file + 1) * FILE)
        .map(|number| import(number, number % EXPORTS))
        .collect()
}

/// Policies of all sorts, none of which decides for the client of this story.
fn policies() -> Vec<Value> {
    (1..POLICIES)
        .map(|number| {
            let name = format!("policy-{number}");
            let other = matching(
                "client.clusterlink.net/labels.app",
                &format!("app-{number}"),
            );
            let to = matching(
                "export.clusterlink.net/name",
                &format!("export-{}", number % EXPORTS),
            );
            let action = if number % 2 == 0 { "allow" } else { "deny" };
            if number % 4 < 2 {
                manifests::privileged_policy(&name, action, &other, &to)
            } else {
                manifests::access_policy(NAMESPACE, &name, action, &other, &to)
            }
        })
        .collect()
}

fn print_memory(world: &mut World, what: &str) -> Result<()> {
    let process = world.west.process()?;
    let (own, kernel) = (process.memory("VmRSS")?, process.maps_memory()?);
    eprintln!("memory with {what}: process {own:.1} MiB, maps in the kernel {kernel:.1} MiB");
    Ok(())
}

impl Stage {
    /// The IPv4 address of every import of `west`, by number.
    fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let status = self.world.west.status()?;
        let imports = status["imports"].as_array().context("no imports")?;
        let mut addresses = BTreeMap::new();
        for import in imports {
            let name = import["name"]["name"].as_str().context("no name")?;
            let number = name.strip_prefix("import-").context("another import")?;
            let address = import["addresses"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|address| address.as_str()?.parse().ok())
                .find(std::net::IpAddr::is_ipv4)
                .with_context(|| format!("{name} has no address"))?;
            addresses.insert(number.parse::<usize>()?, SocketAddr::new(address, 80));
        }
        if addresses.len() != IMPORTS {
            bail!("{} imports", addresses.len());
        }
        Ok(addresses.into_values().collect())
    }

    fn served(&self, target: SocketAddr, by: &str, within: Duration) -> Result<()> {
        wait_until(&format!("{target} is {by}"), within, || {
            let exchange = Client::to(target).once(&self.client)?;
            ensure!(exchange.succeeded(), "{exchange:?}");
            ensure!(exchange.text == by, "{}", exchange.text);
            Ok(Some(()))
        })
    }

    /// Every import leads to its own export.
    fn all_usable(&self, scene: &Scene, addresses: &[SocketAddr]) -> Result<()> {
        let file = scene.directory().join("targets");
        let lines: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        fs::write(&file, lines.join("\n"))?;
        let start = Instant::now();
        let all = Client::to(format!("@{}", file.display()))
            .count(addresses.len() as u64)
            .parallel(8)
            .run(&self.client)?;
        eprintln!(
            "{} imports connected to, each once, in {:.1} s",
            all.len(),
            start.elapsed().as_secs_f64()
        );
        ensure!(all.len() == addresses.len(), "only {}", all.len());
        for one in &all {
            let wanted = format!("export-{}", one.index % EXPORTS as u64);
            ensure!(one.succeeded() && one.text == wanted, "{wanted}: {one:?}");
        }
        Ok(())
    }
}

/// Changes one thing among all of them, and prints how long it took to be in force.
fn change(
    what: &str,
    apply: impl FnOnce() -> Result<()>,
    in_force: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let start = Instant::now();
    apply()?;
    in_force().with_context(|| what.to_owned())?;
    eprintln!(
        "{what}: in force after {:.3} s",
        start.elapsed().as_secs_f64()
    );
    ensure!(start.elapsed() <= SOON, "{what} took {:?}", start.elapsed());
    Ok(())
}

/// Connects from both places in turns, and prints how long that takes.
fn print_latency(stage: &Stage, many: SocketAddr, one: SocketAddr) -> Result<()> {
    const ROUNDS: usize = 5;
    let (mut with_many, mut with_one) = (Latency::default(), Latency::default());
    for _ in 0..ROUNDS {
        with_one.round(&stage.southern, one)?;
        with_many.round(&stage.client, many)?;
    }
    let many = format!("{IMPORTS} imports");
    latency::print(&[("1 import", &with_one), (&many, &with_many)]);
    Ok(())
}

#[test]
fn ten_thousand_imports_under_a_hundred_policies() -> Result<()> {
    story("scale", |scene| {
        let mut stage = stage(scene)?;
        let one = stage.south.import_address(NAMESPACE, "import-0", false)?;
        print_memory(&mut stage.world, "nothing imported")?;

        let start = Instant::now();
        stage.world.west.apply("policies.yaml", &policies())?;
        for file in 0..IMPORTS / FILE {
            let name = format!("imports-{file:03}.yaml");
            stage.world.west.apply(&name, &file_of_imports(file))?;
        }
        let written = start.elapsed();
        let what = "all imports have addresses";
        let addresses = wait_until(what, PATIENCE, || stage.addresses().map(Some))?;
        let last = *addresses.last().context("no imports")?;
        let by = format!("export-{}", (IMPORTS - 1) % EXPORTS);
        stage.served(last, &by, PATIENCE)?;
        eprintln!(
            "{IMPORTS} imports, {POLICIES} policies: written in {:.1} s, in force {:.1} s after the first",
            written.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );
        let status = stage.world.west.status()?;
        let policies = status["policies"].as_array().context("no policies")?;
        let valid = |policy: &&Value| policy["conditions"][0]["status"] == "True";
        let valid = policies.iter().filter(valid).count();
        ensure!(
            valid == POLICIES,
            "{valid} of {POLICIES} policies are valid"
        );
        print_memory(&mut stage.world, "10,000 imports")?;

        stage.all_usable(scene, &addresses)?;
        one_change(&stage, &addresses)?;
        print_latency(&stage, addresses[0], one)?;
        print_memory(&mut stage.world, "10,000 imports, after use")?;

        let start = Instant::now();
        stage.world.west.restart()?;
        stage.served(last, &by, PATIENCE)?;
        eprintln!(
            "stopped, started and in force again: {:.1} s",
            start.elapsed().as_secs_f64()
        );
        let again = wait_until(what, PATIENCE, || stage.addresses().map(Some))?;
        ensure!(again == addresses, "addresses have changed");
        Ok(())
    })
}

/// One of everything changes, and is in force soon.
fn one_change(stage: &Stage, addresses: &[SocketAddr]) -> Result<()> {
    let west = &stage.world.west;
    let middle = IMPORTS / 2;
    let file = format!("imports-{:03}.yaml", middle / FILE);
    let target = addresses[middle];
    change(
        "one import's source",
        || {
            let mut imports = file_of_imports(middle / FILE);
            imports[middle % FILE] = import(middle, middle % EXPORTS + 1);
            west.apply(&file, &imports)
        },
        || stage.served(target, &format!("export-{}", middle % EXPORTS + 1), SOON),
    )?;
    let verdict = |wanted| wait_verdict("as it says now", SOON, &stage.client, target, &[wanted]);
    let from = matching("client.clusterlink.net/labels.app", "cart");
    let deny = manifests::privileged_policy("late", "deny", &from, &everything());
    change(
        "one policy that denies all",
        || west.apply("late.yaml", &[deny]),
        || verdict(Verdict::Refused).map(drop),
    )?;
    change(
        "its end",
        || west.delete("late.yaml"),
        || verdict(Verdict::Served).map(drop),
    )?;
    change(
        "one import more",
        || west.apply("more.yaml", &[import(IMPORTS, 1)]),
        || {
            let address = wait_until("it has an address", SOON, || {
                let hosts = fs::read_to_string(west.host().hosts_file())?;
                let name = format!("import-{IMPORTS}.{NAMESPACE}");
                let line = hosts
                    .lines()
                    .find(|line| {
                        line.split_whitespace().any(|word| word == name) && !line.contains("::")
                    })
                    .context("no line yet")?;
                Ok(line.split_whitespace().next().map(str::to_owned))
            })?;
            stage.served(SocketAddr::new(address.parse()?, 80), "export-1", SOON)
        },
    )?;
    change(
        "its deletion",
        || west.delete("more.yaml"),
        || {
            wait_until("it is gone", SOON, || {
                let hosts = fs::read_to_string(west.host().hosts_file())?;
                let gone = !hosts.contains(&format!("import-{IMPORTS}."));
                Ok(gone.then_some(()))
            })
        },
    )
}
