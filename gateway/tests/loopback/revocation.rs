//! Certificates that are revoked while they are used, and while their handshake runs.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use crate::support::{Authority, Node, allow_all, export, import, read_to_end, speaker, splice};
use clusterlink_model::LbScheme;

/// A wire that holds back what the dialling side says after its first flight.
struct Wire {
    address: SocketAddr,
    /// Says that the answer to the first flight has been carried.
    answered: Receiver<()>,
    release: Sender<()>,
}

fn wire(to: SocketAddr) -> Wire {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (answered, answered_receiver) = mpsc::channel();
    let (release, released) = mpsc::channel();
    thread::spawn(move || -> io::Result<()> {
        let (mut dialler, _) = listener.accept()?;
        // Nobody gets a second connection through.
        drop(listener);
        let mut called = TcpStream::connect(to)?;
        let mut flight = [0; 16 * 1024];
        let n = dialler.read(&mut flight)?;
        called.write_all(&flight[..n])?;
        let n = called.read(&mut flight)?;
        dialler.write_all(&flight[..n])?;
        answered.send(()).unwrap();
        let (mut from_called, mut to_dialler) = (called.try_clone()?, dialler.try_clone()?);
        let back = thread::spawn(move || {
            let _ = io::copy(&mut from_called, &mut to_dialler);
            let _ = to_dialler.shutdown(Shutdown::Write);
        });
        released.recv().unwrap();
        let _ = io::copy(&mut dialler, &mut called);
        let _ = called.shutdown(Shutdown::Write);
        back.join().unwrap();
        Ok(())
    });
    Wire {
        address,
        answered: answered_receiver,
        release,
    }
}

/// What a client gets when `change` happens in the middle of the only handshake of both gateways.
fn with_a_change_in_the_handshake(change: impl FnOnce(&Authority, &Node)) -> io::Result<Vec<u8>> {
    let authority = Authority::new();
    let server = Node::start(&authority, "server", 1);
    let client = Node::start(&authority, "client", 1);
    let backend = speaker("hello");
    server.change(|snapshot| {
        allow_all(snapshot);
        export(snapshot, &[backend]);
    });
    let wire = wire(server.gateway.listen_address());
    client.change(|snapshot| {
        allow_all(snapshot);
        import(snapshot, LbScheme::Static, &[("server", wire.address)]);
    });
    wire.answered.recv_timeout(Duration::from_secs(10)).unwrap();
    change(&authority, &server);
    wire.release.send(()).unwrap();
    read_to_end(client.steering)
}

#[test]
fn a_caller_revoked_during_its_handshake_gets_no_session() {
    let got =
        with_a_change_in_the_handshake(|authority, server| server.revoke(authority, "client"));
    assert!(got.is_err(), "a revoked peer was served: {got:?}");
}

#[test]
fn a_revocation_of_others_during_a_handshake_disturbs_nobody() {
    let got = with_a_change_in_the_handshake(|authority, server| server.revoke(authority, "other"));
    assert_eq!(got.unwrap(), b"hello");
}

/// Carries whatever is sent to it, and counts the connections.
fn counted(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    thread::spawn(move || -> io::Result<()> {
        for dialler in listener.incoming() {
            counter.fetch_add(1, Relaxed);
            splice(&dialler?, &TcpStream::connect(to)?);
        }
        Ok(())
    });
    (address, count)
}

#[test]
fn a_revoked_caller_does_not_call_over_and_over() {
    let authority = Authority::new();
    let server = Node::start(&authority, "server", 1);
    let client = Node::start(&authority, "client", 1);
    server.revoke(&authority, "client");
    let (gateway, calls) = counted(server.gateway.listen_address());
    client.change(|snapshot| {
        allow_all(snapshot);
        import(snapshot, LbScheme::Static, &[("server", gateway)]);
    });
    // Each client has one call made, whatever the pause, and the gateway may make one of its own. Without
    // a pause whoever waits while a session goes as it comes has more made.
    const CLIENTS: usize = 200;
    for _ in 0..CLIENTS {
        let error = read_to_end(client.steering).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    }
    let calls = calls.load(Relaxed);
    assert!((1..=CLIENTS + 1).contains(&calls), "{calls} calls");
}

#[test]
fn a_revocation_ends_the_session_of_its_peer() {
    let authority = Authority::new();
    let server = Node::start(&authority, "server", 1);
    let client = Node::start(&authority, "client", 1);
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    server.change(|snapshot| {
        allow_all(snapshot);
        export(snapshot, &[backend.local_addr().unwrap()]);
    });
    let gateway = server.gateway.listen_address();
    client.change(|snapshot| {
        allow_all(snapshot);
        import(snapshot, LbScheme::Static, &[("server", gateway)]);
    });
    let mut socket = TcpStream::connect(client.steering).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let (mut served, _) = backend.accept().unwrap();
    served
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    served.write_all(b"x").unwrap();
    socket.read_exact(&mut [0]).unwrap();
    server.revoke(&authority, "client");
    for end in [&mut socket, &mut served] {
        let error = end.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    }
}
