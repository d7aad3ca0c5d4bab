//! Two and more gateways on loopback: bytes, ends, failover and live judgement.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::support::{Authority, Node, allow_all, eventually, export, import, splice};
use clusterlink_gateway::flow::EndReason;
use clusterlink_model::LbScheme;

/// An importing and an exporting gateway.
struct Pair {
    client: Node,
    server: Node,
    backend: TcpListener,
}

fn pair(workers: usize) -> Pair {
    let authority = Authority::new();
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Node::start(&authority, "server", workers);
    let client = Node::start(&authority, "client", workers);
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
    Pair {
        client,
        server,
        backend,
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
}

/// A stream of bytes that can be checked anywhere.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i as u64).wrapping_mul(0x9e37_79b9).to_le_bytes()[2])
        .collect()
}

#[test]
fn carries_bytes_and_half_closes_both_ways() {
    let pair = pair(1);
    let sent = pattern(8 << 20);
    let expected = sent.clone();
    let backend = pair.backend.try_clone().unwrap();
    let server = thread::spawn(move || {
        let (mut socket, _) = backend.accept().unwrap();
        let mut got = Vec::new();
        socket.read_to_end(&mut got).unwrap();
        assert!(got == expected, "what arrived differs");
        socket.write_all(&got).unwrap();
        // An orderly end: the other direction has ended before.
        drop(socket);
    });
    let mut socket = connect(pair.client.steering);
    let mut reader = socket.try_clone().unwrap();
    socket.write_all(&sent).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    assert!(got == sent, "what came back differs: {} bytes", got.len());
    server.join().unwrap();
    for flows in [pair.client.gateway.flows(), pair.server.gateway.flows()] {
        eventually("the flow is logged", || !flows.recent().is_empty());
        let record = &flows.recent()[0];
        assert_eq!(record.reason, Some(EndReason::Completed));
        assert_eq!(record.bytes_sent, sent.len() as u64);
        assert_eq!(record.bytes_received, sent.len() as u64);
    }
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    let pair = pair(1);
    let backend = pair.backend.try_clone().unwrap();
    let server = thread::spawn(move || {
        let (mut socket, _) = backend.accept().unwrap();
        socket.write_all(b"220 ready\r\n").unwrap();
        let mut rest = String::new();
        socket.read_to_string(&mut rest).unwrap();
        rest
    });
    let mut socket = connect(pair.client.steering);
    let mut greeting = [0; 11];
    socket.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    socket.write_all(b"QUIT").unwrap();
    drop(socket);
    assert_eq!(server.join().unwrap(), "QUIT");
}

#[test]
fn resets_are_resets_in_both_directions() {
    let pair = pair(1);
    let reset = |socket: &TcpStream| {
        socket2::SockRef::from(socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    };
    // By the client.
    let mut socket = connect(pair.client.steering);
    socket.write_all(b"x").unwrap();
    let (mut accepted, _) = pair.backend.accept().unwrap();
    accepted
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut byte = [0];
    accepted.read_exact(&mut byte).unwrap();
    reset(&socket);
    drop(socket);
    assert_eq!(
        accepted.read(&mut byte).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    // By the server, after half a response.
    let mut socket = connect(pair.client.steering);
    socket.write_all(b"x").unwrap();
    let (mut accepted, _) = pair.backend.accept().unwrap();
    accepted.read_exact(&mut byte).unwrap();
    accepted.write_all(b"half").unwrap();
    let mut half = [0; 4];
    socket.read_exact(&mut half).unwrap();
    reset(&accepted);
    drop(accepted);
    assert_eq!(
        socket.read(&mut byte).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    // By the client after its own end: only the error tells.
    let socket = connect(pair.client.steering);
    socket.shutdown(Shutdown::Write).unwrap();
    let (mut accepted, _) = pair.backend.accept().unwrap();
    accepted
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(accepted.read(&mut byte).unwrap(), 0);
    reset(&socket);
    drop(socket);
    eventually("the backend sees the reset", || {
        accepted.write(b"y").is_err()
    });
}

#[test]
fn a_zero_byte_connection_ends_in_order() {
    let pair = pair(2);
    for _ in 0..20 {
        let mut socket = connect(pair.client.steering);
        socket.shutdown(Shutdown::Write).unwrap();
        let (mut accepted, _) = pair.backend.accept().unwrap();
        let mut all = Vec::new();
        accepted.read_to_end(&mut all).unwrap();
        drop(accepted);
        socket.read_to_end(&mut all).unwrap();
        assert!(all.is_empty());
    }
}

#[test]
fn the_next_source_is_tried_with_the_same_bytes() {
    let authority = Authority::new();
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let nodes: Vec<_> = ["denies", "no-export", "no-endpoint", "refuses", "serves"]
        .map(|name| Node::start(&authority, name, 1))
        .into();
    nodes[0].change(|snapshot| export(snapshot, &[backend.local_addr().unwrap()]));
    nodes[1].change(allow_all);
    nodes[2].change(|snapshot| {
        allow_all(snapshot);
        export(snapshot, &[]);
    });
    nodes[3].change(|snapshot| {
        allow_all(snapshot);
        export(snapshot, &[dead]);
    });
    nodes[4].change(|snapshot| {
        allow_all(snapshot);
        export(snapshot, &[backend.local_addr().unwrap()]);
    });
    let client = Node::start(&authority, "client", 1);
    client.change(|snapshot| {
        allow_all(snapshot);
        import(
            snapshot,
            LbScheme::Static,
            &[
                ("killed", dead),
                ("denies", nodes[0].gateway.listen_address()),
                ("no-export", nodes[1].gateway.listen_address()),
                ("no-endpoint", nodes[2].gateway.listen_address()),
                ("refuses", nodes[3].gateway.listen_address()),
                ("serves", nodes[4].gateway.listen_address()),
            ],
        );
    });
    for round in 0..3 {
        let mut socket = connect(client.steering);
        socket.write_all(b"hello").unwrap();
        let (mut accepted, _) = backend.accept().unwrap();
        let mut got = [0; 5];
        accepted.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        accepted.write_all(b"there").unwrap();
        socket.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"there");
        drop((socket, accepted));
        eventually("the flow is logged", || {
            client.gateway.flows().recent().len() > round
        });
        let record = client.gateway.flows().recent().pop().unwrap();
        assert_eq!(record.peer.unwrap().as_str(), "serves");
        let tried: Vec<_> = record.attempts.iter().map(|a| a.peer.as_str()).collect();
        for peer in ["denies", "no-export", "no-endpoint", "refuses"] {
            assert!(
                tried.contains(&peer),
                "{peer} was not tried in round {round}: {tried:?}"
            );
        }
    }
}

#[test]
fn nothing_passes_before_the_first_snapshot_or_without_policy() {
    let pair = pair(1);
    pair.client.change(|snapshot| snapshot.policies.clear());
    // The change reaches the workers by a channel of their own.
    eventually("the client is refused", || {
        let mut socket = connect(pair.client.steering);
        socket
            .read(&mut [0])
            .is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
    });
    let authority = Authority::new();
    let fresh = Node::start(&authority, "fresh", 1);
    let mut socket = connect(fresh.steering);
    assert_eq!(
        socket.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn a_policy_change_cuts_live_connections_at_both_ends() {
    for deny_at_server in [false, true] {
        let pair = pair(2);
        let mut socket = connect(pair.client.steering);
        socket.write_all(b"x").unwrap();
        let (mut accepted, _) = pair.backend.accept().unwrap();
        accepted
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut byte = [0];
        accepted.read_exact(&mut byte).unwrap();
        let denier = if deny_at_server {
            &pair.server
        } else {
            &pair.client
        };
        denier.change(|snapshot| snapshot.policies.clear());
        assert_eq!(
            socket.read(&mut byte).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        assert_eq!(
            accepted.read(&mut byte).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        let flows = denier.gateway.flows();
        eventually("the flow is logged", || !flows.recent().is_empty());
        assert_eq!(flows.recent()[0].reason, Some(EndReason::Denied));
    }
}

#[test]
fn a_lost_session_is_a_reset_and_never_an_end() {
    let pair = pair(1);
    let mut socket = connect(pair.client.steering);
    socket.write_all(b"x").unwrap();
    let (mut accepted, _) = pair.backend.accept().unwrap();
    accepted
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut byte = [0];
    accepted.read_exact(&mut byte).unwrap();
    accepted.write_all(b"half").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(pair.server.gateway.shutdown(Duration::ZERO));
    let mut rest = Vec::new();
    assert_eq!(
        socket.read_to_end(&mut rest).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(
        accepted.read(&mut byte).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn a_reader_that_stops_does_not_stop_its_neighbours() {
    let pair = pair(1);
    let backend = pair.backend.try_clone().unwrap();
    thread::spawn(move || {
        for socket in backend.incoming() {
            let Ok(mut socket) = socket else { return };
            thread::spawn(move || {
                let mut kind = [0];
                if socket.read_exact(&mut kind).is_err() {
                    return;
                }
                if kind[0] == b'f' {
                    // Floods until the client is gone.
                    while socket.write_all(&[7; 65536]).is_ok() {}
                } else {
                    let mut byte = [0];
                    while socket.read_exact(&mut byte).is_ok() && socket.write_all(&byte).is_ok() {}
                }
            });
        }
    });
    let stalled: Vec<_> = (0..8)
        .map(|_| {
            let mut socket = connect(pair.client.steering);
            socket.write_all(b"f").unwrap();
            socket
        })
        .collect();
    let mut socket = connect(pair.client.steering);
    socket.write_all(b"e").unwrap();
    let mut byte = [0];
    for i in 0..2000u32 {
        let sent = [i.to_le_bytes()[0]];
        socket.write_all(&sent).unwrap();
        socket.read_exact(&mut byte).unwrap();
        assert_eq!(byte, sent);
    }
    drop(stalled);
}

#[test]
fn round_robin_is_strict_over_all_workers() {
    let authority = Authority::new();
    let client = Node::start(&authority, "client", 2);
    let mut servers = Vec::new();
    let mut backends = Vec::new();
    for name in ["one", "two"] {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Node::start(&authority, name, 2);
        server.change(|snapshot| {
            allow_all(snapshot);
            export(snapshot, &[backend.local_addr().unwrap()]);
        });
        let answer = name.as_bytes()[0];
        backends.push(thread::spawn(move || {
            for socket in backend.incoming() {
                let Ok(mut socket) = socket else { return };
                thread::spawn(move || socket.write_all(&[answer]));
            }
        }));
        servers.push(server);
    }
    client.change(|snapshot| {
        allow_all(snapshot);
        import(
            snapshot,
            LbScheme::RoundRobin,
            &[
                ("one", servers[0].gateway.listen_address()),
                ("two", servers[1].gateway.listen_address()),
            ],
        );
    });
    // Both peers answer, so that neither is left out as unreachable.
    eventually("both peers are reachable", || {
        client
            .gateway
            .peers()
            .iter()
            .filter(|peer| peer.reachable)
            .count()
            == 2
    });
    let steering = client.steering;
    let clients: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                let mut ones = 0;
                for _ in 0..50 {
                    let mut answer = [0];
                    connect(steering).read_exact(&mut answer).unwrap();
                    ones += i32::from(answer[0] == b'o');
                }
                ones
            })
        })
        .collect();
    let ones: i32 = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    assert!(
        (ones - 200).abs() <= 1,
        "400 connections over two sources: {ones} went to the first"
    );
}

#[test]
fn a_deny_that_comes_while_a_session_is_waited_for_holds() {
    let authority = Authority::new();
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    backend.set_nonblocking(true).unwrap();
    let server = Node::start(&authority, "server", 1);
    let client = Node::start(&authority, "client", 1);
    let address = backend.local_addr().unwrap();
    server.change(|snapshot| {
        allow_all(snapshot);
        export(snapshot, &[address]);
    });
    let way = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = way.local_addr().unwrap();
    client.change(|snapshot| {
        allow_all(snapshot);
        import(snapshot, LbScheme::Static, &[("server", gateway)]);
    });
    let mut waiting = connect(client.steering);
    waiting.write_all(b"early").unwrap();
    // It waits for the session, whose bytes are held here.
    let (held, _) = way.accept().unwrap();
    eventually("the connection is open", || {
        client.gateway.open_flows() == 1
    });
    client.change(|snapshot| snapshot.policies.clear());
    // The next connection is denied at once: the deny is in force.
    let mut next = connect(client.steering);
    let refused = next.read(&mut [0; 1]);
    assert!(matches!(refused, Err(error) if error.kind() == ErrorKind::ConnectionReset));

    splice(
        &held,
        &TcpStream::connect(server.gateway.listen_address()).unwrap(),
    );
    let ended = waiting.read(&mut [0; 1]);
    assert!(matches!(ended, Err(error) if error.kind() == ErrorKind::ConnectionReset));
    let reached = backend.accept();
    assert!(matches!(reached, Err(error) if error.kind() == ErrorKind::WouldBlock));
}

#[test]
fn the_flow_log_tells_of_the_gateway_that_is_named_now() {
    let authority = Authority::new();
    let client = Node::start(&authority, "client", 1);
    for round in 0..8 {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = unused.local_addr().unwrap();
        drop(unused);
        client.change(|snapshot| {
            allow_all(snapshot);
            import(snapshot, LbScheme::Static, &[("server", gateway)]);
        });
        // The reset may come before the connect has returned.
        let end = TcpStream::connect(client.steering).and_then(|mut socket| socket.read(&mut [0]));
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        eventually("the flow is in the log", || {
            client.gateway.flows().recent().len() > round
        });
        let record = client.gateway.flows().recent().pop().unwrap();
        let outcome = &record.attempts[0].outcome;
        assert!(outcome.contains(&gateway.to_string()), "{outcome}");
    }
}
