//! The whole process of a node but for its controller: with a datapath in memory, and, as root, with
//! the kernel's. Run with `--test-threads=1`.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "node/agent.rs"]
mod agent;
#[path = "datapath/scene.rs"]
#[expect(dead_code, reason = "most of it is for the tests of the datapath")]
mod scene;

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use agent::{Node, address, allow_all, complete, deny_pod, import, leased, peer, pod};
use clusterlink_agent::datapath::{Datapath as _, MemoryDatapath, Write, cleanup};
use clusterlink_model::{ObjectName, ResourceKey};
use scene::{Scene, eventually, privileged};

/// Child processes run this one alone; by itself it does nothing.
#[test]
fn plays_its_role_in_another_process() {
    scene::play_role();
}

#[test]
fn a_node_is_not_ready_and_steers_nothing_before_the_first_snapshot() {
    let node = Node::new();
    let datapath = Arc::new(MemoryDatapath::new());
    let agent = node.start(datapath.clone());
    let (code, text) = agent.get("/readyz");
    assert_eq!(code, 503);
    assert!(
        text.contains("waiting for the first complete snapshot"),
        "{text}"
    );
    assert_eq!(agent.get("/livez").0, 200);
    eventually("a report", || {
        let report = agent.report();
        let waits = report
            .waits_for
            .iter()
            .any(|what| what.contains("snapshot"));
        waits.then_some(())
    });
    assert_eq!(datapath.heartbeats(), 0, "other agents serve until then");
    agent.serves([import("cart", 80)]);
    assert!(datapath.heartbeats() > 0);
    assert_eq!(datapath.services().unwrap(), [(address(80), 0)]);
    eventually("it is said what is steered", || {
        let steered = agent.steered.borrow().clone()?;
        assert_eq!(*steered, [address(80).ip()].into());
        Some(())
    });
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    eventually("a report of what is new", || {
        let report = agent.report();
        let fresh = report.waits_for.is_empty() && report.listening.contains(&port);
        fresh.then_some(())
    });
    let report = agent.report();
    assert!(report.steering.on, "{report:?}");
    for (own, purpose) in [
        (agent.metrics.port(), "metrics (--metrics)"),
        (agent.steering.port(), "steered connections"),
    ] {
        assert!(!report.listening.contains(&own), "{own} is the agent's");
        assert_eq!(report.own_ports[&own], purpose);
    }
    let said: Vec<_> = report.own_ports.values().collect();
    assert!(
        said.contains(&&"other peers (--listen)".to_owned()),
        "{said:?}"
    );
    assert_eq!(report.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    agent.stop();
}

/// Waits until these are what the hooks steer.
fn steers(datapath: &MemoryDatapath, services: &[(SocketAddr, u32)]) {
    eventually("it steers what it should", || {
        (datapath.services().unwrap() == services).then_some(())
    });
}

/// Connects until nobody accepts any more: not before hooks take the agent for gone, which is two
/// seconds after it was asked to stop.
fn accepts_until_hooks_leave_it_alone(address: SocketAddr, asked: Instant) {
    let mut accepted_until = asked.elapsed();
    loop {
        match TcpStream::connect(address) {
            // The gateway resets what has no origin: that it accepted shows in the end of the connection.
            Ok(mut stream) => drop(stream.read(&mut [0])),
            // It did so before the connect had returned.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
                break;
            }
        }
        accepted_until = asked.elapsed();
        assert!(accepted_until < Duration::from_secs(10), "it does not stop");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        accepted_until > Duration::from_secs(2),
        "{accepted_until:?}"
    );
}

/// Whether a connect got to the gateway. It resets at once what it cannot deliver, since the peer here
/// has no gateways, and that may be before the client has looked (ECONNRESET, ENOTCONN).
fn is_steered(answer: &str) -> bool {
    ["peer 10.96.0.7:80", "errno 104", "errno 107"].contains(&answer)
}

#[test]
fn a_stop_is_told_first_and_nobody_is_turned_away_while_hooks_may_still_steer() {
    let node = Node::new();
    let datapath = Arc::new(MemoryDatapath::new());
    let agent = node.start(datapath.clone());
    agent.serves([import("cart", 80)]);
    steers(&datapath, &[(address(80), 0)]);
    datapath.take_writes();
    agent.asks_to_stop();
    let asked = Instant::now();
    eventually("it is said", || {
        let (code, text) = agent.get("/readyz");
        (code == 503 && text.contains("draining")).then_some(())
    });
    eventually("the report says so", || {
        let report = agent.report();
        (report
            .waits_for
            .iter()
            .any(|what| what.contains("draining")))
        .then_some(())
    });
    let beats = datapath.heartbeats();
    accepts_until_hooks_leave_it_alone(agent.steering, asked);
    assert_eq!(
        datapath.heartbeats(),
        beats,
        "hooks are told nothing any more"
    );
    agent.ends();
    assert_eq!(datapath.services().unwrap(), [(address(80), 0)]);
    assert_eq!(
        datapath.take_writes(),
        [],
        "everything is left to the next agent"
    );
}

#[test]
fn the_next_agent_serves_without_a_controller_what_the_last_one_knew() {
    let node = Node::new();
    let datapath = Arc::new(MemoryDatapath::new());
    let agent = node.start(datapath.clone());
    agent.serves([import("cart", 80)]);
    agent.stop();
    datapath.take_writes();
    let beats = datapath.heartbeats();
    let agent = node.start(datapath.clone());
    assert_eq!(
        agent.get("/readyz").0,
        503,
        "the controller may still answer"
    );
    agent.is_ready();
    assert!(datapath.heartbeats() > beats);
    let removed = |write: &Write| matches!(write, Write::ServiceRemoved(_));
    assert!(
        !datapath.take_writes().iter().any(removed),
        "it was steered all the time"
    );
    assert!(datapath.allows(1, 0), "the host may, as before");
    // The controller is back with something else.
    agent.tell(complete(vec![import("other", 81)]));
    steers(&datapath, &[(address(81), 1)]);
    agent.stop();
}

#[test]
fn what_is_steered_is_said_once_the_controller_has_told_everything() {
    let node = Node::new();
    let datapath = Arc::new(MemoryDatapath::new());
    let agent = node.start(datapath.clone());
    agent.serves([import("cart", 80)]);
    agent.stop();
    let agent = node.start(datapath.clone());
    assert_eq!(*agent.steered.borrow(), None, "what is pinned is steered");
    agent.is_ready();
    let pinned = [(address(80), 0)];
    assert_eq!(datapath.services().unwrap(), pinned, "and what was kept");
    assert_eq!(*agent.steered.borrow(), None, "the controller is away");
    agent.tell(complete(vec![peer()]));
    agent.is_heard();
    let steered = eventually("it is said", || agent.steered.borrow().clone());
    assert_eq!(*steered, [].into(), "never what was only kept");
    assert_eq!(datapath.services().unwrap(), []);
    agent.stop();
}

#[test]
fn what_was_let_go_of_is_not_steered_by_the_next_agent_either() {
    let node = Node::new();
    let datapath = Arc::new(MemoryDatapath::new());
    let agent = node.start(datapath.clone());
    agent.serves([import("cart", 80)]);
    steers(&datapath, &[(address(80), 0)]);
    let question = agent.released.ask([address(80).ip()].into(), false);
    eventually("the question is in force", || {
        (agent.question_in_force() >= question).then_some(())
    });
    assert_eq!(datapath.services().unwrap(), []);
    // As if it were killed: what it was told last still names the address.
    agent.stop();
    let agent = node.start(datapath.clone());
    agent.is_ready();
    assert_eq!(datapath.services().unwrap(), [], "the controller is away");
    agent.serves([import("cart", 80)]);
    eventually("it says so", || agent.steered.borrow().clone());
    assert_eq!(
        datapath.services().unwrap(),
        [],
        "a late controller names it"
    );
    agent.released.ask([].into(), false);
    steers(&datapath, &[(address(80), 0)]);
    agent.stop();
    node.forget("released");
    let agent = node.start(datapath.clone());
    agent.is_ready();
    assert_eq!(
        datapath.services().unwrap(),
        [],
        "nobody knows what was asked"
    );
    agent.released.ask([].into(), false);
    steers(&datapath, &[(address(80), 0)]);
    agent.stop();
}

#[test]
fn a_node_that_was_never_told_its_addresses_are_still_good_steers_none() {
    let node = Node::new();
    let datapath = Arc::new(MemoryDatapath::new());
    let agent = node.start(datapath.clone());
    agent.serves([import("cart", 80)]);
    agent.stop();
    assert_eq!(datapath.services().unwrap().len(), 1);
    node.forget("last-contact");
    let agent = node.start(datapath.clone());
    agent.is_ready();
    assert_eq!(
        datapath.services().unwrap(),
        [],
        "an address may be another's by now"
    );
    agent.is_heard();
    // A contact is a new lease.
    steers(&datapath, &[(address(80), 0)]);
    agent.stop();
}

#[test]
fn no_connect_fails_while_one_agent_follows_another_on_a_real_kernel() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let node = Node::on_kernel(&scene.cgroup, &scene.bpf_dir);
    // What kube-proxy would do with the address.
    scene::ip("addr add 10.96.0.7/32 dev lo");
    let service_path = TcpListener::bind(address(80)).unwrap();
    let first = node.start_on_kernel();
    first.serves([import("cart", 80)]);
    let mut client = scene.client("kubepods/podclient");
    // The pod is not announced: it is unknown, so that the gateway judges it.
    assert!(is_steered(&client.tell("connect 10.96.0.7:80")));
    service_path.set_nonblocking(true).unwrap();
    assert!(service_path.accept().is_err(), "it was steered");

    let over = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let mut outcomes = Vec::new();
            while !over.load(Relaxed) {
                outcomes.push(client.tell("connect 10.96.0.7:80"));
                client.tell("close");
                while service_path.accept().is_ok() {}
                std::thread::sleep(Duration::from_millis(2));
            }
            outcomes
        });
        first.stop();
        let second = node.start_on_kernel();
        second.serves([import("cart", 80)]);
        let mut probe = scene.client("kubepods/podprobe");
        eventually("the second steers", || {
            while service_path.accept().is_ok() {}
            assert!(is_steered(&probe.tell("connect 10.96.0.7:80")));
            let elsewhere = (0..3).any(|_| service_path.accept().is_ok());
            (!elsewhere).then_some(())
        });
        over.store(true, Relaxed);
        let outcomes = storm.join().unwrap();
        second.stop();
        outcomes
    });
    let failed: Vec<_> = outcomes.iter().filter(|one| !is_steered(one)).collect();
    println!(
        "{} connects over the change of agents, {} failed",
        outcomes.len(),
        failed.len()
    );
    assert!(outcomes.len() > 100, "{}", outcomes.len());
    assert!(failed.is_empty(), "{failed:?}");
    assert!(scene.bpf_dir.exists(), "pins are left");
    let removed = cleanup(&scene.bpf_dir).unwrap();
    assert!(!removed.links.is_empty() && !removed.maps.is_empty());
}

#[test]
fn a_kernel_that_does_not_steer_leaves_the_service_path_and_the_report_says_why() {
    let node = Node::new();
    let agent = node.start_without_steering();
    agent.serves([import("cart", 80)]);
    let steering = eventually("a report", || {
        let report = agent.report();
        let ready = report.waits_for.is_empty() && !report.software.is_empty();
        ready.then(|| report.steering.clone())
    });
    assert!(!steering.on);
    assert!(
        steering
            .reason
            .is_some_and(|why| why.contains("--ebpf off"))
    );
    agent.stop();
}

/// The address of a node that serves target ports on this host.
const HERE: [u8; 4] = [127, 0, 3, 2];

fn listener() -> TcpListener {
    TcpListener::bind((IpAddr::from(HERE), 0)).unwrap()
}

fn free_port() -> SocketAddr {
    listener().local_addr().unwrap()
}

#[test]
fn a_node_without_the_kernel_listens_at_target_ports_and_says_which_it_cannot_have() {
    let node = Node::new().at(HERE.into());
    let agent = node.start_without_steering();
    let other = listener();
    let (ours, taken) = (free_port(), other.local_addr().unwrap());
    agent.serves([
        leased("cart", 80, ours.port()),
        leased("till", 81, taken.port()),
    ]);
    eventually("it is open", || TcpStream::connect(ours).ok());
    let later = listener().local_addr().unwrap().port();
    let _later = TcpListener::bind((IpAddr::from(HERE), later)).unwrap();
    let report = eventually("a report of what is new", || {
        let report = agent.report();
        report.listening.contains(&later).then_some(report)
    });
    assert!(!report.listening.contains(&ours.port()), "{report:?}");
    assert!(report.listening.contains(&taken.port()), "{report:?}");
    let [rejected] = &report.rejected[..] else {
        panic!("{:?}", report.rejected);
    };
    let till = ObjectName::new("shop", "till");
    assert_eq!(rejected.key, ResourceKey::Import(till));
    assert!(rejected.reason.contains(&taken.to_string()), "{rejected:?}");
    let says = |line: &str| {
        let (_, text) = agent.get("/metrics");
        assert!(text.contains(line), "{line}: {text}");
    };
    says("\nclusterlink_agent_steering 0\n");
    says("\nclusterlink_gateway_target_listeners 1\n");
    says("\nclusterlink_gateway_target_listeners_missing 1\n");

    drop(other);
    eventually("the port is free, and open", || {
        TcpStream::connect(taken).ok()
    });
    eventually("that is said", || {
        agent.report().rejected.is_empty().then_some(())
    });
    says("\nclusterlink_gateway_target_listeners 2\n");
    agent.stop();
}

#[test]
fn a_node_without_the_kernel_serves_on_until_others_know_that_it_stops() {
    let node = Node::new().at(HERE.into());
    let agent = node.start_without_steering();
    let ours = free_port();
    agent.serves([leased("cart", 80, ours.port())]);
    eventually("it is open", || TcpStream::connect(ours).ok());
    agent.asks_to_stop();
    let asked = Instant::now();
    eventually("it is said", || {
        (agent.get("/readyz").0 == 503).then_some(())
    });
    accepts_until_hooks_leave_it_alone(ours, asked);
    agent.ends();
    TcpListener::bind(ours).expect("nothing is left");
}

#[test]
fn what_an_earlier_agent_left_in_the_kernel_refuses_nobody_once_one_listens_itself() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let node = Node::on_kernel(&scene.cgroup, &scene.bpf_dir).at(HERE.into());
    let first = node.start_on_kernel();
    let ours = free_port();
    first.serves([leased("cart", 80, ours.port())]);
    eventually("the kernel hands it over", || TcpStream::connect(ours).ok());
    first.stop();
    assert!(scene.bpf_dir.exists(), "pins are left");
    let anybody = TcpListener::bind(ours).unwrap();
    TcpStream::connect(ours).expect_err("what is pinned lets nobody have them");
    drop(anybody);

    let second = node.start_without_steering();
    assert!(!scene.bpf_dir.exists(), "pins are removed");
    second.is_ready();
    eventually("it is open", || TcpStream::connect(ours).ok());
    second.stop();
    assert!(!scene.bpf_dir.exists());
}

#[test]
fn a_pods_first_connect_is_judged_as_its_own_and_an_unknown_pod_is_not_the_host() {
    if !privileged() {
        return;
    }
    const DENIED: &str = "errno 111";
    let scene = Scene::new();
    let node = Node::on_kernel(&scene.cgroup, &scene.bpf_dir);
    let agent = node.start_on_kernel();
    // Announced, as a pod is when it is bound to the node: its cgroup comes later.
    let uid = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
    agent.tell(complete(vec![
        import("cart", 80),
        peer(),
        allow_all(),
        pod("web", uid),
        deny_pod("web"),
    ]));
    agent.is_heard();
    agent.is_ready();
    eventually("steered", || {
        let steered = agent.steered.borrow().clone()?;
        steered.contains(&address(80).ip()).then_some(())
    });
    let mut denied = scene.client(&format!("kubepods/burstable/pod{uid}/container"));
    assert_eq!(
        denied.tell("connect 10.96.0.7:80"),
        DENIED,
        "the first time too"
    );
    let mut host = scene.client("system.slice");
    assert!(is_steered(&host.tell("connect 10.96.0.7:80")));

    // Now the host is denied as well. It shares its network with all pods here.
    agent.tell(complete(vec![import("cart", 80), peer(), pod("web", uid)]));
    eventually("nothing is allowed", || {
        (host.tell("connect 10.96.0.7:80") == DENIED).then_some(())
    });
    let mut unknown = scene.client("kubepods/burstable/podunknown/container");
    assert!(
        is_steered(&unknown.tell("connect 10.96.0.7:80")),
        "the gateway judges it: the kernel does not take it for the host"
    );
    agent.stop();
    drop((denied, host, unknown));
}
