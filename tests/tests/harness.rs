//! The harness tested on itself: a story is only as good as the ground that it stands on.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clusterlink_tests::report::{End, Exchange, ServerEvent};
use clusterlink_tests::traffic::{Client, Decoys, Server, any, datagram, rate, throughput};
use clusterlink_tests::wait::wait_for;
use clusterlink_tests::{Listing, cgroup, scene, story, tools};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn hosts_and_pods_reach_each_other_over_both_families() -> Result<()> {
    story("hosts-and-pods", |scene| {
        let (east, west) = (scene.host("east")?, scene.host("west")?);
        let (web, client) = (
            east.pod_with_network("web")?,
            west.pod_with_network("client")?,
        );
        let on_host = Server::named(&east, "on-host")?;
        let in_pod = Server::named(&web, "in-pod")?;
        for place in [&*west, &*client] {
            for address in [east.ipv4(), east.ipv6()] {
                let one =
                    Client::to(SocketAddr::new(address, on_host.address.port())).once(place)?;
                ensure!(one.succeeded() && one.text == "on-host", "{one:?}");
            }
            for address in web.addresses() {
                let one =
                    Client::to(SocketAddr::new(*address, in_pod.address.port())).once(place)?;
                ensure!(one.succeeded() && one.text == "in-pod", "{one:?}");
            }
        }
        let mapped = format!("[::ffff:{}]:{}", east.ipv4(), on_host.address.port());
        let one = Client::to(mapped).once(&west)?;
        ensure!(one.succeeded() && one.text == "on-host", "{one:?}");
        Ok(())
    })
}

#[test]
fn the_router_keeps_its_link_address_whoever_is_cut_off() -> Result<()> {
    story("harness-router", |scene| {
        let (router, hosts) = (
            scene.router()?,
            ["east", "north", "west"].map(|name| scene.host(name)),
        );
        let address = || router.run("ip", &["-o", "link", "show", "br0"]);
        let before = address()?;
        for host in hosts {
            let host = host?;
            host.cut_off()?;
            assert_eq!(address()?, before, "without {}", host.name());
            host.reconnect()?;
        }
        Ok(())
    })
}

#[test]
fn a_process_runs_in_the_cgroup_of_its_place() -> Result<()> {
    story("cgroups", |scene| {
        let east = scene.host("east")?;
        let pod = east.pod("web")?;
        let seen = pod.run("cat", &["/proc/self/cgroup"])?;
        let wanted = format!("0::/{}/east/pods/web", scene.id());
        ensure!(
            seen.lines().any(|line| line == wanted),
            "{wanted} is not in:\n{seen}"
        );
        ensure!(
            pod.cgroup_annotation()? == wanted[4..],
            "{}",
            pod.cgroup_annotation()?
        );
        let server = Server::echo(&pod)?;
        let pids = cgroup::processes(pod.cgroup())?;
        ensure!(pids == [server.process.pid().cast_signed()], "{pids:?}");
        ensure!(
            cgroup::processes(east.cgroup())?.is_empty(),
            "the pod's process is in the host's cgroup"
        );
        Ok(())
    })
}

#[test]
fn a_place_resolves_the_names_of_its_hosts_file_and_others_do_not() -> Result<()> {
    story("names", |scene| {
        let (east, west) = (scene.host("east")?, scene.host("west")?);
        let server = Server::named(&east, "east")?;
        std::fs::write(west.hosts_file(), format!("{} web.shop\n", east.ipv4()))?;
        let target = format!("web.shop:{}", server.address.port());
        ensure!(
            Client::to(&target).once(&west)?.succeeded(),
            "the name is known at west"
        );
        ensure!(
            Client::to(&target).once(&east).is_err(),
            "the name is not known at east"
        );
        ensure!(
            !std::fs::read_to_string("/etc/hosts")?.contains("web.shop"),
            "the machine's own file was touched"
        );
        Ok(())
    })
}

#[test]
fn clients_tell_an_end_from_a_reset_and_a_refusal() -> Result<()> {
    story("ends", |scene| {
        let (east, west) = (scene.host("east")?, scene.host("west")?);
        let at = |server: &Server| SocketAddr::new(east.ipv4(), server.address.port());

        let mut echo = Server::echo(&east)?;
        let one = Client::to(at(&echo)).send(3_000_000).once(&west)?;
        ensure!(
            one.succeeded() && one.sent == one.received && one.sent.bytes == 3_000_000,
            "{one:?}"
        );
        let ServerEvent::Closed {
            received,
            receive_end: End::Eof,
            ..
        } = echo.wait_closed(0, SOON)?
        else {
            anyhow::bail!("the server saw no orderly end");
        };
        ensure!(received == one.sent, "{received:?} is not {:?}", one.sent);

        let resetting = Server::start(&east, "reset", any(0), &["--bytes", "5"])?;
        let one = Client::to(at(&resetting))
            .say("hello")
            .flag("--keep-open")
            .once(&west)?;
        ensure!(
            one.receive_end.is_reset() && !one.succeeded() && one.was_refused(),
            "{one:?}"
        );

        let source = Server::start(&east, "source", any(0), &["--bytes", "1000"])?;
        let one = Client::to(at(&source)).once(&west)?;
        ensure!(one.succeeded() && one.received.bytes == 1000, "{one:?}");
        let again = Client::to(at(&source)).send(1000).once(&west)?;
        ensure!(
            again.received == one.received && again.sent == one.received,
            "the payloads differ: {again:?}"
        );

        let mut echo = Server::echo(&east)?;
        let one = Client::to(at(&echo))
            .say("x")
            .set("--receive", 1)
            .flag("--keep-open")
            .set("--finish", "reset");
        one.once(&west)?;
        let ServerEvent::Closed { receive_end, .. } = echo.wait_closed(0, SOON)? else {
            anyhow::bail!("the server saw no end");
        };
        ensure!(receive_end.is_reset(), "{receive_end:?}");

        let port = east.run("cat", &["/proc/sys/net/ipv4/ip_local_port_range"])?;
        ensure!(!port.is_empty());
        let nobody = SocketAddr::new(east.ipv4(), 9);
        let one = Client::to(nobody).once(&west)?;
        ensure!(one.failed_with(Errno::ECONNREFUSED), "{one:?}");

        let mute = Server::start(&east, "mute", any(0), &[])?;
        let one = Client::to(at(&mute))
            .patience(Duration::from_millis(200))
            .once(&west)?;
        ensure!(one.receive_end == End::Timeout, "{one:?}");
        Ok(())
    })
}

#[test]
fn a_decoy_notices_a_connection_and_a_datagram() -> Result<()> {
    story("decoys", |scene| {
        let (east, west) = (scene.host("east")?, scene.host("west")?);
        let address = SocketAddr::new(east.ipv4(), 7777);
        let decoys = Decoys::start(&east, &[address])?;
        decoys.assert_untouched()?;
        Client::to(address).once(&west)?;
        wait_for("the decoy noticed the connection", SOON, || {
            Ok(decoys.assert_untouched().is_err())
        })?;
        drop(decoys);
        let decoys = Decoys::start(&east, &[address])?;
        let sent = datagram(&west, address, true)?;
        ensure!(
            sent.connect_errno.is_none() && sent.send_errno.is_none(),
            "{sent:?}"
        );
        wait_for("the decoy noticed the datagram", SOON, || {
            Ok(decoys.assert_untouched().is_err())
        })
    })
}

#[test]
fn parallel_clients_report_each_connection() -> Result<()> {
    story("parallel", |scene| {
        let (east, west) = (scene.host("east")?, scene.host("west")?);
        let server = Server::named(&east, "east")?;
        let target = SocketAddr::new(east.ipv6(), server.address.port());
        let all = Client::to(target).count(200).parallel(8).run(&west)?;
        ensure!(
            all.len() == 200 && all.iter().all(Exchange::succeeded),
            "{all:?}"
        );
        let mut numbers: Vec<_> = all.iter().map(|one| one.index).collect();
        numbers.sort_unstable();
        ensure!(numbers == (0..200).collect::<Vec<_>>(), "{numbers:?}");
        wait_for("the server reported each", SOON, || {
            Ok(server.accepted()? == 200)
        })?;

        let quiet = Server::start(&east, "name", any(0), &["--quiet"])?;
        let length = Duration::from_millis(300);
        let measured = rate(
            &west,
            SocketAddr::new(east.ipv4(), quiet.address.port()),
            2,
            length,
        )?;
        ensure!(
            measured.errors == 0 && measured.per_second > 10.0,
            "{measured:?}"
        );
        let flood = Server::start(&east, "flood", any(0), &["--quiet"])?;
        let measured = throughput(
            &west,
            SocketAddr::new(east.ipv4(), flood.address.port()),
            true,
            length,
        )?;
        ensure!(measured.bytes > 0, "{measured:?}");
        let drain = Server::start(&east, "drain", any(0), &["--quiet"])?;
        let measured = throughput(
            &west,
            SocketAddr::new(east.ipv4(), drain.address.port()),
            false,
            length,
        )?;
        ensure!(measured.bytes > 0, "{measured:?}");
        Ok(())
    })
}

#[test]
fn a_scene_is_cleared_when_its_owner_is_killed() -> Result<()> {
    let (mut owner, id) = scene_of_another_process()?;
    ensure!(
        !Listing::of(&id)?.is_empty(),
        "a living scene is in the listing"
    );
    owner.kill()?;
    owner.wait()?;
    wait_for(
        "the watcher has cleared the scene",
        Duration::from_secs(20),
        || Listing::of(&id)?.assert_empty().map(|()| true),
    )
}

#[test]
fn the_next_start_clears_a_scene_whose_owner_and_watcher_were_killed() -> Result<()> {
    let (mut owner, id) = scene_of_another_process()?;
    let watcher = watcher_of(&id)?;
    kill(watcher, Signal::SIGKILL)?;
    owner.kill()?;
    owner.wait()?;
    ensure!(
        !Listing::of(&id)?.is_empty(),
        "without a watcher the scene is still there"
    );
    scene::reap()?;
    Listing::of(&id)?.assert_empty()
}

#[test]
fn a_living_scene_is_not_reaped() -> Result<()> {
    story("living", |scene| {
        let east = scene.host("east")?;
        let server = Server::named(&east, "east")?;
        scene::reap()?;
        let one = Client::to(SocketAddr::new(east.ipv4(), server.address.port())).once(&east)?;
        ensure!(one.succeeded(), "{one:?}");
        Ok(())
    })
}

/// A scene with a host, a pod and a server in it, owned by a process of its own.
fn scene_of_another_process() -> Result<(std::process::Child, String)> {
    let mut owner = Command::new(tools::clt()?)
        .arg("scene")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start clt scene")?;
    let output = owner.stdout.take().context("its output is a pipe")?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
    let id = line.trim().to_owned();
    ensure!(id.starts_with("cl-"), "clt scene said {id:?}");
    Ok((owner, id))
}

fn watcher_of(id: &str) -> Result<Pid> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains("watch-owner") && command.contains(id) {
            let name = entry.file_name();
            let pid = name
                .to_str()
                .and_then(|name| name.parse().ok())
                .context("a process id")?;
            return Ok(Pid::from_raw(pid));
        }
    }
    anyhow::bail!("no process watches {id}")
}
