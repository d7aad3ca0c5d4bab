//! `connect4` and `connect6`: a connect to an imported address goes to the gateway, or fails.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use aya_log_ebpf::{debug, trace};
use clusterlink_ebpf_common::{
    TCP, address,
    layout::{Gateway, Origin, Refusal, Service, ServiceKey},
    reason::Reason,
    rule::{self, Liveness},
};

use crate::{
    context::{self, Destination, INET, INET6},
    identity::{self, Identity},
    maps,
    verdict::{Passed, Refused, answer},
};

/// Steers IPv4 connects.
#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(ctx: SockAddrContext) -> i32 {
    answer(try_connect(&ctx, INET))
}

/// Steers IPv6 connects.
#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    answer(try_connect(&ctx, INET6))
}

#[inline(always)]
fn try_connect(ctx: &SockAddrContext, family: u16) -> Result<Passed, Refused> {
    let passed = try_steer(ctx, family)?;
    if !matches!(passed, Passed::Steered) {
        // An earlier connect of this socket may have been steered, and this one is not.
        maps::clear_steered(context::socket(ctx));
    }
    Ok(passed)
}

#[inline(always)]
fn try_steer(ctx: &SockAddrContext, family: u16) -> Result<Passed, Refused> {
    let destination = context::destination(ctx, family);
    let is_tcp = context::protocol(ctx) == u32::from(TCP);
    let key = if is_tcp {
        ServiceKey::tcp(destination.address, destination.port)
    } else {
        ServiceKey::marker(destination.address)
    };
    let Some(service) = maps::service(&key) else {
        return Ok(Passed::Unmatched);
    };
    let Some(gateway) = maps::gateway() else {
        return Err(Refused::GatewayGone);
    };
    if service.flags & Service::PROBE != 0 {
        return if answer_probe(ctx) {
            Err(Refused::Probed)
        } else {
            Ok(Passed::Unmatched)
        };
    }

    // SAFETY: the helpers take nothing.
    let (now, process) = unsafe { (bpf_ktime_get_ns(), bpf_get_current_pid_tgid()) };
    let process = (process >> 32) as u32;
    let liveness = rule::liveness(now, gateway.heartbeat_ns);
    match liveness {
        Liveness::Inert => return Ok(Passed::Inert),
        Liveness::Stale if gateway.flags & Gateway::PASS_WHEN_STALE != 0 => {
            return Ok(Passed::Stale);
        }
        Liveness::Stale | Liveness::Fresh => {}
    }
    if !is_tcp {
        return Err(Refused::NotTcp);
    }
    if matches!(liveness, Liveness::Stale) {
        return Err(Refused::GatewayStale);
    }
    if process == gateway.tgid {
        return Ok(Passed::Exempt);
    }
    if !maps::listener_lives(gateway.listeners) {
        return Err(Refused::GatewayGone);
    }

    let client = identity::of_current_process(ctx, gateway);
    if client.class != identity::UNKNOWN && !maps::allows(client.class, service.import) {
        report(destination, family, service.import, client, process, now);
        debug!(
            ctx,
            "import {} is denied to class {} (cgroup {})",
            service.import,
            client.class,
            client.cgroup
        );
        return Err(Refused::Denied);
    }
    // A v4-mapped destination is an IPv4 connection, whatever the socket's family.
    let (to, port) = if address::is_v4(&destination.address) {
        (gateway.v4, gateway.port_v4)
    } else {
        (gateway.v6, gateway.port_v6)
    };
    if port == 0 {
        return Err(Refused::NoGatewayAddress);
    }
    let origin = Origin {
        address: destination.address,
        port: destination.port,
        family,
        import: service.import,
        cgroup: client.cgroup,
        netns_cookie: context::netns_cookie(ctx),
        socket_cookie: context::socket_cookie(ctx),
        time_ns: now,
    };
    if !maps::set_steered(context::socket(ctx), &origin) {
        return Err(Refused::NoMemory);
    }
    context::set_destination(ctx, family, Destination { address: to, port });
    trace!(
        ctx,
        "import {} is steered for class {} (cgroup {})",
        service.import,
        client.class,
        client.cgroup
    );
    Ok(Passed::Steered)
}

#[inline(always)]
fn report(
    destination: Destination,
    family: u16,
    import: u32,
    client: Identity,
    pid: u32,
    time_ns: u64,
) {
    let refusal = Refusal {
        address: destination.address,
        port: destination.port,
        family,
        import,
        cgroup: client.cgroup,
        time_ns,
        class: client.class,
        pid,
    };
    if !maps::report(refusal) {
        maps::count(Reason::RefusalsFull);
    }
}

/// Answers the agent's probe; `false` if this is somebody else's connect to the probe's address.
#[inline(always)]
fn answer_probe(ctx: &SockAddrContext) -> bool {
    let Some(probe) = maps::probe() else {
        return false;
    };
    // SAFETY: the entry lives as long as the program. The agent arms it before it connects and
    // reads it after the connect returned.
    unsafe {
        if (*probe).socket_cookie != context::socket_cookie(ctx) {
            return false;
        }
        (*probe).netns_cookie = context::netns_cookie(ctx);
        (*probe).tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*probe).seen = 1;
    }
    true
}
