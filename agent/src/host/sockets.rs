//! Which cgroup a socket of this host belongs to, as the kernel's socket diagnosis tells it
/// ([`sock_diag(7)`](https://man7.org/linux/man-pages/man7/sock_diag.7.html)).
use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const REQUEST_DUMP: u16 = 0x301;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// Every TCP state but TIME_WAIT (6) and LISTEN (10): such sockets connect to nobody.
const STATES: u32 = 0xfff & !(1 << 6) & !(1 << 10);

const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
/// `struct inet_diag_msg`: family and state, the ends from 4 on, then counters.
const MESSAGE: usize = 72;

/// The cgroup of the TCP socket of this network namespace that is connected from `source` to
/// `destination`, if there is one. Needs Linux 5.8: before, sockets do not tell, and none is found.
pub fn cgroup_of(source: SocketAddr, destination: SocketAddr) -> io::Result<Option<u64>> {
    // A socket of IPv6 may be connected to an IPv4 address.
    let families: &[i32] = if source.ip().to_canonical().is_ipv4() {
        &[libc::AF_INET, libc::AF_INET6]
    } else {
        &[libc::AF_INET6]
    };
    for &family in families {
        let found = dump(family, source, destination)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn dump(family: i32, source: SocketAddr, destination: SocketAddr) -> io::Result<Option<u64>> {
    let mut socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::from(libc::SOCK_RAW).cloexec(),
        Some(Protocol::from(NETLINK_SOCK_DIAG)),
    )?;
    socket.send(&request(family, source.port(), destination.port()))?;
    let mut buffer = vec![0; 32 * 1024];
    let mut found = None;
    loop {
        let read = socket.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if parse(&buffer[..read], source, destination, &mut found)? {
            return Ok(found);
        }
    }
}

/// Asks for all sockets of a family between these ports.
fn request(family: i32, local: u16, remote: u16) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    request[0..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request[HEADER] = family as u8;
    request[HEADER + 1] = libc::IPPROTO_TCP as u8;
    request[HEADER + 4..HEADER + 8].copy_from_slice(&STATES.to_ne_bytes());
    request[HEADER + 8..HEADER + 10].copy_from_slice(&local.to_be_bytes());
    request[HEADER + 10..HEADER + 12].copy_from_slice(&remote.to_be_bytes());
    request
}

/// Reads the messages of a datagram; returns whether it was the last.
pub(super) fn parse(
    mut bytes: &[u8],
    source: SocketAddr,
    destination: SocketAddr,
    found: &mut Option<u64>,
) -> io::Result<bool> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "a netlink message is cut short");
    while !bytes.is_empty() {
        let length = word(bytes, 0).ok_or_else(short)? as usize;
        let kind = half(bytes, 4).ok_or_else(short)?;
        let message = bytes.get(HEADER..length).ok_or_else(short)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let errno = word(message, 0).ok_or_else(short)? as i32;
                return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY if ends(message) == Some((plain(source), plain(destination))) => {
                *found = message.get(MESSAGE..).and_then(attribute);
            }
            _ => {}
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// The local and the remote end of a socket.
fn ends(message: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let is_v4 = i32::from(*message.first()?) == libc::AF_INET;
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes(message.get(port..port + 2)?.try_into().ok()?);
        let bytes: [u8; 16] = message.get(address..address + 16)?.try_into().ok()?;
        let ip = if is_v4 {
            IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
        } else {
            IpAddr::from(bytes)
        };
        Some(plain(SocketAddr::new(ip, port)))
    };
    Some((end(4, 8)?, end(6, 24)?))
}

/// Without the marks of a v4-mapped address, or a scope.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The attribute that says the cgroup.
fn attribute(mut attributes: &[u8]) -> Option<u64> {
    loop {
        let length = usize::from(half(attributes, 0)?);
        if half(attributes, 2)? == INET_DIAG_CGROUP_ID {
            return Some(u64::from_ne_bytes(attributes.get(4..12)?.try_into().ok()?));
        }
        attributes = attributes.get(aligned(length.max(4))..)?;
    }
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::datapath::{cgroup_id, cgroup2_mount};

    #[test]
    fn a_connected_socket_has_the_cgroup_of_its_process_and_no_other_is_taken_for_it() {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let own = cgroup_id(&cgroup2_mount().unwrap().join(own.unwrap())).unwrap();
        for (listen, connect) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::]:0", "::ffff:127.0.0.1"),
        ] {
            let listener = TcpListener::bind(listen).unwrap();
            let port = listener.local_addr().unwrap().port();
            let address: IpAddr = connect.parse().unwrap();
            let client = TcpStream::connect((address, port)).unwrap();
            let (source, destination) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let found = |source, destination| cgroup_of(source, destination).unwrap();
            assert_eq!(found(source, destination), Some(own), "{connect}");
            assert_eq!(
                found(plain(source), plain(destination)),
                Some(own),
                "{connect}"
            );
            let other = SocketAddr::new("192.0.2.77".parse().unwrap(), source.port());
            assert_eq!(found(other, destination), None, "{connect}: another source");
            let other = SocketAddr::new("192.0.2.77".parse().unwrap(), port);
            assert_eq!(found(source, other), None, "{connect}: another destination");
            let other = SocketAddr::new(address, port ^ 1);
            assert_eq!(found(source, other), None, "{connect}: another port");
        }
    }

    #[test]
    fn messages_that_are_cut_short_are_errors_or_nothing() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (source, destination) = (at("127.0.0.1:4660"), at("10.96.0.9:80"));
        let mut message = vec![0_u8; HEADER + MESSAGE + 12];
        let length = message.len() as u32;
        message[0..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        let body = &mut message[HEADER..];
        body[0] = libc::AF_INET as u8;
        body[4..6].copy_from_slice(&4660_u16.to_be_bytes());
        body[6..8].copy_from_slice(&80_u16.to_be_bytes());
        body[8..12].copy_from_slice(&[127, 0, 0, 1]);
        body[24..28].copy_from_slice(&[10, 96, 0, 9]);
        body[MESSAGE..MESSAGE + 2].copy_from_slice(&12_u16.to_ne_bytes());
        body[MESSAGE + 2..MESSAGE + 4].copy_from_slice(&INET_DIAG_CGROUP_ID.to_ne_bytes());
        body[MESSAGE + 4..].copy_from_slice(&77_u64.to_ne_bytes());
        let parsed = |bytes: &[u8]| {
            let mut found = None;
            parse(bytes, source, destination, &mut found).map(|last| (last, found))
        };
        assert_eq!(parsed(&message).unwrap(), (false, Some(77)));
        for length in 1..message.len() {
            assert!(parsed(&message[..length]).is_err(), "{length}");
            // A length that claims less than there is leaves no cgroup.
            let mut lying = message.clone();
            lying[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
            assert!(
                !parsed(&lying).is_ok_and(|(_, found)| found == Some(77)),
                "{length}"
            );
        }
    }
}
