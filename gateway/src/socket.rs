//! Socket options and reads that the gateway's legs share.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{io::Interest, net::TcpStream};

/// How long established sessions wait for a peer whose packets stay unanswered, as TCP itself
/// would (`TCP_USER_TIMEOUT`).
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Pending connections of a listener; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listener of which every worker has its own.
pub(crate) fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    listen_as(address, |socket| {
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            // The unspecified address means both families; another one names its own alone.
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        Ok(())
    })
}

/// A listener at a free port that nobody else can share. Which port that is does not matter: the
/// kernel hands it connections to other ones.
pub(crate) fn listen_privately(address: IpAddr) -> io::Result<std::net::TcpListener> {
    listen_as(SocketAddr::new(address, 0), |_| Ok(()))
}

/// A listener that shares its port with nobody. What earlier connections left in TIME_WAIT does not
/// keep it out, and the host may get the address later.
pub(crate) fn listen_alone(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    listen_as(address, |socket| {
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)
        } else {
            socket.set_freebind_v4(true)
        }
    })
}

/// A listener whose socket is prepared before it is bound.
fn listen_as(
    address: SocketAddr,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What the client of an accepted socket connected to, if this host translated it to the socket's own
/// address.
pub(crate) fn original_destination(socket: &TcpStream) -> Option<SocketAddr> {
    let is_v4 = socket.local_addr().ok()?.ip().to_canonical().is_ipv4();
    let socket = SockRef::from(socket);
    let original = if is_v4 {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    // An error says that nobody keeps track of connections here, or not of this one.
    original.ok()?.as_socket()
}

/// Prepares the leg to an application: no delay, keepalive, and a reset instead of an orderly end
/// should this process die (`SO_LINGER` of zero seconds; [`end_orderly`] takes it back).
pub(crate) fn prepare_application(socket: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(10))
            .with_retries(6),
    )
}

/// Both directions ended in order: what the kernel still holds is delivered after the close.
pub(crate) fn end_orderly(socket: &TcpStream) {
    // A socket that is already gone needs no order any more.
    let _ = SockRef::from(socket).set_linger(None);
}

/// Half-closes towards the application.
pub(crate) fn shut_write(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).shutdown(std::net::Shutdown::Write)
}

/// Prepares the leg to another peer.
pub(crate) fn prepare_session(socket: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(PATIENCE))
}

/// Reads what is there. A short read says that nothing is left, so readiness is cleared at once
/// and the read that would only find the socket empty is saved.
pub(crate) fn read(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = Err(io::ErrorKind::WouldBlock.into());
    let room = buffer.len();
    let tried = socket.try_io(Interest::READABLE, || {
        let (n, _) = rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT)?;
        read = Ok(n);
        if n > 0 && n < room {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(())
        }
    });
    match tried {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => read,
    }
}

/// Reads from a socket that was just accepted, whose readiness is not known yet.
pub(crate) fn read_now(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let (n, _) = rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT)?;
    Ok(n)
}

/// Writes what the socket takes; `Ok(0)` if it takes nothing now.
pub(crate) fn write(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match socket.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// Like [`write`], from several pieces with one system call.
pub(crate) fn write_vectored(socket: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    match socket.try_write_vectored(pieces) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
