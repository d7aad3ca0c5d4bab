//! What operators type, and what is left when a peer ends in one way or another.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use clusterlink_tests::manifests;
use clusterlink_tests::peer::PATIENCE;
use clusterlink_tests::tools;
use clusterlink_tests::traffic::{Client, Server, any};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::world::{NAMESPACE, SOON, Verdict, World, wait_verdict};
use clusterlink_tests::{Fabric, Peer, PeerOptions, Pod, Scene, story};
use nix::sys::signal::Signal;
use serde_json::Value;

const README: &str = include_str!("../../../README.md");

/// The text blocks of the README in one language, in order.
fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let mut parts = README.split(&fence);
    parts.next();
    let text = |part: &str| part.split("```").next().unwrap_or_default().to_owned();
    parts.map(text).collect()
}

fn clusterlink(directory: &Path, arguments: &[&str]) -> Result<Output> {
    Command::new(tools::clusterlink()?)
        .args(arguments)
        .current_dir(directory)
        .output()
        .context("cannot run clusterlink")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_ten_minutes_of_the_readme_work_as_written() -> Result<()> {
    story("readme", |scene| {
        for line in blocks("console").iter().flat_map(|block| block.lines()) {
            let words: Vec<_> = line.split_whitespace().collect();
            if let ["$", "clusterlink", arguments @ ..] = words.as_slice() {
                let output = clusterlink(scene.directory(), arguments)?;
                ensure!(output.status.success(), "{line}: {}", errors(&output));
            }
        }
        let manifests = blocks("yaml");
        let [at_paris, at_london] = manifests.as_slice() else {
            anyhow::bail!("{} blocks of manifests", manifests.len())
        };
        let fabric = Fabric::create(scene, "fabric")?;
        let prepare = |name: &str| {
            let peer = Peer::prepare(&scene.host(name)?, &fabric, PeerOptions::default())?;
            let certificates = scene.directory().join("demo").join(name);
            clusterlink_tests::fabric::install(&certificates, &peer.certs())?;
            anyhow::Ok(peer)
        };
        let (mut london, mut paris) = (prepare("london")?, prepare("paris")?);
        // The path of a process that a service manager would have started.
        let cart = london.host().pod("cart")?;
        let at_london = at_london.replace("system.slice/cart.service", &cart.cgroup_annotation()?);
        paris.apply_text("web.yaml", at_paris)?;
        london.apply_text("web.yaml", &at_london)?;
        let _web = Server::start(paris.host(), "http", any(8080), &["--name", "hello"])?;
        paris.run()?;
        london.run()?;
        london.wait_connected("paris")?;
        let url = "http://web.shop/";
        let page = wait_until("curl gets the page", SOON, || {
            cart.run("curl", &["-sS", "--max-time", "5", url]).map(Some)
        })?;
        ensure!(page.contains("hello"), "{page}");
        let guest = london.host().pod("guest")?;
        let refused = guest.output("curl", &["-sS", "--max-time", "5", url])?;
        ensure!(
            refused.status.code() == Some(7),
            "curl says that it failed to connect by 7: {refused:?}"
        );
        let status = london.cli(&["status"])?;
        // The kernel's refusals are fetched a few times a second.
        let flows = wait_until("both connections are in the flow log", SOON, || {
            let flows = london.cli(&["flows"])?;
            Ok(flows.contains("deny by default").then_some(flows))
        })?;
        for (text, wanted) in [
            (&status, "peer london"),
            (&status, "steering on"),
            (&status, "paris: shop/web (reachable)"),
            (&flows, "pod shop/cart"),
            (&flows, "paris: shop/web"),
            (&flows, "allow by AccessPolicy shop/cart-to-web"),
            (&flows, "completed"),
            (&flows, "deny by default"),
            (&paris.cli(&["status"])?, "EXPORTS"),
            (&paris.cli(&["status"])?, "shop/web"),
            (
                &paris.cli(&["flows"])?,
                "allow by AccessPolicy shop/london-to-web",
            ),
        ] {
            ensure!(text.contains(wanted), "no {wanted:?} in\n{text}");
        }
        Ok(())
    })
}

#[test]
fn wrong_input_is_told_with_its_cure() -> Result<()> {
    story("wrong-input", |scene| {
        let directory = scene.directory();
        fs::create_dir(directory.join("empty"))?;
        let run = |arguments: &str| {
            let arguments: Vec<_> = arguments.split(' ').collect();
            clusterlink(directory, &arguments)
        };
        ensure!(run("create fabric --name f")?.status.success());
        ensure!(
            run("create peer-cert --fabric f --name a")?
                .status
                .success()
        );
        let peer = "run --manifests empty --certs f/a --state-dir state";
        for (arguments, wanted) in [
            ("create fabric --name f", "exists already: remove it first"),
            ("create peer-cert --fabric f --name a", "exists already"),
            (
                "create peer-cert --fabric g --name a",
                "make the fabric with",
            ),
            ("create peer-cert --fabric f --name A_", "is not a DNS name"),
            (
                "create peer-cert --fabric f --name b --validity 1y",
                "such as 365d",
            ),
            ("status --admin none", "is `clusterlink run` running?"),
            ("flows --admin none", "is `clusterlink run` running?"),
            (
                "run --manifests none --certs f/a",
                "no such directory; make it",
            ),
            (
                "run --manifests empty --certs none",
                "cannot read none/cert.pem",
            ),
            ("run --manifests empty --certs f", "f/ca.pem"),
            (&format!("{peer} --workers 0"), "from 1 to 64"),
            (&format!("{peer} --label x"), "write KEY=VALUE"),
            (&format!("{peer} --listen 4443"), "such as 0.0.0.0:4443"),
            (&format!("{peer} --service-cidr x"), "such as 10.114.0.0/16"),
            (&format!("{peer} --ebpf off"), "use auto or require"),
            (&format!("{peer} --log-level x,,=y"), "--log-level"),
            ("frobnicate", "unrecognized subcommand"),
        ] {
            let output = run(arguments)?;
            let told = errors(&output);
            ensure!(
                output.status.code().is_some_and(|code| code > 0),
                "{arguments}: {}\n{told}",
                output.status
            );
            ensure!(
                told.contains(wanted),
                "{arguments}: no {wanted:?} in\n{told}"
            );
            ensure!(!told.contains("panicked"), "{arguments}: {told}");
        }
        let both = run(&format!("{peer} --workers 0 --label x"))?;
        ensure!(errors(&both).lines().count() == 2, "{}", errors(&both));
        ensure!(
            !directory.join("state").exists(),
            "wrong input made a state"
        );
        Ok(())
    })
}

/// An exporting peer, an importing one, and a client whose connections are served.
struct Stage {
    world: World,
    client: Pod,
    server: Server,
    address: SocketAddr,
}

fn stage(scene: &Scene) -> Result<Stage> {
    let world = World::new(scene, &["east"])?;
    world.allow_all()?;
    let client = world.workload("client", |pod| pod)?;
    let server = Server::echo(world.east().host())?;
    let backend = SocketAddr::new(world.east().host().ipv4(), server.address.port());
    world.export(world.east(), "web", 80, backend)?;
    let address = world.import("web", 80, "static", &["east"])?;
    let stage = Stage {
        world,
        client,
        server,
        address,
    };
    stage.served()?;
    Ok(stage)
}

impl Stage {
    fn served(&self) -> Result<()> {
        let what = "it works";
        let served = [Verdict::Served];
        wait_verdict(what, SOON, &self.client, self.address, &served).map(drop)
    }

    /// What `west` has put on its host: addresses, routes, hosts entries, pins, its socket.
    fn put_on_host(&self) -> Result<Vec<String>> {
        let west = &self.world.west;
        let place = west.host();
        let mut found = Vec::new();
        for command in [
            "address show dev lo",
            "route show table all",
            "-6 route show table all",
        ] {
            let arguments: Vec<_> = command.split(' ').collect();
            let text = place.run("ip", &arguments)?;
            let ours = ["169.254.77.1", "fd77:636", "10.114."];
            let ours = |line: &&str| ours.iter().any(|part| line.contains(part));
            found.extend(text.lines().filter(ours).map(str::to_owned));
        }
        let hosts = fs::read_to_string(place.hosts_file())?;
        if hosts.contains("clusterlink") {
            found.push(format!("hosts file:\n{hosts}"));
        }
        for path in [west.bpf_dir(), &west.admin()] {
            if path.exists() {
                found.push(path.display().to_string());
            }
        }
        Ok(found)
    }

    fn cleanup(&self) -> Result<Output> {
        let west = &self.world.west;
        let (state, admin) = (west.state(), west.admin());
        let arguments = [
            "cleanup",
            "--state-dir",
            tools::text(&state),
            "--admin",
            tools::text(&admin),
        ];
        west.host().output(tools::clusterlink()?, &arguments)
    }
}

#[test]
fn a_killed_peer_is_cleaned_up_and_a_running_one_is_not() -> Result<()> {
    story("cleanup", |scene| {
        let mut stage = stage(scene)?;
        let there = stage.put_on_host()?;
        ensure!(there.len() > 6, "{there:#?}");
        let refused = stage.cleanup()?;
        let pid = stage.world.west.process()?.pid().to_string();
        ensure!(
            !refused.status.success() && errors(&refused).contains("is in use by process"),
            "{pid}: {refused:?}"
        );
        ensure!(stage.put_on_host()? == there, "{:#?}", stage.put_on_host()?);
        stage.served()?;

        stage.world.west.kill9()?;
        ensure!(!stage.put_on_host()?.is_empty(), "a crash removes nothing");
        let cleanup = stage.cleanup()?;
        let said = String::from_utf8_lossy(&cleanup.stdout).into_owned();
        ensure!(cleanup.status.success(), "{}", errors(&cleanup));
        ensure!(said.lines().count() > 3, "{said}");
        let left = stage.put_on_host()?;
        ensure!(left.is_empty(), "{left:#?} was left; removed was\n{said}");
        let again = stage.cleanup()?;
        ensure!(again.stdout == b"nothing to remove\n", "{again:?}");

        // The addresses that were leased are kept for the next start.
        stage.world.west.run()?;
        stage.served()
    })
}

#[test]
fn a_peer_that_is_interrupted_leaves_nothing_and_ends_what_is_open() -> Result<()> {
    story("interrupt", |scene| {
        let mut stage = stage(scene)?;
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut held = Client::to(stage.address)
                .say("hello")
                .flag("--keep-open")
                .start(&stage.client)?;
            wait_for("the connection is open", PATIENCE, || {
                Ok(stage.world.west.flows()?["live"][0]["bytesReceived"] == 5)
            })?;
            stage.world.west.stop_by(signal)?;
            held.wait(SOON).context("the open connection")?;
            let left = stage.put_on_host()?;
            ensure!(left.is_empty(), "after {signal}: {left:#?}");
            stage.world.west.run()?;
            stage.served()?;
        }
        ensure!(stage.server.process.ended()?.is_none(), "the server ended");
        Ok(())
    })
}

#[test]
fn a_second_start_of_a_running_peer_is_refused_and_harms_nothing() -> Result<()> {
    story("second-start", |scene| {
        let mut stage = stage(scene)?;
        let before = stage.put_on_host()?;
        let pid = stage.world.west.process()?.pid();
        let output = stage
            .world
            .west
            .run_command()?
            .output()
            .context("cannot run clusterlink")?;
        let told = errors(&output);
        ensure!(!output.status.success(), "{output:?}");
        ensure!(
            told.contains(&format!("is in use by process {pid}")),
            "{told}"
        );
        ensure!(
            stage.put_on_host()? == before,
            "{:#?}",
            stage.put_on_host()?
        );
        stage.served()
    })
}

#[test]
fn flows_are_followed_until_interrupted_and_pipes_may_close() -> Result<()> {
    story("follow", |scene| {
        let stage = stage(scene)?;
        let west = &stage.world.west;
        let admin = west.admin();
        let mut command = west.host().command(tools::clusterlink()?);
        command.args(["flows", "--follow", "-o", "json", "--admin"]);
        command.arg(&admin);
        let mut follower = west.host().spawn("follow", command)?;
        let seen = wait_until("a connection is followed", PATIENCE, || {
            Client::to(stage.address).say("hi").once(&stage.client)?;
            let flows: Vec<Value> = follower.reports()?;
            Ok(flows.into_iter().find(|flow| flow["bytesSent"] == 2))
        })?;
        for (field, wanted) in [
            ("reason", "completed"),
            ("client", "pod shop/client"),
            ("peer", "east"),
        ] {
            ensure!(seen[field] == wanted, "{field} is not {wanted}: {seen:#}");
        }
        follower.signal(Signal::SIGINT)?;
        follower.wait(SOON)?;
        let mut command = west.host().command(tools::clusterlink()?);
        command.args(["flows", "--follow", "--admin"]).arg(&admin);
        let mut follower = west.host().spawn("follow-table", command)?;
        let table = wait_until("a connection is followed in a table", PATIENCE, || {
            Client::to(stage.address).say("hi").once(&stage.client)?;
            let printed = follower.printed()?;
            Ok((printed.lines().count() > 1).then_some(printed))
        })?;
        let mut lines = table.lines();
        let header = lines.next().context("no header")?;
        let row = lines.next().context("no row")?;
        for (column, wanted) in [
            ("CLIENT", "pod shop/client"),
            ("VIA", "east: shop/web"),
            ("VERDICT", "allow by AccessPolicy shop/allow-all"),
            ("SENT", "2 B"),
            ("END", "completed"),
        ] {
            let place = header
                .find(column)
                .with_context(|| format!("no {column} in {header}"))?;
            let cell = row.get(place..).unwrap_or_default();
            ensure!(
                cell.starts_with(wanted),
                "{column} is not {wanted}:\n{table}"
            );
        }
        follower.signal(Signal::SIGINT)?;
        follower.wait(SOON)?;

        let mut many = manifests::import(NAMESPACE, "many", 80, &[]);
        let many: Vec<_> = (0..500)
            .map(|number| {
                many["metadata"]["name"] = format!("import-{number}").into();
                many.clone()
            })
            .collect();
        west.apply("many.yaml", &many)?;
        west.wait_status("the imports are there", SOON, |status| {
            status["imports"]
                .as_array()
                .is_some_and(|all| all.len() > 500)
        })?;
        // A shell's `clusterlink status | true`.
        for arguments in [["status", "-o", "table"], ["status", "-o", "json"]] {
            let mut command = west.host().command(tools::clusterlink()?);
            command.args(arguments).arg("--admin").arg(&admin);
            let mut child = command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            drop(child.stdout.take());
            let output = child.wait_with_output()?;
            ensure!(output.stderr.is_empty(), "{}", errors(&output));
        }
        Ok(())
    })
}

#[test]
fn completions_are_what_the_shell_can_read() -> Result<()> {
    let output = clusterlink(Path::new("/"), &["completions", "bash"])?;
    ensure!(output.status.success(), "{output:?}");
    let script = String::from_utf8(output.stdout)?;
    let checked = Command::new("bash").args(["-n", "-c", &script]).output()?;
    ensure!(
        checked.status.success() && checked.stderr.is_empty(),
        "{checked:?}"
    );
    // And it completes: the one verb that begins so, and a flag of it.
    for (words, wanted) in [
        ("clusterlink flo", "flows"),
        ("clusterlink flows --fol", "--follow"),
    ] {
        let count = words.split(' ').count() - 1;
        let ask = format!(
            "COMP_WORDS=({words}); COMP_CWORD={count}; _clusterlink clusterlink \"${{COMP_WORDS[{count}]}}\"; echo \"${{COMPREPLY[*]}}\""
        );
        let answer = Command::new("bash")
            .args(["-c", &format!("{script}\n{ask}")])
            .output()?;
        let answer = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        ensure!(answer == wanted, "{words}: {answer:?}");
    }
    Ok(())
}

#[test]
fn the_kernel_programs_log_what_they_are_asked_to() -> Result<()> {
    story("kernel-log", |scene| {
        let fabric = Fabric::create(scene, "fabric")?;
        let options = PeerOptions {
            // Whatever else is logged.
            log_level: "error".to_owned(),
            flags: vec!["--kernel-log-level".to_owned(), "trace".to_owned()],
            ..PeerOptions::default()
        };
        for (name, options, logged) in [
            ("quiet", PeerOptions::default(), false),
            ("talking", options, true),
        ] {
            let mut peer = Peer::start_with(&scene.host(name)?, &fabric, options)?;
            let import = manifests::import(NAMESPACE, "web", 80, &[]);
            peer.apply("web.yaml", &[import])?;
            let address = peer.import_address(NAMESPACE, "web", false)?;
            let host = peer.host().clone();
            wait_verdict("no source", SOON, &host, address, &[Verdict::Refused])?;
            let line = |log: &str| {
                log.lines().any(|line| {
                    line.contains("clusterlink::kernel") && line.contains("is denied to class 1")
                })
            };
            let process = peer.process()?;
            if logged {
                wait_for("the refusal is logged", SOON, || Ok(line(&process.log())))?;
            }
            peer.stop()?;
            // It is stopped: no line can come any more.
            let log = peer.log()?;
            ensure!(line(&log) == logged, "{name}:\n{log}");
        }
        Ok(())
    })
}
