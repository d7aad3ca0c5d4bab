//! The Service path as a whole: the kernel, the state of a node and its gateway, and another peer.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    num::{NonZeroU16, NonZeroUsize},
    os::fd::AsFd,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use clusterlink_agent::{
    datapath::{Datapath, MemoryDatapath},
    state::{self, State},
};
use clusterlink_gateway::{
    Config, Gateway, ServicePath,
    flow::{EndReason, FlowRecord},
    tls::Credentials,
    view::DialRules,
};
use clusterlink_model::{
    Action, Backend, Endpoint, Export, HostPort, Import, Labels, LbScheme, LocalPeer,
    Node as NodeResource, ObjectName, Operator, Peer, PeerName, Policy, PolicyName, Requirement,
    Resource, Selector, Source, Update, Workload, WorkloadAttributes,
};
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::sync::watch;

use crate::scene::{self, Scene, eventually, privileged};

const PORT: u16 = 30001;
const OWN: [&str; 2] = ["169.254.77.1", "fd77:636c::1"];
const PODS: [&str; 2] = ["10.244.1.5", "fd00:244::5"];
const DENIED_POD: &str = "10.244.1.6";
const OTHER_NODE: &str = "192.0.2.8";
const OUTSIDE: &str = "198.51.100.1";
const OPENED: &str = "203.0.113.1";

fn issuer() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn credentials(issuer: &(Issuer<'static, KeyPair>, String), name: &str, dir: &Path) -> Credentials {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer.0).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("ca.pem"), &issuer.1).unwrap();
    Credentials::load(dir, 1).unwrap()
}

/// A peer of one node: its state and its gateway.
struct Node {
    state: State,
    gateway: Gateway,
    _credentials: watch::Sender<Arc<Credentials>>,
    _dir: tempfile::TempDir,
}

impl Node {
    fn start(
        issuer: &(Issuer<'static, KeyPair>, String),
        name: &str,
        datapath: Arc<dyn Datapath>,
        target_addresses: &[&str],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (credentials, receiver) =
            watch::channel(Arc::new(credentials(issuer, name, dir.path())));
        let config = state::Config {
            local: LocalPeer {
                name: PeerName::new(name).unwrap(),
                labels: Labels::new(),
            },
            require_listed_peers: false,
            dial_rules: DialRules {
                allow_local: true,
                ..DialRules::default()
            },
            cgroup_root: dir.path().to_owned(),
            steered: dir.path().to_owned(),
            finds_pods: false,
            steered_addresses: state::Steered::default(),
            state_dir: dir.path().to_owned(),
            node: Some("here".into()),
            target_addresses: target_addresses.iter().map(|at| ip(at)).collect(),
            host_addresses: Vec::new(),
            gateway_addresses: Vec::new(),
            outside_ranges: vec!["203.0.113.0/24".parse().unwrap()],
        };
        let state = State::new(config, &datapath).unwrap();
        let targets: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let config = Config {
            workers: NonZeroUsize::new(2).unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
            steering: Vec::new(),
            service_path: ServicePath::HandedOver(
                (targets.into_iter().take(target_addresses.len())).collect(),
            ),
            software: "test".to_owned(),
            random_seed: None,
        };
        let origins = Arc::new(state.origins(datapath));
        let gateway = Gateway::start(
            &config,
            receiver,
            state.view(),
            origins,
            &mut Registry::default(),
        )
        .unwrap();
        Self {
            state,
            gateway,
            _credentials: credentials,
            _dir: dir,
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn object(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn complete(upserts: Vec<Resource>) -> Update {
    Update {
        upserts,
        removals: Vec::new(),
        complete: true,
    }
}

fn policy(name: &str, action: Action, from: Selector) -> Resource {
    Resource::Policy(Arc::new(Policy {
        name: PolicyName::Privileged(name.into()),
        action,
        from: vec![from],
        to: vec![Selector::default()],
    }))
}

fn pod(name: &str, address: &str, namespace: &str) -> Resource {
    Resource::Workload(Arc::new(Workload {
        name: ObjectName::new(namespace, name),
        attributes: Arc::new(WorkloadAttributes {
            namespace: namespace.into(),
            service_account: "default".into(),
            labels: Labels::new(),
        }),
        cgroup: None,
        addresses: vec![ip(address)],
        uids: vec![name.into()],
        node: Some("here".into()),
        host_network: false,
    }))
}

/// What the importing peer is told.
fn importing(server: SocketAddr) -> Vec<Resource> {
    let name = PeerName::new("server").unwrap();
    let import = Import {
        name: object("web"),
        labels: Labels::new(),
        addresses: Vec::new(),
        port: NonZeroU16::new(80).unwrap(),
        target_port: NonZeroU16::new(PORT),
        sources: vec![Source {
            peer: name.clone(),
            export: object("web"),
        }],
        scheme: LbScheme::Static,
    };
    let peer = Peer {
        name,
        gateways: vec![HostPort {
            host: server.ip().to_string().into(),
            port: NonZeroU16::new(server.port()).unwrap(),
        }],
        labels: None,
        not_issued_before: None,
    };
    let denied = Selector {
        requirements: vec![Requirement {
            key: "client.clusterlink.net/namespace".to_owned(),
            operator: Operator::In(vec!["denied".to_owned()]),
        }],
    };
    let node = |name: &str, address: &str, range: &str| {
        Resource::Node(Arc::new(NodeResource {
            name: name.into(),
            addresses: vec![ip(address)],
            pod_ranges: vec![range.parse().unwrap()],
            zone: None,
        }))
    };
    vec![
        Resource::Import(Arc::new(import)),
        Resource::Peer(Arc::new(peer)),
        policy("allow", Action::Allow, Selector::default()),
        policy("deny", Action::Deny, denied),
        node("here", OWN[0], "10.244.1.0/24"),
        node("there", OTHER_NODE, "10.244.2.0/24"),
        pod("v4", PODS[0], "shop"),
        pod("v6", PODS[1], "shop"),
        pod("bad", DENIED_POD, "denied"),
    ]
}

/// Connects from an address of ours, as kube-proxy would bring a client here, and reads a greeting.
fn ask(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let domain = socket2::Domain::for_address(to);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(3))?;
    let mut socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.read_exact(&mut [0; 5])?;
    Ok(socket)
}

#[test]
fn clients_of_the_service_path_reach_another_peer_under_their_own_names() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let others = [DENIED_POD, OTHER_NODE, OUTSIDE, OPENED];
    for address in PODS.iter().chain(&others) {
        let length = if address.contains(':') { "128" } else { "32" };
        scene::ip(&format!("addr add {address}/{length} dev lo"));
    }
    let issuer = issuer();
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint {
        address: backend.local_addr().unwrap(),
        node: None,
        zone: None,
    };
    thread::spawn(move || {
        for socket in backend.incoming() {
            thread::spawn(move || -> io::Result<()> {
                let mut socket = socket?;
                socket.write_all(b"hello")?;
                socket.read_to_end(&mut Vec::new()).map(drop)
            });
        }
    });
    let mut server = Node::start(&issuer, "server", Arc::new(MemoryDatapath::new()), &[]);
    server.state.apply(complete(vec![
        policy("allow", Action::Allow, Selector::default()),
        Resource::Export(Arc::new(Export {
            name: object("web"),
            labels: Labels::new(),
            backend: Backend::Endpoints(vec![endpoint]),
        })),
    ]));
    let datapath = Arc::new(scene.start());
    let mut client = Node::start(&issuer, "client", datapath.clone(), &OWN);
    let listeners: Vec<_> = (client.gateway.target_listeners().iter())
        .map(AsFd::as_fd)
        .collect();
    datapath.set_target_listeners(&listeners).unwrap();
    let update = complete(importing(server.gateway.listen_address()));
    client.state.apply(update);

    let [own_v4, own_v6] = OWN.map(|at| SocketAddr::new(ip(at), PORT));
    let mut served = eventually("the first client is served", || {
        datapath.heartbeat().unwrap();
        ask(ip(PODS[0]), own_v4).ok()
    });
    for (from, to, shown, attested) in [
        (
            PODS[0],
            own_v4,
            "pod shop/v4",
            "shop/serviceaccount default",
        ),
        (
            PODS[1],
            own_v6,
            "pod shop/v6",
            "shop/serviceaccount default",
        ),
        (OWN[0], own_v4, "host", "host"),
        (OWN[1], own_v6, "host", "host"),
    ] {
        datapath.heartbeat().unwrap();
        let socket = ask(ip(from), to).unwrap_or_else(|error| panic!("{from}: {error}"));
        let of = |flow: &FlowRecord| flow.client_address == socket.local_addr().ok();
        let flow = client.gateway.flows().live().into_iter().find(of).unwrap();
        assert_eq!(flow.client, shown, "{from}");
        let there = server.gateway.flows().live();
        assert_eq!(there.last().unwrap().client, attested, "{from}");
    }
    for (from, shown, reason) in [
        (DENIED_POD, "pod denied/bad", EndReason::Denied),
        (OTHER_NODE, "unknown", EndReason::IdentityUnknown),
        (OUTSIDE, "unknown", EndReason::IdentityUnknown),
        (OPENED, "unknown", EndReason::IdentityUnknown),
    ] {
        datapath.heartbeat().unwrap();
        let refused = ask(ip(from), own_v4).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionReset, "{from}");
        let of = |flow: &FlowRecord| flow.client_address.map(|at| at.ip()) == Some(ip(from));
        let flow = eventually("the refusal is logged", || {
            client.gateway.flows().recent().into_iter().find(of)
        });
        let ended = (flow.client.as_str(), flow.reason);
        assert_eq!(
            ended,
            (shown, Some(reason)),
            "{from}: nobody answers for it"
        );
    }
    // Its import is gone: who is connected is cut, and the port is free for others.
    client.state.apply(complete(Vec::new()));
    let end = served.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    let free = eventually("the port is free", || TcpListener::bind(("::", PORT)).ok());
    let _other = TcpStream::connect(own_v4).unwrap();
    free.accept().unwrap();
    drop(client);
    datapath.remove().unwrap();
}
