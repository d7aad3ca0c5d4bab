//! The datapath against the real kernel: real sockets in a cgroup and a network namespace of their
//! own. Needs root; run with `--test-threads=1`.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "datapath/gateways.rs"]
mod gateways;
#[path = "datapath/scene.rs"]
mod scene;
#[path = "datapath/takeover.rs"]
mod takeover;
#[path = "datapath/targets.rs"]
mod targets;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use clusterlink_agent::datapath::{CLASS_HOST, Datapath, DatapathError, KernelDatapath, cleanup};
use scene::{GATEWAY_V4, OtherPeer, Scene, eventually, privileged, started};

const REFUSED: &str = "errno 111";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn counter(datapath: &KernelDatapath, name: &str) -> u64 {
    datapath
        .counters()
        .unwrap()
        .into_iter()
        .find(|(found, _)| *found == name)
        .unwrap()
        .1
}

/// Child processes of the other tests run this one alone; by itself it does nothing.
#[test]
fn plays_its_role_in_another_process() {
    scene::play_role();
}

#[test]
fn a_connect_is_steered_with_its_origin_and_the_client_sees_what_it_asked_for() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    let mut client = scene.client("pod");
    datapath.set_workload(client.cgroup, 7).unwrap();
    // Import 1,000 is bit 40 of word 7 in block 1.
    let mut block = [0; 8];
    block[7] = 1 << 40;
    datapath.set_verdicts(7, 1, &block).unwrap();
    for (asked, shown, v6) in [
        ("10.114.0.1:80", "10.114.0.1:80", false),
        ("[fd77:636d::1]:80", "[fd77:636d::1]:80", true),
        ("[::ffff:10.114.0.1]:80", "[::ffff:10.114.0.1]:80", false),
    ] {
        let service = SocketAddr::new(at(asked).ip().to_canonical(), 80);
        datapath.set_service(service, 1000).unwrap();
        datapath.heartbeat().unwrap();
        assert_eq!(
            client.tell(&format!("connect {asked}")),
            format!("peer {shown}")
        );
        let (mut stream, origin) = scene.accept(v6, &datapath);
        let origin = origin.expect("a steered connection has an origin");
        assert_eq!(origin.import, 1000, "{asked}");
        assert_eq!(origin.destination, service, "{asked}");
        assert_eq!(origin.cgroup, client.cgroup, "{asked}");
        assert!(origin.same_namespace, "{asked}");
        assert!(stream.peer_addr().unwrap().ip().to_canonical() != service.ip());

        let flow = datapath
            .flows()
            .unwrap()
            .into_iter()
            .find(|flow| flow.cookie == origin.cookie);
        let flow = flow.expect("an open connection is shown");
        assert_eq!((flow.import, flow.destination), (1000, service));
        let echo = thread::spawn(move || {
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
            stream
        });
        assert_eq!(client.tell("echo hello"), "hello");
        let stream = echo.join().unwrap();
        client.tell("close");
        drop(stream);
        eventually("the connection is shown no more", || {
            datapath.flows().unwrap().is_empty().then_some(())
        });
    }
    assert_eq!(counter(&datapath, "steered"), 3);
    assert_eq!(counter(&datapath, "handoff-missing"), 0);
    datapath.remove().unwrap();
}

#[test]
fn what_no_verdict_allows_is_refused_and_reported() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    let service = at("10.114.0.2:443");
    datapath.set_service(service, 3).unwrap();
    let mut pod = scene.client("pod");
    let mut host = scene.client("host");
    datapath.set_workload(pod.cgroup, 5).unwrap();

    assert_eq!(pod.tell("connect 10.114.0.2:443"), REFUSED);
    assert_eq!(host.tell("connect 10.114.0.2:443"), REFUSED);
    let refusals = datapath.refusals();
    let seen: Vec<_> = refusals
        .iter()
        .map(|r| (r.import, r.class, r.cgroup))
        .collect();
    assert_eq!(seen, [(3, 5, pod.cgroup), (3, CLASS_HOST, host.cgroup)]);
    assert!(
        refusals
            .iter()
            .all(|refusal| refusal.destination == service)
    );
    assert!(datapath.refusals().is_empty());

    // A cgroup below finds the class of the one above it; every other bit set does not help.
    let mut inner = scene.client("pod/container/inner");
    datapath
        .set_verdicts(5, 0, &[!(1 << 3), !0, !0, !0, !0, !0, !0, !0])
        .unwrap();
    assert_eq!(inner.tell("connect 10.114.0.2:443"), REFUSED);
    datapath
        .set_verdicts(5, 0, &[1 << 3, 0, 0, 0, 0, 0, 0, 0])
        .unwrap();
    assert_eq!(inner.tell("connect 10.114.0.2:443"), "peer 10.114.0.2:443");
    let (_stream, origin) = scene.accept(false, &datapath);
    assert_eq!(origin.unwrap().cgroup, pod.cgroup);
    assert_eq!(host.tell("connect 10.114.0.2:443"), REFUSED);
    datapath.clear_verdicts().unwrap();
    assert_eq!(inner.tell("connect 10.114.0.2:443"), REFUSED);

    // Losing one's identity leaves a known class of nothing: the gateway judges, with no bypass.
    datapath.set_workload(pod.cgroup, 0).unwrap();
    assert_eq!(inner.tell("connect 10.114.0.2:443"), "peer 10.114.0.2:443");
    assert!(scene.accept(false, &datapath).1.is_some());
    datapath.remove().unwrap();
}

#[test]
fn what_is_not_imported_is_left_alone_and_leaves_no_record() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    datapath.set_service(at("10.114.0.3:80"), 3).unwrap();
    let mut client = scene.client("pod");
    let (_listener, plain) = scene::plain_listener();
    assert_eq!(
        client.tell(&format!("connect {plain}")),
        format!("peer {plain}")
    );
    assert!(datapath.flows().unwrap().is_empty());

    // Straight to the gateway: a connection, but no origin.
    assert_eq!(
        client.tell(&format!("connect {GATEWAY_V4}")),
        format!("peer {GATEWAY_V4}")
    );
    assert_eq!(scene.accept(false, &datapath).1, None);

    // Steering ends when the service is removed, markers included.
    datapath.remove_service(at("10.114.0.3:80")).unwrap();
    assert_ne!(client.tell("send 10.114.0.3:53"), REFUSED);
    assert!(scene.nobody_came());
    datapath.remove().unwrap();
}

#[test]
fn datagrams_to_an_imported_address_are_refused_while_any_service_is_there() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    let mut client = scene.client("pod");
    for (first, second) in [
        ("10.114.0.4:80", "10.114.0.4:81"),
        ("[fd77:636d::4]:80", "[fd77:636d::4]:81"),
    ] {
        let udp = SocketAddr::new(at(first).ip(), 53);
        datapath.set_service(at(first), 1).unwrap();
        datapath.set_service(at(second), 2).unwrap();
        datapath.set_service(at(second), 2).unwrap();
        for gone in [first, second] {
            assert_eq!(client.tell(&format!("send {udp}")), REFUSED);
            assert_eq!(client.tell(&format!("udp-connect {udp}")), REFUSED);
            datapath.remove_service(at(gone)).unwrap();
        }
        assert_ne!(client.tell(&format!("send {udp}")), REFUSED);
    }
    assert_eq!(client.tell("send [::ffff:127.0.0.1]:53"), "sent");
    assert_eq!(counter(&datapath, "refused-not-tcp"), 8);
    datapath.remove().unwrap();
}

#[test]
fn nothing_is_sent_to_the_gateway_address_once_its_listeners_are_gone() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::new();
    let datapath = scene.start();
    datapath.set_service(at("10.114.0.5:80"), 3).unwrap();
    datapath.set_verdicts(CLASS_HOST, 0, &[!0; 8]).unwrap();
    let mut client = scene.client("pod");
    assert_eq!(client.tell("connect 10.114.0.5:80"), "peer 10.114.0.5:80");
    drop(scene.accept(false, &datapath));
    scene.listeners.clear();
    let decoy = TcpListener::bind(GATEWAY_V4).unwrap();
    decoy.set_nonblocking(true).unwrap();
    datapath.heartbeat().unwrap();
    for _ in 0..20 {
        assert_eq!(client.tell("connect 10.114.0.5:80"), REFUSED);
    }
    assert!(decoy.accept().is_err(), "the decoy was connected to");
    assert_eq!(counter(&datapath, "refused-gateway-gone"), 20);
    datapath.remove().unwrap();
}

#[test]
fn a_gateway_that_is_not_heard_of_is_not_connected_to() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    datapath.set_service(at("10.114.0.6:80"), 3).unwrap();
    datapath.set_verdicts(CLASS_HOST, 0, &[!0; 8]).unwrap();
    let mut client = scene.client("pod");
    datapath.heartbeat().unwrap();
    assert_eq!(client.tell("connect 10.114.0.6:80"), "peer 10.114.0.6:80");
    eventually("connects are refused", || {
        (client.tell("connect 10.114.0.6:80") == REFUSED).then_some(())
    });
    assert_eq!(client.tell("send 10.114.0.6:53"), REFUSED);
    assert_eq!(counter(&datapath, "refused-gateway-stale"), 1);
    datapath.heartbeat().unwrap();
    assert_eq!(client.tell("connect 10.114.0.6:80"), "peer 10.114.0.6:80");
    datapath.remove().unwrap();
}

#[test]
fn a_gateway_that_is_not_heard_of_is_bypassed_where_the_service_path_takes_over() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    scene::ip("addr add 10.114.0.15/32 dev lo");
    let mut config = scene.config();
    config.pass_when_stale = true;
    let datapath = started(config);
    scene.name_listeners(&datapath);
    datapath.set_service(at("10.114.0.15:80"), 3).unwrap();
    datapath.set_verdicts(CLASS_HOST, 0, &[!0; 8]).unwrap();
    let untouched = TcpListener::bind("10.114.0.15:80").unwrap();
    untouched.set_nonblocking(true).unwrap();
    let mut client = scene.client("pod");
    datapath.heartbeat().unwrap();
    assert_eq!(client.tell("connect 10.114.0.15:80"), "peer 10.114.0.15:80");
    assert!(scene.accept(false, &datapath).1.is_some(), "it is steered");
    assert_eq!(client.tell("send 10.114.0.15:53"), REFUSED);
    // The address and the port that the client asked for get the connection themselves.
    eventually("a connect is left alone", || {
        assert_eq!(client.tell("connect 10.114.0.15:80"), "peer 10.114.0.15:80");
        untouched.accept().ok()
    });
    assert_eq!(client.tell("send 10.114.0.15:53"), "sent");
    assert_eq!(counter(&datapath, "refused-gateway-stale"), 0);
    assert_eq!(counter(&datapath, "passed-stale"), 2);
    // The gateway is heard of again.
    while let Ok(left) = scene.listeners[0].accept() {
        drop(left);
    }
    datapath.heartbeat().unwrap();
    assert_eq!(client.tell("connect 10.114.0.15:80"), "peer 10.114.0.15:80");
    assert!(scene.accept(false, &datapath).1.is_some(), "it is steered");
    datapath.remove().unwrap();
}

#[test]
fn a_killed_peer_leaves_denials_and_its_successor_takes_over() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::new();
    scene.listeners.clear();
    let mut client = scene.client("pod");
    let (mut peer, answer) = OtherPeer::start(&scene, &scene.bpf_dir, &scene.cgroup);
    assert_eq!(answer, "ready");
    assert_eq!(client.tell("connect 10.114.0.9:80"), "peer 10.114.0.9:80");

    // While it lives, its pins and its subtree are its own.
    assert!(matches!(
        KernelDatapath::start(scene.config()),
        Err(DatapathError::Locked { .. })
    ));
    assert!(matches!(
        cleanup(&scene.bpf_dir),
        Err(DatapathError::Locked { .. })
    ));
    let mut elsewhere = scene.config();
    elsewhere.bpf_dir.set_extension("");
    elsewhere.bpf_dir = scene.bpf_dir.with_file_name(format!(
        "{}-b",
        scene.bpf_dir.file_name().unwrap().to_string_lossy()
    ));
    for cgroup in [scene.cgroup.clone(), scene.cgroup.join("pod")] {
        elsewhere.cgroup = cgroup;
        let started = KernelDatapath::start(elsewhere.clone()).err();
        assert!(
            matches!(started, Some(DatapathError::Overlap { .. })),
            "{started:?}"
        );
    }
    cleanup(&elsewhere.bpf_dir).unwrap();

    peer.kill();
    let decoy = TcpListener::bind(GATEWAY_V4).unwrap();
    decoy.set_nonblocking(true).unwrap();
    assert_eq!(client.tell("connect 10.114.0.9:80"), REFUSED);
    assert!(decoy.accept().is_err(), "the decoy was connected to");
    drop(decoy);

    let pinned = scene.pins().join("maps/SERVICES");
    let map = aya::maps::MapData::from_pin(&pinned)
        .unwrap()
        .info()
        .unwrap()
        .id();
    let datapath = started(scene.config());
    let reused = aya::maps::MapData::from_pin(&pinned)
        .unwrap()
        .info()
        .unwrap()
        .id();
    assert_eq!(map, reused, "the maps are used again");
    assert_eq!(datapath.services().unwrap(), [(at("10.114.0.9:80"), 9)]);
    assert_eq!(
        client.tell("connect 10.114.0.9:80"),
        REFUSED,
        "there is no listener yet"
    );
    let listener = TcpListener::bind(GATEWAY_V4).unwrap();
    datapath.set_listeners(&[listener.as_fd()]).unwrap();
    datapath.probe().unwrap();
    assert_eq!(
        client.tell("connect 10.114.0.9:80"),
        REFUSED,
        "verdicts are not inherited"
    );
    datapath.set_verdicts(CLASS_HOST, 0, &[!0; 8]).unwrap();
    assert_eq!(client.tell("connect 10.114.0.9:80"), "peer 10.114.0.9:80");
    scene.listeners.push(listener);
    assert_eq!(scene.accept(false, &datapath).1.unwrap().import, 9);
    datapath.remove().unwrap();
    assert!(!scene.bpf_dir.exists());
}

#[test]
fn a_stop_leaves_nothing_attached_and_the_mounts_as_they_were() {
    if !privileged() {
        return;
    }
    let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
    let attached = |cgroup: &std::path::Path| {
        let output = std::process::Command::new("bpftool")
            .args(["cgroup", "show"])
            .arg(cgroup)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let before = mounts();
    let scene = Scene::new();
    let datapath = scene.start();
    assert!(attached(&scene.cgroup).contains("connect4"));
    datapath.remove().unwrap();
    assert!(!attached(&scene.cgroup).contains("connect4"));
    assert!(!scene.bpf_dir.exists());
    // Another peer on this host may use the bpffs for a while.
    eventually("the mounts are as before", || {
        (mounts() == before).then_some(())
    });
}

#[test]
fn maps_of_another_shape_are_replaced_and_a_new_cgroup_is_attached_to() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    drop(scene.start());
    // A map of another shape under a name of ours.
    let pinned = scene.pins().join("maps/VERDICTS");
    std::fs::remove_file(&pinned).unwrap();
    let wrong = std::process::Command::new("bpftool")
        .args(["map", "create"])
        .arg(&pinned)
        .args([
            "type", "hash", "key", "4", "value", "4", "entries", "8", "name", "VERDICTS",
        ])
        .status()
        .unwrap();
    assert!(wrong.success());
    let datapath = scene.start();
    let names: Vec<_> = std::fs::read_dir(&scene.bpf_dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(
        names,
        [scene.pins().file_name().unwrap()],
        "what was moved aside is gone once the probe was seen"
    );
    datapath.set_service(at("10.114.0.7:80"), 3).unwrap();
    datapath.set_verdicts(CLASS_HOST, 0, &[!0; 8]).unwrap();
    let mut client = scene.client("pod");
    assert_eq!(client.tell("connect 10.114.0.7:80"), "peer 10.114.0.7:80");
    drop(client);
    drop(datapath);

    // The cgroup is made anew: its links outlive it, and attach to nothing.
    std::fs::remove_dir(scene.cgroup.join("pod")).unwrap();
    std::fs::remove_dir(&scene.cgroup).unwrap();
    std::fs::create_dir(&scene.cgroup).unwrap();
    let datapath = scene.start();
    let mut client = scene.client("pod");
    datapath.set_verdicts(CLASS_HOST, 0, &[!0; 8]).unwrap();
    assert_eq!(client.tell("connect 10.114.0.7:80"), "peer 10.114.0.7:80");
    datapath.remove().unwrap();
}

#[test]
fn twenty_thousand_connects_have_their_origin() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    datapath.set_service(at("10.114.0.8:80"), 3).unwrap();
    datapath.set_verdicts(CLASS_HOST, 0, &[!0; 8]).unwrap();
    let mut client = scene.client("pod");
    let done = AtomicBool::new(false);
    let listener = &scene.listeners[0];
    listener.set_nonblocking(true).unwrap();
    let (accepted, missed) = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                datapath.heartbeat().unwrap();
                thread::sleep(Duration::from_millis(100));
            }
        });
        let gateway = scope.spawn(|| {
            let (mut accepted, mut missed) = (0, 0);
            loop {
                let finished = done.load(Relaxed);
                match listener.accept() {
                    Ok((stream, _)) => {
                        accepted += 1;
                        missed += u32::from(datapath.origin(stream.as_fd()).unwrap().is_none());
                    }
                    Err(_) if finished => return (accepted, missed),
                    Err(_) => thread::yield_now(),
                }
            }
        });
        let answer = client.tell("storm 10.114.0.8:80 20000");
        done.store(true, Relaxed);
        assert_eq!(answer, "failed 0");
        gateway.join().unwrap()
    });
    // A client that resets at once may be gone before its connection was accepted.
    assert!(accepted > 0 && accepted <= 20_000);
    assert_eq!(missed, 0, "of {accepted}");
    assert_eq!(counter(&datapath, "steered"), 20_000);
    assert_eq!(counter(&datapath, "handoff-missing"), 0);
    eventually("closed connections are shown no more", || {
        datapath.flows().unwrap().is_empty().then_some(())
    });
    datapath.remove().unwrap();
}

#[test]
fn a_connect_that_failed_leaves_nothing_for_a_later_one() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::new();
    let datapath = scene.start();
    datapath.set_service(at("10.114.0.14:80"), 3).unwrap();
    datapath.set_verdicts(CLASS_HOST, 0, &[!0; 8]).unwrap();
    let mut client = scene.client("pod");
    // The IPv6 listener lives, so connects are steered, but nobody listens on IPv4.
    drop(scene.listeners.remove(0));
    datapath.heartbeat().unwrap();
    let (_listener, plain) = scene::plain_listener();
    let plain = SocketAddr::from(([169, 254, 77, 1], plain.port()));
    let _plain = TcpListener::bind(plain).unwrap();
    assert_eq!(
        client.tell(&format!("connect-in-turn 40001 10.114.0.14:80 {plain}")),
        format!("{REFUSED}, peer {plain}"),
        "the second connect shows its own peer"
    );
    assert_eq!(client.tell("connect-in-turn 40002 10.114.0.14:80"), REFUSED);
    assert_eq!(counter(&datapath, "steered"), 2);
    assert_eq!(counter(&datapath, "handoff-missing"), 0);

    // The record of the second one is still there; the same tuple comes back without steering.
    scene
        .listeners
        .insert(0, TcpListener::bind(GATEWAY_V4).unwrap());
    assert_eq!(
        client.tell(&format!("connect-in-turn 40002 {GATEWAY_V4}")),
        format!("peer {GATEWAY_V4}")
    );
    assert_eq!(scene.accept(false, &datapath).1, None);
    assert_eq!(counter(&datapath, "handoff-missing"), 1);
    datapath.remove().unwrap();
}

#[test]
fn a_client_of_another_namespace_is_unknown_and_left_to_the_gateway() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    datapath.set_service(at("10.114.0.11:80"), 3).unwrap();
    let mut client = scene.client("pod");
    assert_eq!(
        client.tell("connect 10.114.0.11:80"),
        REFUSED,
        "the host has no verdict"
    );
    assert_eq!(client.tell("leave-network"), "left");
    // It is sent to the gateway, which cannot be reached from an empty namespace: ENETUNREACH.
    assert_eq!(client.tell("connect 10.114.0.11:80"), "errno 101");
    assert_eq!(counter(&datapath, "steered"), 1);
    datapath.set_workload(client.cgroup, 4).unwrap();
    datapath.heartbeat().unwrap();
    assert_eq!(client.tell("connect 10.114.0.11:80"), REFUSED);
    datapath.remove().unwrap();
}

#[test]
fn a_connect_that_carries_data_is_steered_as_well() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    datapath.set_service(at("10.114.0.12:80"), 3).unwrap();
    let mut client = scene.client("pod");
    assert!(
        client
            .tell("fast-open 10.114.0.12:80")
            .contains("ConnectionRefused")
    );
    datapath.set_verdicts(CLASS_HOST, 0, &[!0; 8]).unwrap();
    datapath.heartbeat().unwrap();
    assert_eq!(
        client.tell("fast-open 10.114.0.12:80"),
        "Ok(5) Ok(Some(10.114.0.12:80))"
    );
    let (mut stream, origin) = scene.accept(false, &datapath);
    assert_eq!(origin.unwrap().import, 3);
    let mut early = [0; 5];
    stream.read_exact(&mut early).unwrap();
    assert_eq!(&early, b"early");
    datapath.remove().unwrap();
}

#[test]
fn hooks_log_what_they_are_asked_to() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    for (level, expected) in [(0, 0), (4, 1), (5, 2)] {
        let mut config = scene.config();
        config.log_level = level;
        let datapath = started(config);
        scene.name_listeners(&datapath);
        datapath.probe().unwrap();
        datapath.set_service(at("10.114.0.13:80"), 3).unwrap();
        let mut client = scene.client("pod");
        assert_eq!(client.tell("connect 10.114.0.13:80"), REFUSED);
        datapath.set_verdicts(CLASS_HOST, 0, &[!0; 8]).unwrap();
        assert_eq!(client.tell("connect 10.114.0.13:80"), "peer 10.114.0.13:80");
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), || datapath.refusals());
        assert_eq!(lines.0.load(Relaxed), expected, "at level {level}");
        drop(client);
        datapath.remove().unwrap();
    }
}

/// Counts the events that the hooks logged.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<AtomicUsize>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "clusterlink::kernel"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn bpftool_shows_the_names_of_the_fields() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    datapath.set_service(at("10.114.0.8:80"), 3).unwrap();
    let maps = scene.pins().join("maps");
    for map in clusterlink_ebpf_common::maps::ALL {
        assert!(maps.join(map.name).exists(), "{}", map.name);
    }
    let services = scene::bpftool_dump(&maps.join("SERVICES"));
    assert!(services.contains("\"import\": 3"), "{services}");
    let gateways = scene::bpftool_dump(&maps.join("GATEWAYS"));
    for field in ["netns_cookie", "heartbeat_ns", "listeners"] {
        assert!(gateways.contains(field), "{gateways}");
    }
    for program in clusterlink_ebpf_common::programs::ALL {
        let link = scene.pins().join("links");
        assert!(
            link.join(program.name).exists()
                || link.join(format!("{}-gateway", program.name)).exists()
        );
    }
    datapath.remove().unwrap();
    assert!(!scene.bpf_dir.exists());
}
