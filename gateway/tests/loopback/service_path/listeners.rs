//! A gateway that listens at the leased ports itself, since no kernel hands it their connections.

use std::net::Ipv6Addr;

use clusterlink_gateway::UnservedTarget;

use super::*;
use crate::support::service;

/// An address of the node that no other test listens at.
const AT: [u8; 4] = [127, 0, 3, 1];

/// A scene of two workers in which every client is known.
fn scene() -> Scene {
    let scene = Scene::with(&[], ServicePath::Listeners);
    scene.addresses.set(POD, pod("web", "shop"));
    scene.addresses.set(HOST, Client::Host);
    let mut known = scene.addresses.known.lock().unwrap();
    known.insert(Ipv6Addr::LOCALHOST.into(), Client::Host);
    drop(known);
    scene
}

/// Addresses with a port that nobody listens at, for each worker in turn. The kernel picks ports that
/// are all odd or all even.
fn free<const N: usize>(ip: impl Into<IpAddr>) -> [SocketAddr; N] {
    let ip = ip.into();
    let mut held = Vec::new();
    while held.len() < N {
        let picked = TcpListener::bind((ip, 0)).unwrap();
        let port = picked.local_addr().unwrap().port();
        let beside = (held.len() % 2) as u16;
        let listener = match beside {
            0 => Ok(picked),
            _ => TcpListener::bind((ip, port ^ beside)),
        };
        held.extend(listener.ok());
    }
    std::array::from_fn(|index| held[index].local_addr().unwrap())
}

/// Connects over any family, and reads what the backend says.
fn greeted(to: SocketAddr) -> io::Result<TcpStream> {
    match to {
        SocketAddr::V4(_) => ask(POD, to),
        SocketAddr::V6(_) => {
            let mut socket = TcpStream::connect(to)?;
            socket.set_read_timeout(Some(Duration::from_secs(20)))?;
            let mut hello = [0; 5];
            socket.read_exact(&mut hello)?;
            Ok(socket)
        }
    }
}

fn is_closed(to: SocketAddr) -> bool {
    TcpStream::connect(to).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[test]
fn every_target_of_both_families_is_served_by_some_worker() {
    let scene = scene();
    let v4: [SocketAddr; 4] = free(AT);
    let v6: [SocketAddr; 2] = free(Ipv6Addr::LOCALHOST);
    let targets = [&v4[..], &v6[..]].concat();
    scene.client.lease(&targets);
    for target in &targets {
        let mut served = None;
        eventually("it is served", || {
            served = greeted(*target).ok();
            served.is_some()
        });
        let here = scene.client.gateway.flows().live();
        assert_eq!(here.len(), 1, "{target}");
        let who = if target.is_ipv4() {
            "pod shop/web"
        } else {
            "host"
        };
        assert_eq!(here[0].client, who, "{target}");
        drop(served);
        eventually("the flow ends", || {
            scene.client.gateway.flows().live().is_empty()
        });
    }
    let ports = targets.iter().map(SocketAddr::port).collect();
    assert_eq!(scene.client.gateway.target_ports(), ports);
    assert_eq!(scene.client.gateway.unserved_targets(), []);
    // The verdicts are those of every other way.
    let (name, policy) = deny("shop");
    (scene.client).change(|snapshot| drop(snapshot.policies.insert(name, policy)));
    eventually("the pod is denied", || {
        ask(POD, v4[0]).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    });
    assert!(ask(HOST, v4[0]).is_ok());
    assert_eq!(scene.ended(POD).import, Some(service()));
}

#[test]
fn ports_are_open_only_while_everything_is_known() {
    let scene = scene();
    let targets: [SocketAddr; 2] = free(AT);
    let is_ready = |ready: bool| {
        scene.client.view.send_modify(|view| {
            let mut next = (**view).clone();
            next.generation += 1;
            next.ready = ready;
            *view = Arc::new(next);
        });
    };
    scene.client.lease(&targets[..1]);
    eventually("it is open", || greeted(targets[0]).is_ok());
    is_ready(false);
    eventually("it is closed", || is_closed(targets[0]));
    scene.client.lease(&targets);
    is_ready(true);
    for target in targets {
        eventually("it is open", || greeted(target).is_ok());
    }
}

#[test]
fn a_port_is_closed_with_its_lease_and_opened_again_beside_connections_that_stay() {
    let scene = scene();
    let targets: [SocketAddr; 2] = free(AT);
    scene.client.lease(&targets);
    let mut open = Vec::new();
    for target in targets {
        eventually("it is served", || {
            open.extend(greeted(target).ok());
            open.last()
                .is_some_and(|socket: &TcpStream| socket.peer_addr().is_ok_and(|at| at == target))
        });
    }
    scene.client.lease(&targets[1..]);
    let begin = Instant::now();
    eventually("it is closed", || is_closed(targets[0]));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(greeted(targets[1]).is_ok(), "the other one stays");
    let ports = scene.client.gateway.target_ports();
    assert_eq!(ports, [targets[1].port()].into());
    TcpListener::bind(targets[0]).expect("it is anybody's again");
    scene.client.lease(&targets);
    eventually("it is served again", || greeted(targets[0]).is_ok());
    // The import was there all the time.
    for socket in &mut open {
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let quiet = socket.read(&mut [0]).unwrap_err();
        assert_eq!(quiet.kind(), io::ErrorKind::WouldBlock, "it goes on");
    }
}

#[test]
fn a_port_that_another_process_has_is_named_and_served_once_it_is_free() {
    let scene = scene();
    // At all addresses, as most servers listen.
    let other = TcpListener::bind("0.0.0.0:0").unwrap();
    let taken = SocketAddr::from((AT, other.local_addr().unwrap().port()));
    let [target] = free(AT);
    scene.client.lease(&[taken, target]);
    let unserved = || scene.client.gateway.unserved_targets();
    eventually("it is named", || !unserved().is_empty());
    eventually("others are served", || greeted(target).is_ok());
    let named = unserved();
    let [
        UnservedTarget {
            import,
            address,
            reason,
        },
    ] = &named[..]
    else {
        panic!("{named:?}");
    };
    assert_eq!((import, *address), (&service(), taken));
    let port = format!("sport = :{}", taken.port());
    assert!(
        reason.contains(&taken.to_string()) && reason.contains(&port),
        "{reason}"
    );
    let ports = scene.client.gateway.target_ports();
    assert_eq!(ports, [target.port()].into(), "the other's is not ours");
    drop(other);
    eventually("it is served", || greeted(taken).is_ok());
    assert_eq!(unserved(), []);

    let sharing = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    sharing.set_reuse_port(true).unwrap();
    let shared = sharing.bind(&taken.into()).unwrap_err();
    assert_eq!(shared.kind(), io::ErrorKind::AddrInUse, "nobody shares it");
}

#[test]
fn a_port_that_is_given_up_while_another_process_has_it_is_forgotten() {
    let scene = scene();
    let other = TcpListener::bind(SocketAddr::from((AT, 0))).unwrap();
    scene.client.lease(&[other.local_addr().unwrap()]);
    let gateway = &scene.client.gateway;
    eventually("it is named", || !gateway.unserved_targets().is_empty());
    scene.client.lease(&[]);
    eventually("it is forgotten", || gateway.unserved_targets().is_empty());
    assert_eq!(gateway.target_ports(), [].into());
}

#[test]
fn a_stop_closes_the_ports_and_lets_open_connections_end() {
    let scene = scene();
    let [target] = free(AT);
    scene.client.lease(&[target]);
    let mut open = None;
    eventually("it is served", || {
        open = greeted(target).ok();
        open.is_some()
    });
    let socket = open.unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let Scene { client, server, .. } = scene;
    let stopping = thread::spawn(move || {
        let begin = Instant::now();
        runtime.block_on(client.gateway.shutdown(Duration::from_secs(20)));
        begin.elapsed()
    });
    eventually("it is closed", || is_closed(target));
    assert!(!stopping.is_finished(), "a connection is open");
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut socket = socket;
    assert_eq!(socket.read(&mut [0]).unwrap(), 0, "it ends in order");
    let took = stopping.join().unwrap();
    assert!(took < Duration::from_secs(15), "{took:?}");
    drop(server);
}
