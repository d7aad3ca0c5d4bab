//! Gateways on loopback, with origins told by the test instead of a kernel.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    num::{NonZeroU16, NonZeroUsize},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use clusterlink_gateway::{
    Config, Gateway, ServicePath,
    tls::Credentials,
    view::{Origin, Origins, View},
};
use clusterlink_model::{
    Action, Backend, Client, Endpoint, Export, HostPort, Import, Labels, LbScheme, LocalPeer,
    ObjectName, Peer, PeerName, Policy, PolicyName, Selector, Snapshot, Source, policy::PolicySet,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use tokio::sync::watch;

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Writes the three files of a peer.
    pub(crate) fn issue(&self, name: &str, dir: &Path) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial(name));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(dir.join("ca.pem"), &self.pem).unwrap();
    }

    /// A revocation list with the certificate of one peer.
    fn revocation_list(&self, name: &str) -> String {
        let now = SystemTime::now();
        let revoked = RevokedCertParams {
            serial_number: serial(name),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(24 * 3600)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// Peers' certificates are told apart by their names.
fn serial(name: &str) -> SerialNumber {
    SerialNumber::from_slice(name.as_bytes())
}

/// Says of every connection that it came from the host and wants import 1.
struct FixedOrigins;

impl Origins for FixedOrigins {
    fn origin(&self, _socket: BorrowedFd<'_>) -> io::Result<Option<Origin>> {
        Ok(Some(Origin {
            import: 1,
            destination: "10.114.0.1:80".parse().unwrap(),
            cgroup: 1,
            cookie: 1,
            same_namespace: true,
        }))
    }

    fn client(&self, _origin: &Origin, _source: SocketAddr) -> Client {
        Client::Host
    }
}

/// A gateway with what it was started with.
pub(crate) struct Node {
    pub(crate) gateway: Gateway,
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) steering: SocketAddr,
    certs: tempfile::TempDir,
    credentials: watch::Sender<Arc<Credentials>>,
}

impl Node {
    pub(crate) fn start(authority: &Authority, name: &str, workers: usize) -> Self {
        Self::start_with(
            authority,
            name,
            workers,
            Arc::new(FixedOrigins),
            ServicePath::None,
        )
    }

    /// Starts a gateway that clients of the Service path get to.
    pub(crate) fn start_with(
        authority: &Authority,
        name: &str,
        workers: usize,
        origins: Arc<dyn Origins>,
        service_path: ServicePath,
    ) -> Self {
        let certs = tempfile::tempdir().unwrap();
        authority.issue(name, certs.path());
        let credentials = Credentials::load(certs.path(), 1).unwrap();
        let (credentials, credentials_receiver) = watch::channel(Arc::new(credentials));
        let local = LocalPeer {
            name: PeerName::new(name).unwrap(),
            labels: Labels::new(),
        };
        let (view, view_receiver) = watch::channel(Arc::new(View::not_ready(local)));
        let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
        let steering = reserved.local_addr().unwrap();
        drop(reserved);
        let config = Config {
            workers: NonZeroUsize::new(workers).unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
            steering: vec![steering],
            service_path,
            software: "test".to_owned(),
            random_seed: None,
        };
        let mut registry = prometheus_client::registry::Registry::default();
        let gateway = Gateway::start(
            &config,
            credentials_receiver,
            view_receiver,
            origins,
            &mut registry,
        )
        .unwrap();
        Self {
            gateway,
            view,
            steering,
            certs,
            credentials,
        }
    }

    /// Where the listeners of the Service path are. No kernel hands them connections to other ports
    /// here, so that their own ports have to be leased.
    pub(crate) fn targets(&self) -> Vec<SocketAddr> {
        let listeners = self.gateway.target_listeners().iter();
        let addresses = listeners.map(|fd| {
            let socket = socket2::SockRef::from(&fd.as_fd()).local_addr().unwrap();
            socket.as_socket().unwrap()
        });
        addresses.collect()
    }

    /// Leases the ports of all listeners of the Service path to import 1.
    pub(crate) fn lease_targets(&self) {
        self.lease(&self.targets());
    }

    /// Leases these ports, and no others, to import 1.
    pub(crate) fn lease(&self, targets: &[SocketAddr]) {
        let leased: HashMap<_, _> = targets.iter().map(|at| (*at, 1)).collect();
        self.view.send_modify(|view| {
            let mut next = (**view).clone();
            next.generation += 1;
            next.targets = Arc::new(leased);
            *view = Arc::new(next);
        });
    }

    /// Revokes a peer's certificate at this node.
    pub(crate) fn revoke(&self, authority: &Authority, peer: &str) {
        let list = authority.revocation_list(peer);
        std::fs::write(self.certs.path().join("crl.pem"), list).unwrap();
        let generation = self.credentials.borrow().generation() + 1;
        let credentials = Credentials::load(self.certs.path(), generation).unwrap();
        self.credentials.send_replace(Arc::new(credentials));
    }

    /// Replaces the snapshot by what `build` makes of the present one.
    pub(crate) fn change(&self, build: impl FnOnce(&mut Snapshot)) {
        self.view.send_modify(|view| {
            let mut next = (**view).clone();
            let mut snapshot = (*next.snapshot).clone();
            build(&mut snapshot);
            next.generation += 1;
            next.ready = true;
            next.dial_rules.allow_local = true;
            next.policies = Arc::new(PolicySet::new(snapshot.policies.values().cloned()));
            let ids: HashMap<_, _> = (1..).zip(snapshot.imports.keys().cloned()).collect();
            next.import_ids = Arc::new(ids);
            next.snapshot = Arc::new(snapshot);
            *view = Arc::new(next);
        });
    }
}

pub(crate) fn service() -> ObjectName {
    ObjectName::new("default", "web")
}

pub(crate) fn allow_all(snapshot: &mut Snapshot) {
    let name = PolicyName::Privileged("allow-all".into());
    let policy = Policy {
        name: name.clone(),
        action: Action::Allow,
        from: vec![Selector::default()],
        to: vec![Selector::default()],
    };
    snapshot.policies.insert(name, Arc::new(policy));
}

pub(crate) fn export(snapshot: &mut Snapshot, backends: &[SocketAddr]) {
    let endpoints = backends.iter().map(|address| Endpoint {
        address: *address,
        node: None,
        zone: None,
    });
    let export = Export {
        name: service(),
        labels: Labels::new(),
        backend: Backend::Endpoints(endpoints.collect()),
    };
    snapshot.exports.insert(service(), Arc::new(export));
}

pub(crate) fn import(snapshot: &mut Snapshot, scheme: LbScheme, peers: &[(&str, SocketAddr)]) {
    let mut sources = Vec::new();
    for (name, address) in peers {
        let name = PeerName::new(name).unwrap();
        sources.push(Source {
            peer: name.clone(),
            export: service(),
        });
        let gateway = HostPort {
            host: address.ip().to_string().into(),
            port: NonZeroU16::new(address.port()).unwrap(),
        };
        let peer = Peer {
            name: name.clone(),
            gateways: vec![gateway],
            labels: None,
            not_issued_before: None,
        };
        snapshot.peers.insert(name, Arc::new(peer));
    }
    let import = Import {
        name: service(),
        labels: Labels::new(),
        addresses: vec!["10.114.0.1".parse().unwrap()],
        port: NonZeroU16::new(80).unwrap(),
        target_port: None,
        sources,
        scheme,
    };
    snapshot.imports.insert(service(), Arc::new(import));
}

/// Forwards bytes both ways until both ends are done.
pub(crate) fn splice(one: &TcpStream, other: &TcpStream) {
    for (from, to) in [(one, other), (other, one)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || {
            // Either end may go at any time: the test is over then.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

/// A backend that says a word to everybody.
pub(crate) fn speaker(word: &'static str) -> SocketAddr {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = backend.local_addr().unwrap();
    thread::spawn(move || {
        for socket in backend.incoming() {
            let _ = socket.and_then(|mut socket| socket.write_all(word.as_bytes()));
        }
    });
    address
}

/// All that is said at an address.
pub(crate) fn read_to_end(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut got = Vec::new();
    socket.read_to_end(&mut got)?;
    Ok(got)
}

/// Polls until `check` holds.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(
            std::time::Instant::now() < deadline,
            "not within 10 s: {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
