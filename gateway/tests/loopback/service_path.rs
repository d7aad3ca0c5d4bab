//! Clients that come by the Service path: who they are by their address, and what becomes of those of
//! whom that does not say enough.

mod listeners;

use std::{
    collections::HashMap,
    future::Future,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::BorrowedFd,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use clusterlink_gateway::{
    ServicePath,
    flow::{EndReason, FlowRecord},
    view::{Connection, Found, Origin, Origins},
};
use clusterlink_model::{
    Action, Client, LbScheme, ObjectName, Operator, Policy, PolicyName, Requirement, Selector,
    WorkloadAttributes,
};

use crate::support::{Authority, Node, allow_all, eventually, export, import};

const POD: [u8; 4] = [127, 0, 1, 1];
const HOST: [u8; 4] = [127, 0, 1, 2];
const OUTSIDE: [u8; 4] = [127, 0, 1, 3];
const FOUND: [u8; 4] = [127, 0, 1, 4];
const NOBODY: [u8; 4] = [127, 0, 1, 5];
const SLOW: [u8; 4] = [127, 0, 1, 6];
const NODE: [u8; 4] = [127, 0, 1, 7];

/// The cgroup of whoever connects from [`NODE`].
const OF_NODE: u64 = 77;

/// What is known of addresses, and what looking one up comes to: `None` is no answer at all.
#[derive(Default)]
struct Addresses {
    known: Mutex<HashMap<IpAddr, Client>>,
    /// Who is in the cgroup [`OF_NODE`].
    of_node: Mutex<Option<Client>>,
    answers: HashMap<IpAddr, Option<Client>>,
    asked: AtomicUsize,
}

impl Addresses {
    fn set(&self, address: [u8; 4], client: Client) {
        self.known.lock().unwrap().insert(address.into(), client);
    }
}

impl Origins for Addresses {
    fn origin(&self, _socket: BorrowedFd<'_>) -> io::Result<Option<Origin>> {
        Ok(Some(Origin {
            import: 1,
            destination: "10.114.0.1:80".parse().unwrap(),
            cgroup: 1,
            cookie: 1,
            same_namespace: false,
        }))
    }

    /// A steered client is the one that its address says, as it is with a pod's cgroup.
    fn client(&self, origin: &Origin, source: SocketAddr) -> Client {
        if origin.cgroup != OF_NODE {
            return self.client_at(source);
        }
        assert!(origin.same_namespace);
        self.of_node.lock().unwrap().clone().unwrap()
    }

    fn client_at(&self, source: SocketAddr) -> Client {
        let known = self.known.lock().unwrap();
        known.get(&source.ip()).cloned().unwrap_or(Client::Unknown)
    }

    fn look_up(&self, connection: Connection) -> Pin<Box<dyn Future<Output = Found> + Send + '_>> {
        let Connection {
            source,
            destination,
            asked,
        } = connection;
        assert_eq!(asked, destination, "nobody translated it");
        self.asked.fetch_add(1, Relaxed);
        Box::pin(async move {
            match self.answers.get(&source.ip()) {
                Some(Some(client)) => Found {
                    client: client.clone(),
                    cgroup: (source.ip() == IpAddr::from(NODE)).then_some(OF_NODE),
                },
                Some(None) | None => std::future::pending().await,
            }
        })
    }
}

fn pod(name: &str, namespace: &str) -> Client {
    Client::Pod {
        name: ObjectName::new(namespace, name),
        attributes: Arc::new(WorkloadAttributes {
            namespace: namespace.into(),
            service_account: "default".into(),
            labels: Default::default(),
        }),
    }
}

/// An importing gateway with a Service path, an exporting one, and a backend that says hello.
struct Scene {
    client: Node,
    server: Node,
    addresses: Arc<Addresses>,
}

impl Scene {
    fn new(answers: &[([u8; 4], Option<Client>)]) -> Self {
        let handed_over = ServicePath::HandedOver(vec![Ipv4Addr::LOCALHOST.into()]);
        let scene = Self::with(answers, handed_over);
        scene.client.lease_targets();
        scene
    }

    fn with(answers: &[([u8; 4], Option<Client>)], service_path: ServicePath) -> Self {
        let answers = answers.iter().cloned();
        let addresses = Arc::new(Addresses {
            answers: answers.map(|(at, client)| (at.into(), client)).collect(),
            ..Addresses::default()
        });
        let authority = Authority::new();
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Node::start(&authority, "server", 1);
        let client = Node::start_with(&authority, "client", 2, addresses.clone(), service_path);
        let address = backend.local_addr().unwrap();
        server.change(|snapshot| {
            allow_all(snapshot);
            export(snapshot, &[address]);
        });
        let gateway = server.gateway.listen_address();
        client.change(|snapshot| {
            allow_all(snapshot);
            import(snapshot, LbScheme::Static, &[("server", gateway)]);
        });
        thread::spawn(move || {
            for socket in backend.incoming() {
                thread::spawn(move || -> io::Result<()> {
                    let mut socket = socket?;
                    socket.write_all(b"hello")?;
                    socket.read_to_end(&mut Vec::new())?;
                    Ok(())
                });
            }
        });
        Self {
            client,
            server,
            addresses,
        }
    }

    /// Connects from an address, and reads what the backend says.
    fn ask(&self, from: [u8; 4]) -> io::Result<TcpStream> {
        ask(from, self.client.targets()[0])
    }

    /// The record of the only client of this address that has ended.
    fn ended(&self, from: [u8; 4]) -> FlowRecord {
        let of = |record: &FlowRecord| {
            record.client_address.map(|address| address.ip()) == Some(from.into())
        };
        let flows = self.client.gateway.flows();
        eventually("the flow is logged", || flows.recent().iter().any(of));
        flows.recent().into_iter().find(of).unwrap()
    }
}

fn ask(from: [u8; 4], to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    let mut socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut hello = [0; 5];
    socket.read_exact(&mut hello)?;
    assert_eq!(&hello, b"hello");
    Ok(socket)
}

fn deny(namespace: &str) -> (PolicyName, Arc<Policy>) {
    let name = PolicyName::Privileged("deny".into());
    let from = Selector {
        requirements: vec![Requirement {
            key: "client.clusterlink.net/namespace".to_owned(),
            operator: Operator::In(vec![namespace.to_owned()]),
        }],
    };
    let policy = Policy {
        name: name.clone(),
        action: Action::Deny,
        from: vec![from],
        to: vec![Selector::default()],
    };
    (name, Arc::new(policy))
}

#[test]
fn a_known_client_is_served_at_every_listener_under_its_own_name() {
    let scene = Scene::new(&[]);
    scene.addresses.set(POD, pod("web", "shop"));
    scene.addresses.set(HOST, Client::Host);
    for target in scene.client.targets() {
        for (from, shown, attested) in [
            (POD, "pod shop/web", "shop/serviceaccount default"),
            (HOST, "host", "host"),
        ] {
            let socket = ask(from, target).unwrap();
            let here = scene.client.gateway.flows().live();
            assert_eq!(here.len(), 1, "{shown}");
            assert_eq!(here[0].client, shown);
            assert_eq!(here[0].client_address.unwrap().ip(), IpAddr::from(from));
            assert_eq!(scene.server.gateway.flows().live()[0].client, attested);
            drop(socket);
            for node in [&scene.client, &scene.server] {
                eventually("the flow ends", || node.gateway.flows().live().is_empty());
            }
        }
    }
    assert_eq!(
        scene.addresses.asked.load(Relaxed),
        0,
        "nobody is looked up"
    );
}

#[test]
fn an_outside_client_is_refused_unless_its_range_is_opened() {
    let scene = Scene::new(&[]);
    scene.addresses.set(OUTSIDE, Client::Outside);
    assert!(scene.ask(OUTSIDE).is_err());
    let record = scene.ended(OUTSIDE);
    assert_eq!(record.reason, Some(EndReason::Outside));
    assert_eq!(record.client, "outside");
    let open = |ranges: &[&str]| {
        let ranges: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
        scene.client.view.send_modify(|view| {
            let mut next = (**view).clone();
            next.generation += 1;
            next.outside_ranges = ranges.into();
            *view = Arc::new(next);
        });
    };
    open(&["127.0.2.0/24"]);
    assert!(scene.ask(OUTSIDE).is_err(), "another range is opened");
    open(&["127.0.2.0/24", "127.0.1.3/32"]);
    let mut served = None;
    eventually("it is served", || {
        served = scene.ask(OUTSIDE).ok();
        served.is_some()
    });
    // The range is closed again: who is connected is cut.
    open(&[]);
    let end = served.unwrap().read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn an_unknown_client_is_looked_up_and_has_the_name_that_was_found() {
    let scene = Scene::new(&[
        (FOUND, Some(pod("far", "shop"))),
        (NOBODY, Some(Client::Unknown)),
        (OUTSIDE, Some(Client::Outside)),
    ]);
    let _served = scene.ask(FOUND).unwrap();
    assert_eq!(
        scene.client.gateway.flows().live()[0].client,
        "pod shop/far"
    );
    let begin = Instant::now();
    assert!(scene.ask(NOBODY).is_err());
    assert_eq!(scene.ended(NOBODY).reason, Some(EndReason::IdentityUnknown));
    assert!(scene.ask(OUTSIDE).is_err());
    assert_eq!(scene.ended(OUTSIDE).reason, Some(EndReason::Outside));
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "an answer ends the wait: {:?}",
        begin.elapsed()
    );
    assert_eq!(scene.addresses.asked.load(Relaxed), 3);
}

#[test]
fn a_client_that_nobody_answers_for_is_refused_after_two_seconds() {
    let scene = Scene::new(&[(SLOW, None)]);
    let begin = Instant::now();
    let refused = scene.ask(SLOW).unwrap_err();
    let took = begin.elapsed();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionReset);
    assert!(
        took > Duration::from_millis(1_900) && took < Duration::from_secs(5),
        "{took:?}"
    );
    let record = scene.ended(SLOW);
    assert_eq!(record.reason, Some(EndReason::IdentityUnknown));
    assert!(record.detail.unwrap().contains("127.0.1.6"));
}

#[test]
fn a_client_that_is_announced_while_it_is_held_is_served() {
    let scene = Scene::new(&[(SLOW, None)]);
    thread::scope(|scope| {
        let asking = scope.spawn(|| scene.ask(SLOW));
        eventually("it is held", || scene.addresses.asked.load(Relaxed) == 1);
        scene.addresses.set(SLOW, pod("late", "shop"));
        scene.client.change(|_| {});
        asking.join().unwrap().unwrap();
    });
    assert_eq!(scene.ended(SLOW).client, "pod shop/late");
}

#[test]
fn a_connection_to_a_port_that_no_import_has_is_reset() {
    let scene = Scene::new(&[]);
    scene.addresses.set(POD, pod("web", "shop"));
    scene.ask(POD).unwrap();
    scene.client.view.send_modify(|view| {
        let mut next = (**view).clone();
        next.targets = Arc::default();
        *view = Arc::new(next);
    });
    eventually("it is reset", || {
        scene
            .ask(POD)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    });
}

#[test]
fn a_policy_says_the_same_of_both_ways() {
    let scene = Scene::new(&[]);
    scene.addresses.set(POD, pod("web", "shop"));
    scene.addresses.set(HOST, Client::Host);
    scene
        .client
        .change(|snapshot| drop(snapshot.policies.insert(deny("shop").0, deny("shop").1)));
    for to in [scene.client.targets()[0], scene.client.steering] {
        eventually("the pod is denied", || ask(POD, to).is_err());
        assert!(ask(HOST, to).is_ok());
    }
    eventually("both refusals are logged with their reason", || {
        let flows = scene.client.gateway.flows().recent();
        let of_pod = flows.iter().filter(|flow| flow.client == "pod shop/web");
        of_pod
            .filter(|flow| flow.reason == Some(EndReason::Denied))
            .count()
            == 2
    });
}

#[test]
fn an_open_flow_keeps_its_name_when_the_address_is_forgotten_and_is_judged_by_it() {
    let scene = Scene::new(&[]);
    scene.addresses.set(POD, pod("web", "shop"));
    let mut socket = scene.ask(POD).unwrap();
    scene.addresses.set(POD, Client::Unknown);
    scene.client.change(|_| {});
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let quiet = socket.read(&mut [0]).unwrap_err();
    assert_eq!(quiet.kind(), io::ErrorKind::WouldBlock, "it goes on");
    let (name, policy) = deny("shop");
    scene
        .client
        .change(|snapshot| drop(snapshot.policies.insert(name, policy)));
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let end = socket.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(scene.ended(POD).reason, Some(EndReason::Denied));
}

/// Waits for the reset of a client that is denied now, for as long as a change may take to apply.
fn is_cut(mut socket: TcpStream) {
    let begin = Instant::now();
    let end = socket.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_client_that_was_found_by_its_socket_is_judged_by_what_its_cgroup_says_now() {
    let scene = Scene::new(&[(NODE, Some(pod("proxy", "shop")))]);
    let of_node = |client| *scene.addresses.of_node.lock().unwrap() = Some(client);
    of_node(pod("proxy", "shop"));
    let (name, policy) = deny("changed");
    (scene.client).change(|snapshot| drop(snapshot.policies.insert(name, policy)));
    let socket = scene.ask(NODE).unwrap();
    of_node(pod("proxy", "changed"));
    scene.client.change(|_| {});
    is_cut(socket);
    let record = scene.ended(NODE);
    assert_eq!(record.reason, Some(EndReason::Denied));
    assert_eq!(scene.addresses.asked.load(Relaxed), 1);
}

#[test]
fn a_pod_that_is_forgotten_while_it_is_connected_is_looked_up_again() {
    let scene = Scene::new(&[(POD, Some(pod("web", "changed")))]);
    scene.addresses.set(POD, pod("web", "shop"));
    let (name, policy) = deny("changed");
    (scene.client).change(|snapshot| drop(snapshot.policies.insert(name, policy)));
    let sockets = [scene.ask(POD).unwrap(), scene.ask(POD).unwrap()];
    assert_eq!(scene.addresses.asked.load(Relaxed), 0);
    scene.addresses.set(POD, Client::Unknown);
    scene.client.change(|_| {});
    for socket in sockets {
        is_cut(socket);
    }
    assert_eq!(scene.ended(POD).reason, Some(EndReason::Denied));
}
