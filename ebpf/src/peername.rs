//! `getpeername4` and `getpeername6`: the application sees the address that it connected to.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    context::{self, Destination, INET, INET6},
    maps,
    verdict::PASS,
};

/// Shows IPv4 clients the address that they asked for.
#[cgroup_sock_addr(getpeername4)]
pub(crate) fn getpeername4(ctx: SockAddrContext) -> i32 {
    restore(&ctx, INET);
    PASS
}

/// Shows IPv6 clients the address that they asked for.
#[cgroup_sock_addr(getpeername6)]
pub(crate) fn getpeername6(ctx: SockAddrContext) -> i32 {
    restore(&ctx, INET6);
    PASS
}

#[inline(always)]
fn restore(ctx: &SockAddrContext, family: u16) {
    // Sockets that the gateway accepted have their record in another map, so that the gateway
    // sees its clients' own addresses.
    if let Some(origin) = maps::steered(context::socket(ctx)) {
        let original = Destination {
            address: origin.address,
            port: origin.port,
        };
        context::set_destination(ctx, family, original);
    }
}
