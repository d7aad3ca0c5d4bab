//! Reading and writing the contexts of the hooks.
//!
//! Every field is accessed by itself and volatile: the verifier allows no arithmetic on a context
//! pointer, which is what the compiler makes of an array that is read as a whole.

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::{SkLookupContext, SockAddrContext, SockOpsContext},
};
use clusterlink_ebpf_common::{
    address::{self, Address},
    layout::Tuple,
};

/// `AF_INET`.
pub(crate) const INET: u16 = 2;
/// `AF_INET6`.
pub(crate) const INET6: u16 = 10;

macro_rules! read {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the kernel gives every program a valid context, and the field is in it.
        unsafe { addr_of!((*$context).$($field)+).read_volatile() }
    };
}

macro_rules! place {
    ($context:expr, $($field:tt)+) => {
        addr_of_mut!((*$context).$($field)+)
    };
}

/// Where a call wants to go.
#[derive(Clone, Copy)]
pub(crate) struct Destination {
    /// The address.
    pub(crate) address: Address,
    /// The port, in network order.
    pub(crate) port: u16,
}

/// The address and port in a sock_addr context of this family.
#[inline(always)]
pub(crate) fn destination(ctx: &SockAddrContext, family: u16) -> Destination {
    let port = read!(ctx.sock_addr, user_port) as u16;
    let address = if family == INET {
        address::from_v4(read!(ctx.sock_addr, user_ip4))
    } else {
        [
            read!(ctx.sock_addr, user_ip6[0]),
            read!(ctx.sock_addr, user_ip6[1]),
            read!(ctx.sock_addr, user_ip6[2]),
            read!(ctx.sock_addr, user_ip6[3]),
        ]
    };
    Destination { address, port }
}

/// Replaces the address and port in a sock_addr context of this family.
#[inline(always)]
pub(crate) fn set_destination(ctx: &SockAddrContext, family: u16, to: Destination) {
    // SAFETY: as for `read`; and the hooks that call this may write these fields.
    unsafe {
        if family == INET {
            place!(ctx.sock_addr, user_ip4).write_volatile(to.address[3]);
        } else {
            place!(ctx.sock_addr, user_ip6[0]).write_volatile(to.address[0]);
            place!(ctx.sock_addr, user_ip6[1]).write_volatile(to.address[1]);
            place!(ctx.sock_addr, user_ip6[2]).write_volatile(to.address[2]);
            place!(ctx.sock_addr, user_ip6[3]).write_volatile(to.address[3]);
        }
        place!(ctx.sock_addr, user_port).write_volatile(u32::from(to.port));
    }
}

/// The IP protocol of the socket.
#[inline(always)]
pub(crate) fn protocol(ctx: &SockAddrContext) -> u32 {
    read!(ctx.sock_addr, protocol)
}

/// The socket of a sock_addr context.
#[inline(always)]
pub(crate) fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    read!(ctx.sock_addr, __bindgen_anon_1.sk)
}

/// The cookie of the socket of a sock_addr context.
#[inline(always)]
pub(crate) fn socket_cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes this program's own context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// The network namespace of the socket of a sock_addr context.
#[inline(always)]
pub(crate) fn netns_cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes this program's own context.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// The socket of a sock_ops context, if it is a full one.
#[inline(always)]
pub(crate) fn tcp_socket(ctx: &SockOpsContext) -> Option<*mut bpf_sock> {
    let socket = read!(ctx.ops, __bindgen_anon_2.sk);
    if socket.is_null() { None } else { Some(socket) }
}

/// The cookie of the socket of a sock_ops context.
#[inline(always)]
pub(crate) fn tcp_socket_cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper takes this program's own context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// The network namespace of the socket of a sock_ops context. Only to be called where the kernel
/// has the helper.
#[inline(always)]
pub(crate) fn tcp_netns_cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper takes this program's own context.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// The connection of a sock_ops context, when ours is the client's end.
#[inline(always)]
pub(crate) fn tuple_from_client(ctx: &SockOpsContext) -> Tuple {
    let (local, remote) = ends(ctx);
    Tuple {
        client: local.address,
        gateway: remote.address,
        client_port: local.port,
        gateway_port: remote.port,
    }
}

/// The connection of a sock_ops context, when ours is the gateway's end.
#[inline(always)]
pub(crate) fn tuple_from_gateway(ctx: &SockOpsContext) -> Tuple {
    let (local, remote) = ends(ctx);
    Tuple {
        client: remote.address,
        gateway: local.address,
        client_port: remote.port,
        gateway_port: local.port,
    }
}

/// The remote port of a sock_ops context, in network order.
#[inline(always)]
pub(crate) fn remote_port(ctx: &SockOpsContext) -> u16 {
    address::remote_port(read!(ctx.ops, remote_port))
}

/// The local port of a sock_ops context, in network order.
#[inline(always)]
pub(crate) fn local_port(ctx: &SockOpsContext) -> u16 {
    address::local_port(read!(ctx.ops, local_port))
}

/// What TCP measured on a connection.
pub(crate) struct Measurement {
    /// The smoothed round-trip time in microseconds.
    pub(crate) rtt_us: u32,
    /// Segments that were sent again.
    pub(crate) retransmits: u32,
    /// Bytes that the other end acknowledged.
    pub(crate) bytes_sent: u64,
    /// Bytes received.
    pub(crate) bytes_received: u64,
}

/// What TCP measured on the connection of a sock_ops context.
#[inline(always)]
pub(crate) fn measurement(ctx: &SockOpsContext) -> Measurement {
    Measurement {
        // The kernel keeps eight times the value.
        rtt_us: read!(ctx.ops, srtt_us) >> 3,
        retransmits: read!(ctx.ops, total_retrans),
        bytes_sent: read!(ctx.ops, bytes_acked),
        bytes_received: read!(ctx.ops, bytes_received),
    }
}

/// The IP protocol of a sk_lookup context.
#[inline(always)]
pub(crate) fn lookup_protocol(ctx: &SkLookupContext) -> u32 {
    read!(ctx.lookup, protocol)
}

/// The two ends of a sk_lookup context: ours, and the client's.
#[inline(always)]
pub(crate) fn lookup_ends(ctx: &SkLookupContext) -> (Destination, Destination) {
    // Read in either case: of two branches that both end with a load, the compiler makes one load from
    // a computed address.
    let mut local = address::from_v4(read!(ctx.lookup, local_ip4));
    let mut remote = address::from_v4(read!(ctx.lookup, remote_ip4));
    if read!(ctx.lookup, family) == u32::from(INET6) {
        local = [
            read!(ctx.lookup, local_ip6[0]),
            read!(ctx.lookup, local_ip6[1]),
            read!(ctx.lookup, local_ip6[2]),
            read!(ctx.lookup, local_ip6[3]),
        ];
        remote = [
            read!(ctx.lookup, remote_ip6[0]),
            read!(ctx.lookup, remote_ip6[1]),
            read!(ctx.lookup, remote_ip6[2]),
            read!(ctx.lookup, remote_ip6[3]),
        ];
    }
    (
        Destination {
            address: local,
            port: address::local_port(read!(ctx.lookup, local_port)),
        },
        Destination {
            address: remote,
            port: read!(ctx.lookup, remote_port),
        },
    )
}

#[inline(always)]
fn ends(ctx: &SockOpsContext) -> (Destination, Destination) {
    let mut local = address::from_v4(read!(ctx.ops, local_ip4));
    let mut remote = address::from_v4(read!(ctx.ops, remote_ip4));
    if read!(ctx.ops, family) == u32::from(INET6) {
        let remote6 = [
            read!(ctx.ops, remote_ip6[0]),
            read!(ctx.ops, remote_ip6[1]),
            read!(ctx.ops, remote_ip6[2]),
            read!(ctx.ops, remote_ip6[3]),
        ];
        // A v4-mapped socket has its addresses in the IPv4 fields; the local IPv6 field is not
        // filled before the connect returns.
        if !address::is_v4(&remote6) {
            remote = remote6;
            local = [
                read!(ctx.ops, local_ip6[0]),
                read!(ctx.ops, local_ip6[1]),
                read!(ctx.ops, local_ip6[2]),
                read!(ctx.ops, local_ip6[3]),
            ];
        }
    }
    (
        Destination {
            address: local,
            port: local_port(ctx),
        },
        Destination {
            address: remote,
            port: remote_port(ctx),
        },
    )
}
