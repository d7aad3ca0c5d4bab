//! The Service path against the real kernel: who gets a connection to a leased port of the node, and
//! who never does.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use clusterlink_agent::datapath::{Datapath, KernelDatapath, cleanup};

use crate::{
    REFUSED, at, counter,
    scene::{self, OtherPeer, Scene, TARGET, eventually, privileged, started},
};

/// A listener of another program, at all addresses of both families.
struct Decoy(TcpListener);

impl Decoy {
    fn new(port: u16) -> Self {
        let listener = TcpListener::bind(("::", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    /// How many connections it has got since the last call.
    fn hits(&self) -> usize {
        std::iter::from_fn(|| self.0.accept().ok()).count()
    }
}

/// The gateway's listeners: no two of them share an address, and nobody is told where they are.
fn private(addresses: &[&str]) -> Vec<TcpListener> {
    let bind = |address: &&str| {
        let listener = TcpListener::bind(*address).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    };
    addresses.iter().map(bind).collect()
}

fn name(datapath: &KernelDatapath, listeners: &[TcpListener]) {
    let listeners: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    datapath.set_target_listeners(&listeners).unwrap();
}

/// How many connections each listener has got, all of them to `asked`.
fn accepted(listeners: &[TcpListener], asked: SocketAddr) -> Vec<usize> {
    let count = |listener: &TcpListener| {
        std::iter::from_fn(|| listener.accept().ok())
            .inspect(|(socket, _)| assert_eq!(socket.local_addr().unwrap(), asked))
            .count()
    };
    listeners.iter().map(count).collect()
}

#[test]
fn a_target_is_the_gateways_alone_and_spread_over_its_listeners() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    let mut client = scene.client("pod");
    let decoy = Decoy::new(30001);
    let targets = ["169.254.77.1:30001", "[fd77:636c::1]:30001"];
    for target in targets {
        client.tell(&format!("connect {target}"));
        assert_eq!(decoy.hits(), 1, "{target} is not a target yet");
        datapath.set_target(at(target), 7).unwrap();
        assert_eq!(client.tell(&format!("connect {target}")), REFUSED);
    }
    let mut known = datapath.targets().unwrap();
    known.sort();
    assert_eq!(known, targets.map(|target| (at(target), 7)));

    let listeners = private(&["127.0.0.1:0", "127.0.0.1:0", "[::1]:0", "[::1]:0"]);
    name(&datapath, &listeners);
    for (asked, listeners) in [(targets[0], &listeners[..2]), (targets[1], &listeners[2..])] {
        for _ in 0..64 {
            datapath.heartbeat().unwrap();
            let answer = client.tell(&format!("connect {asked}"));
            assert_eq!(answer, format!("peer {asked}"));
        }
        let got = accepted(listeners, at(asked));
        assert_eq!(got.iter().sum::<usize>(), 64, "{asked}");
        assert!(got.iter().all(|hits| *hits >= 16), "{asked}: {got:?}");
    }
    client.tell("connect [::ffff:169.254.77.1]:30001");
    let got = accepted(&listeners[..2], at(targets[0]));
    assert_eq!(got.iter().sum::<usize>(), 1, "a v4-mapped client");
    assert_eq!(decoy.hits(), 0);
    // The kernel also looks a socket up for what a client sends to one that is closed by then.
    assert!(counter(&datapath, "target-handed") >= 129);

    // The gateway's end, as a kill would do it.
    drop(listeners);
    for target in targets {
        for _ in 0..16 {
            datapath.heartbeat().unwrap();
            assert_eq!(client.tell(&format!("connect {target}")), REFUSED);
        }
    }
    assert_eq!(decoy.hits(), 0);
    assert!(counter(&datapath, "target-refused-gateway-gone") >= 34);
    for target in targets {
        datapath.remove_target(at(target)).unwrap();
        client.tell(&format!("connect {target}"));
        assert_eq!(decoy.hits(), 1, "{target} is a port like any other again");
    }
    datapath.remove().unwrap();
}

#[test]
fn whatever_is_no_target_is_left_alone() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    scene::ip("addr add 169.254.77.2/32 dev lo");
    let datapath = scene.start();
    let mut client = scene.client("pod");
    let listeners = private(&["127.0.0.1:0", "[::1]:0"]);
    name(&datapath, &listeners);
    datapath.set_target(at("169.254.77.1:30001"), 7).unwrap();
    let (ssh, decoy) = (Decoy::new(22), Decoy::new(30001));
    for (asked, listener) in [
        ("169.254.77.1:22", &ssh),
        ("[fd77:636c::1]:22", &ssh),
        ("169.254.77.2:30001", &decoy),
        ("[fd77:636c::1]:30001", &decoy),
        ("127.0.0.1:30001", &decoy),
    ] {
        let answer = client.tell(&format!("connect {asked}"));
        assert_eq!(answer, format!("peer {asked}"));
        assert_eq!(listener.hits(), 1, "{asked}");
    }
    let datagrams = UdpSocket::bind("169.254.77.1:30001").unwrap();
    datagrams
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    assert_eq!(client.tell("send 169.254.77.1:30001"), "sent");
    assert_eq!(datagrams.recv(&mut [0; 8]).unwrap(), 1);
    assert_eq!(counter(&datapath, "target-handed"), 0);
    datapath.remove().unwrap();
}

#[test]
fn a_gateway_that_is_not_heard_of_gets_no_client_of_the_service_path() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    let mut client = scene.client("pod");
    let decoy = Decoy::new(30001);
    let listeners = private(&["127.0.0.1:0"]);
    name(&datapath, &listeners);
    let target = at("169.254.77.1:30001");
    datapath.set_target(target, 7).unwrap();
    datapath.heartbeat().unwrap();
    let connect = format!("connect {target}");
    assert_eq!(client.tell(&connect), format!("peer {target}"));
    eventually("connections are refused", || {
        (client.tell(&connect) == REFUSED).then_some(())
    });
    assert_eq!(counter(&datapath, "target-refused-gateway-stale"), 1);
    accepted(&listeners, target);
    datapath.heartbeat().unwrap();
    assert_eq!(client.tell(&connect), format!("peer {target}"));
    assert_eq!(accepted(&listeners, target), [1]);
    assert_eq!(decoy.hits(), 0);
    datapath.remove().unwrap();
}

#[test]
fn a_killed_gateways_targets_are_refused_until_its_successor_serves_them() {
    if privileged() {
        take_over(false);
    }
}

#[test]
fn a_successor_that_is_bypassed_while_it_starts_gives_no_target_away() {
    if privileged() {
        take_over(true);
    }
}

fn take_over(pass_when_stale: bool) {
    let mut scene = Scene::new();
    scene.listeners.clear();
    let (mut peer, answer) = OtherPeer::start(&scene, &scene.bpf_dir, &scene.cgroup);
    assert_eq!(answer, "ready");
    let decoy = Decoy::new(at(TARGET).port());
    let stop = AtomicBool::new(false);
    let link = scene.pins().join("links/target_lookup");
    let link_id = || scene::bpftool(&["link", "show", "pinned", &link.to_string_lossy()]);
    let (served, datapath, listeners) = thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut served = 0;
            while !stop.load(Relaxed) {
                served += usize::from(std::net::TcpStream::connect(TARGET).is_ok());
            }
            served
        });
        let before = link_id();
        peer.kill();
        let mut config = scene.config();
        config.pass_when_stale = pass_when_stale;
        let datapath = started(config);
        assert_eq!(datapath.targets().unwrap(), [(at(TARGET), 9)]);
        let number = |shown: &str| shown.split(':').next().map(str::to_owned);
        assert_eq!(
            number(&link_id()),
            number(&before),
            "the program was replaced in its place"
        );
        let listeners = private(&["127.0.0.1:0"]);
        name(&datapath, &listeners);
        eventually("the successor serves", || {
            datapath.heartbeat().unwrap();
            listeners[0].accept().ok()
        });
        stop.store(true, Relaxed);
        (clients.join().unwrap(), datapath, listeners)
    });
    assert!(served > 0);
    assert_eq!(decoy.hits(), 0);
    drop(listeners);
    datapath.remove().unwrap();
}

#[test]
fn a_cleanup_gives_the_ports_back() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let datapath = scene.start();
    let target = at("169.254.77.1:30001");
    datapath.set_target(target, 7).unwrap();
    let mut client = scene.client("pod");
    let decoy = Decoy::new(target.port());
    assert_eq!(client.tell(&format!("connect {target}")), REFUSED);
    drop(datapath);
    assert_eq!(client.tell(&format!("connect {target}")), REFUSED);
    let removed = cleanup(&scene.bpf_dir).unwrap();
    assert!(
        removed
            .links
            .iter()
            .any(|link| link.ends_with("target_lookup")),
        "{removed:?}"
    );
    client.tell(&format!("connect {target}"));
    assert_eq!(decoy.hits(), 1);
}

#[test]
fn a_peer_without_the_service_path_takes_no_port() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let target = at("169.254.77.1:30001");
    let datapath = scene.start();
    datapath.set_target(target, 7).unwrap();
    drop(datapath);
    let mut config = scene.config();
    config.service_path = false;
    let datapath = started(config);
    assert!(!scene.pins().join("links/target_lookup").exists());
    let mut client = scene.client("pod");
    let decoy = Decoy::new(target.port());
    client.tell(&format!("connect {target}"));
    assert_eq!(decoy.hits(), 1);
    datapath.remove().unwrap();
}

#[test]
fn a_link_that_outlived_its_network_is_made_anew() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let target = at("169.254.77.1:30001");
    let datapath = scene.start();
    datapath.set_target(target, 7).unwrap();
    drop(datapath);
    // As when a container is started again: the pins are there, the network is another one.
    scene::enter_new_network();
    let datapath = started(scene.config());
    let listeners = private(&["127.0.0.1:0"]);
    name(&datapath, &listeners);
    let mut client = scene.client("pod");
    let answer = client.tell(&format!("connect {target}"));
    assert_eq!(answer, format!("peer {target}"));
    assert_eq!(accepted(&listeners, target), [1]);
    datapath.remove().unwrap();
}
