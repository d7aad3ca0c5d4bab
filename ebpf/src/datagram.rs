//! `sendmsg4` and `sendmsg6`: datagrams to an imported address are refused, not leaked.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::cgroup_sock_addr, programs::SockAddrContext};
use clusterlink_ebpf_common::{
    layout::{Gateway, ServiceKey},
    rule::{self, Liveness},
};

use crate::{
    context::{self, INET, INET6},
    maps,
    verdict::{Passed, Refused, answer},
};

/// Refuses IPv4 datagrams to imported addresses.
#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn sendmsg4(ctx: SockAddrContext) -> i32 {
    answer(try_send(&ctx, INET))
}

/// Refuses IPv6 datagrams to imported addresses.
#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(ctx: SockAddrContext) -> i32 {
    answer(try_send(&ctx, INET6))
}

#[inline(always)]
fn try_send(ctx: &SockAddrContext, family: u16) -> Result<Passed, Refused> {
    let destination = context::destination(ctx, family);
    if maps::service(&ServiceKey::marker(destination.address)).is_none() {
        return Ok(Passed::Unmatched);
    }
    let Some(gateway) = maps::gateway() else {
        return Err(Refused::NotTcp);
    };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    match rule::liveness(now, gateway.heartbeat_ns) {
        Liveness::Inert => Ok(Passed::Inert),
        Liveness::Stale if gateway.flags & Gateway::PASS_WHEN_STALE != 0 => Ok(Passed::Stale),
        Liveness::Stale | Liveness::Fresh => Err(Refused::NotTcp),
    }
}
