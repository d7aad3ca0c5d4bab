//! IP addresses as the maps hold them: sixteen bytes in network order, in four words; IPv4 in its
//! v4-mapped form. So an IPv4 socket and a v4-mapped IPv6 socket find the same entry.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address, as four words whose bytes are in network order.
pub type Address = [u32; 4];

/// The third word of a v4-mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

/// The v4-mapped form of an IPv4 address, given as a word in network order.
#[inline(always)]
pub const fn from_v4(word: u32) -> Address {
    [0, 0, MAPPED, word]
}

/// Whether this is an IPv4 address.
#[inline(always)]
pub const fn is_v4(address: &Address) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == MAPPED
}

/// Whether two addresses are the same; written out because a comparison of arrays becomes a call.
#[inline(always)]
pub const fn same(a: &Address, b: &Address) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
}

/// From the standard library's type.
pub fn from_ip(ip: IpAddr) -> Address {
    let octets = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut address = [0; 4];
    for (word, bytes) in address.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    address
}

/// To the standard library's type; v4-mapped addresses become IPv4 ones.
pub fn to_ip(address: &Address) -> IpAddr {
    if is_v4(address) {
        return IpAddr::V4(Ipv4Addr::from(address[3].to_ne_bytes()));
    }
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(address) {
        *bytes = word.to_ne_bytes();
    }
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// To the standard library's type; `port` is in network order.
pub fn to_socket_address(address: &Address, port: u16) -> SocketAddr {
    SocketAddr::new(to_ip(address), u16::from_be(port))
}

/// The port in a `bpf_sock_ops` `remote_port` field (network order in a 32-bit field), in network
/// order.
#[inline(always)]
pub const fn remote_port(field: u32) -> u16 {
    (u32::from_be(field) as u16).to_be()
}

/// The port in a `bpf_sock_ops` `local_port` field (host order), in network order.
#[inline(always)]
pub const fn local_port(field: u32) -> u16 {
    (field as u16).to_be()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_round_trip() {
        for text in ["10.114.0.7", "fd77:636d::1:2", "::1", "0.0.0.0", "::"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(to_ip(&from_ip(ip)), ip, "{text}");
        }
    }

    #[test]
    fn a_v4_mapped_address_is_the_ipv4_address() {
        let mapped: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        let plain: IpAddr = "10.1.2.3".parse().unwrap();
        assert_eq!(from_ip(mapped), from_ip(plain));
        assert_eq!(to_ip(&from_ip(mapped)), plain);
        assert!(is_v4(&from_ip(plain)));
        assert!(!is_v4(&from_ip("::10.1.2.3".parse().unwrap())));
    }

    #[test]
    fn the_word_of_a_context_makes_the_same_address() {
        let word = u32::from_ne_bytes([10, 1, 2, 3]);
        assert!(same(&from_v4(word), &from_ip("10.1.2.3".parse().unwrap())));
        assert!(!same(&from_v4(word), &from_ip("10.1.2.4".parse().unwrap())));
    }

    #[test]
    fn ports_of_both_sides_agree() {
        // The kernel shifts the network-order port to the upper half of the field.
        let field = u32::from_ne_bytes([0, 0, 0x1f, 0x90]);
        assert_eq!(remote_port(field), 8080_u16.to_be());
        assert_eq!(local_port(8080), 8080_u16.to_be());
    }
}
