//! The keys and values of the maps. The sizes are asserted: a change is a new [`LAYOUT`](crate::LAYOUT).

use crate::address::{self, Address};

/// What a connect or a datagram is looked up by.
///
/// An entry with port 0 and protocol 0 marks an address that imports are served at: whatever is
/// not TCP is refused there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// The address that the client asks for.
    pub address: Address,
    /// The port, in network order.
    pub port: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// Always zero.
    pub padding: u8,
}

impl ServiceKey {
    /// The key of a TCP service.
    #[inline(always)]
    pub const fn tcp(address: Address, port: u16) -> Self {
        Self {
            address,
            port,
            protocol: crate::TCP,
            padding: 0,
        }
    }

    /// The key that marks an imported address.
    #[inline(always)]
    pub const fn marker(address: Address) -> Self {
        Self {
            address,
            port: 0,
            protocol: 0,
            padding: 0,
        }
    }
}

/// What a connect to a service means.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The number of the import.
    pub import: u32,
    /// [`Service::PROBE`], or 0.
    pub flags: u32,
}

impl Service {
    /// The entry is not a service but the agent's own probe.
    pub const PROBE: u32 = 1;
}

/// The gateway that connects are steered to, and whether it lives.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The IPv4 address, v4-mapped.
    pub v4: Address,
    /// The IPv6 address.
    pub v6: Address,
    /// The port of `v4`, in network order; 0 if there is no IPv4 address.
    pub port_v4: u16,
    /// The port of `v6`, in network order; 0 if there is no IPv6 address.
    pub port_v6: u16,
    /// [`Gateway::PASS_WHEN_STALE`], or 0.
    pub flags: u32,
    /// The gateway's network namespace.
    pub netns_cookie: u64,
    /// When the gateway was last heard of, in monotonic time.
    pub heartbeat_ns: u64,
    /// The gateway's process, as the initial pid namespace numbers it; 0 while unknown.
    pub tgid: u32,
    /// How many slots of LISTENERS are in use.
    pub listeners: u32,
    /// How many slots of TARGET_SOCKETS are in use for IPv4.
    pub target_sockets_v4: u32,
    /// How many slots of TARGET_SOCKETS are in use for IPv6.
    pub target_sockets_v6: u32,
}

impl Gateway {
    /// While the gateway is not heard of, connects are left alone instead of refused.
    pub const PASS_WHEN_STALE: u32 = 1;

    /// Whether this is the gateway's address and port (in network order).
    #[inline(always)]
    pub const fn serves(&self, address: &Address, port: u16) -> bool {
        if port == 0 {
            false
        } else if address::is_v4(address) {
            port == self.port_v4 && address::same(address, &self.v4)
        } else {
            port == self.port_v6 && address::same(address, &self.v6)
        }
    }
}

/// What a connection of the Service path is looked up by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetKey {
    /// An address of this node.
    pub address: Address,
    /// The port that is leased to an import, in network order.
    pub port: u16,
    /// Always zero.
    pub padding: u16,
}

impl TargetKey {
    /// The key of a port (in network order) at an address.
    #[inline(always)]
    pub const fn new(address: Address, port: u16) -> Self {
        Self {
            address,
            port,
            padding: 0,
        }
    }
}

/// What a connection to a leased port means.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The number of the import.
    pub import: u32,
}

/// What a class of clients may reach is looked up by this.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VerdictKey {
    /// The identity class.
    pub class: u32,
    /// The block of imports.
    pub block: u32,
}

/// A class's verdicts on one block of imports.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdicts {
    /// A set bit allows.
    pub bits: [u64; 8],
}

/// The record of a steered connect.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The address that the client asked for.
    pub address: Address,
    /// The port that the client asked for, in network order.
    pub port: u16,
    /// The family of the client's socket.
    pub family: u16,
    /// The number of the import.
    pub import: u32,
    /// The client's cgroup: the one that gave its class, else its own.
    pub cgroup: u64,
    /// The client's network namespace.
    pub netns_cookie: u64,
    /// The client's socket.
    pub socket_cookie: u64,
    /// When, in monotonic time.
    pub time_ns: u64,
}

/// A connection to the gateway, as the gateway sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The client's address.
    pub client: Address,
    /// The gateway's address.
    pub gateway: Address,
    /// The client's port, in network order.
    pub client_port: u16,
    /// The gateway's port, in network order.
    pub gateway_port: u16,
}

/// A steered connection that is open, by the cookie of the client's socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The address that the client asked for.
    pub address: Address,
    /// The port that the client asked for, in network order.
    pub port: u16,
    /// The family of the client's socket.
    pub family: u16,
    /// The number of the import.
    pub import: u32,
    /// The client's cgroup.
    pub cgroup: u64,
    /// When the counters were last read, in monotonic time.
    pub updated_ns: u64,
    /// Bytes that the gateway acknowledged.
    pub bytes_sent: u64,
    /// Bytes received from the gateway.
    pub bytes_received: u64,
    /// The smoothed round-trip time in microseconds.
    pub rtt_us: u32,
    /// Segments that were sent again.
    pub retransmits: u32,
    /// The TCP state, as the kernel numbers it.
    pub state: u32,
    /// Always zero.
    pub padding: u32,
}

/// A connect that was refused for want of a verdict.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The address that the client asked for.
    pub address: Address,
    /// The port that the client asked for, in network order.
    pub port: u16,
    /// The family of the client's socket.
    pub family: u16,
    /// The number of the import.
    pub import: u32,
    /// The client's cgroup.
    pub cgroup: u64,
    /// When, in monotonic time.
    pub time_ns: u64,
    /// The client's identity class.
    pub class: u32,
    /// The client's process, as the initial pid namespace numbers it.
    pub pid: u32,
}

/// The agent's probe: armed with the cookie of one socket, answered by the hook.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// The socket whose connect counts.
    pub socket_cookie: u64,
    /// The network namespace of the connect.
    pub netns_cookie: u64,
    /// The process that connected, as the initial pid namespace numbers it.
    pub tgid: u32,
    /// 1 once the hook ran.
    pub seen: u32,
}

const _: () = {
    assert!(size_of::<ServiceKey>() == 20);
    assert!(size_of::<Service>() == 8);
    assert!(size_of::<Gateway>() == 72);
    assert!(size_of::<TargetKey>() == 20);
    assert!(size_of::<Target>() == 4);
    assert!(size_of::<VerdictKey>() == 8);
    assert!(size_of::<Verdicts>() == 64);
    assert!(size_of::<Origin>() == 56);
    assert!(size_of::<Tuple>() == 36);
    assert!(size_of::<Flow>() == 72);
    assert!(size_of::<Refusal>() == 48);
    assert!(size_of::<Probe>() == 24);
    assert!(core::mem::offset_of!(Gateway, netns_cookie) == 40);
    assert!(core::mem::offset_of!(Gateway, heartbeat_ns) == 48);
    assert!(core::mem::offset_of!(Origin, cgroup) == 24);
    assert!(core::mem::offset_of!(Flow, updated_ns) == 32);
};

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn address(text: &str) -> Address {
        address::from_ip(text.parse::<IpAddr>().unwrap())
    }

    fn gateway() -> Gateway {
        Gateway {
            v4: address("169.254.77.1"),
            v6: [0; 4],
            port_v4: 15001_u16.to_be(),
            port_v6: 0,
            flags: 0,
            netns_cookie: 1,
            heartbeat_ns: 0,
            tgid: 0,
            listeners: 0,
            target_sockets_v4: 0,
            target_sockets_v6: 0,
        }
    }

    #[test]
    fn a_gateway_serves_its_own_address_and_port_only() {
        let gateway = gateway();
        let port = 15001_u16.to_be();
        assert!(gateway.serves(&address("169.254.77.1"), port));
        assert!(gateway.serves(&address("::ffff:169.254.77.1"), port));
        assert!(!gateway.serves(&address("169.254.77.2"), port));
        assert!(!gateway.serves(&address("169.254.77.1"), 15002_u16.to_be()));
    }

    #[test]
    fn a_family_without_an_address_serves_nothing() {
        assert!(!gateway().serves(&address("::"), 0));
        assert!(!gateway().serves(&address("::"), 15001_u16.to_be()));
    }

    #[test]
    fn a_marker_is_never_the_key_of_a_service() {
        let address = address("10.114.0.1");
        assert_ne!(ServiceKey::marker(address), ServiceKey::tcp(address, 0));
    }
}
