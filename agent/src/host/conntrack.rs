//! What a connection of this host was before its addresses were translated, as the kernel's tracking
//! of connections tells it
//! ([ctnetlink](https://github.com/torvalds/linux/blob/v6.18/net/netfilter/nf_conntrack_netlink.c)).
//!
//! An entry of the kernel's table has two ends twice: *original*, as in what the client sends, and
//! *reply*, as in what it is answered. Whoever accepted the connection is at the source of the replies.
use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
};

use rtnetlink::packet_core::{
    DefaultNla, Emitable, ErrorBuffer, NLA_F_NESTED, NLA_HEADER_SIZE, NLM_F_REQUEST, NLMSG_ERROR,
    NetlinkBuffer, NlasIterator, parse_ip, parse_u8, parse_u16_be,
};
use socket2::{Domain, Protocol, Socket, Type};

const NETLINK_NETFILTER: i32 = 12;
/// `NFNL_SUBSYS_CTNETLINK` in the upper byte, `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_GET` in the lower.
const NEW: u16 = 0x100;
const GET: u16 = 0x101;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `struct nfgenmsg`: a family, then three bytes that are zero.
const FAMILY: usize = 4;

/// The ends of a TCP connection, in one of its directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Where packets come from.
    pub source: SocketAddr,
    /// Where they go.
    pub destination: SocketAddr,
}

/// The connection that was accepted at `destination` and comes from `source`, as its client sees it;
/// `None` if this network namespace does not keep track of it. Needs `CAP_NET_ADMIN`.
pub fn original_of(source: SocketAddr, destination: SocketAddr) -> io::Result<Option<Ends>> {
    let replies = Ends {
        source: plain(destination),
        destination: plain(source),
    };
    let mut socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::from(libc::SOCK_RAW).cloexec(),
        Some(Protocol::from(NETLINK_NETFILTER)),
    )?;
    socket.send(&request(replies))?;
    // One entry takes some hundred bytes.
    let mut buffer = [0; 8 * 1024];
    let read = socket.read(&mut buffer)?;
    parse(&buffer[..read], replies)
}

/// Asks for the entry whose replies have these ends.
fn request(replies: Ends) -> Vec<u8> {
    let Ends {
        source,
        destination,
    } = replies;
    let number = |kind, value: &[u8]| DefaultNla::new(kind, value.to_vec());
    let tuple = nested(
        CTA_TUPLE_REPLY,
        &[
            nested(
                CTA_TUPLE_IP,
                &[
                    address(source.ip(), CTA_IP_V4_SRC, CTA_IP_V6_SRC),
                    address(destination.ip(), CTA_IP_V4_DST, CTA_IP_V6_DST),
                ],
            ),
            nested(
                CTA_TUPLE_PROTO,
                &[
                    number(CTA_PROTO_NUM, &[libc::IPPROTO_TCP as u8]),
                    number(CTA_PROTO_SRC_PORT, &source.port().to_be_bytes()),
                    number(CTA_PROTO_DST_PORT, &destination.port().to_be_bytes()),
                ],
            ),
        ],
    );
    let family = if source.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let mut request = vec![0; HEADER + FAMILY + tuple.buffer_len()];
    let length = request.len() as u32;
    let mut header = NetlinkBuffer::new(&mut request);
    header.set_length(length);
    header.set_message_type(GET);
    header.set_flags(NLM_F_REQUEST);
    request[HEADER] = family as u8;
    tuple.emit(&mut request[HEADER + FAMILY..]);
    request
}

fn address(address: IpAddr, v4: u16, v6: u16) -> DefaultNla {
    match address {
        IpAddr::V4(address) => DefaultNla::new(v4, address.octets().to_vec()),
        IpAddr::V6(address) => DefaultNla::new(v6, address.octets().to_vec()),
    }
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; attributes.buffer_len()];
    attributes.emit(&mut value);
    DefaultNla::new(NLA_F_NESTED | kind, value)
}

/// Reads the kernel's answer to the question for the entry with these replies.
pub(super) fn parse(bytes: &[u8], replies: Ends) -> io::Result<Option<Ends>> {
    let message = NetlinkBuffer::new_checked(bytes).map_err(invalid)?;
    match message.message_type() {
        NEW => {}
        NLMSG_ERROR => {
            let error = ErrorBuffer::new_checked(message.payload()).map_err(invalid)?;
            return match error.code().map_or(0, |code| code.get().saturating_neg()) {
                libc::ENOENT => Ok(None),
                errno => Err(io::Error::from_raw_os_error(errno)),
            };
        }
        kind => return Err(invalid(format!("a netlink message of type {kind}"))),
    }
    let attributes = message.payload().get(FAMILY..).unwrap_or_default();
    let ends = |kind| ends(attribute(attributes, kind)?);
    let (Some(original), Some(reply)) = (ends(CTA_TUPLE_ORIG), ends(CTA_TUPLE_REPLY)) else {
        return Err(invalid("an entry that is not a TCP connection's"));
    };
    // The kernel looks in both directions: a connection that this host opened itself, between the same
    // ends, is another one.
    Ok((reply == replies).then_some(original))
}

/// The ends in a tuple of TCP.
fn ends(tuple: &[u8]) -> Option<Ends> {
    let ip = attribute(tuple, CTA_TUPLE_IP)?;
    let protocol = attribute(tuple, CTA_TUPLE_PROTO)?;
    let number = parse_u8(attribute(protocol, CTA_PROTO_NUM)?).ok()?;
    if i32::from(number) != libc::IPPROTO_TCP {
        return None;
    }
    let end = |v4, v6, port| {
        let address = attribute(ip, v4).or_else(|| attribute(ip, v6))?;
        let port = parse_u16_be(attribute(protocol, port)?).ok()?;
        Some(SocketAddr::new(parse_ip(address).ok()?, port))
    };
    Some(Ends {
        source: end(CTA_IP_V4_SRC, CTA_IP_V6_SRC, CTA_PROTO_SRC_PORT)?,
        destination: end(CTA_IP_V4_DST, CTA_IP_V6_DST, CTA_PROTO_DST_PORT)?,
    })
}

/// The value of the first attribute of a kind.
fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    let found = all.find(|attribute| attribute.kind() == kind)?;
    let length = usize::from(found.length());
    found.into_inner().get(NLA_HEADER_SIZE..length)
}

/// Without the marks of a v4-mapped address, or a scope.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests;
