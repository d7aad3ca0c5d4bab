//! `connections`: follows steered connections, and carries the record of each from the client's
//! socket to the one that the gateway accepts.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_TCP_CLOSE, BPF_TCP_SYN_SENT,
    },
    helpers::bpf_ktime_get_ns,
    macros::sock_ops,
    programs::SockOpsContext,
};
use clusterlink_ebpf_common::{
    address,
    layout::{Flow, Gateway, Origin, Tuple},
    reason::Reason,
    rule,
};

use crate::{context, features, maps};

/// What every sock_ops program returns.
const DONE: u32 = 1;

/// Tracks steered connections and carries their records to the gateway.
#[sock_ops]
pub(crate) fn connections(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ctx),
        BPF_SOCK_OPS_RTT_CB => measured(&ctx),
        BPF_SOCK_OPS_STATE_CB => changed(&ctx),
        _ => {}
    }
    DONE
}

/// A socket of ours sends its SYN. Its own address and port are known by now.
#[inline(always)]
fn connecting(ctx: &SockOpsContext) {
    let Some(gateway) = maps::gateway() else {
        return;
    };
    let port = context::remote_port(ctx);
    if port != gateway.port_v4 && port != gateway.port_v6 {
        return;
    }
    let tuple = context::tuple_from_client(ctx);
    if !gateway.serves(&tuple.gateway, tuple.gateway_port) {
        return;
    }
    let Some(socket) = context::tcp_socket(ctx) else {
        return;
    };
    match maps::steered(socket) {
        Some(origin) => steered(ctx, &tuple, origin),
        // Without a record, what an earlier connection left must not speak for this one.
        None if may_forget(ctx, gateway, &tuple) => maps::forget_hand_off(&tuple),
        None => {}
    }
}

#[inline(always)]
fn steered(ctx: &SockOpsContext, tuple: &Tuple, origin: &Origin) {
    if !maps::hand_off(tuple, origin) {
        maps::count(Reason::HandoffFailed);
    }
    let flow = Flow {
        address: origin.address,
        port: origin.port,
        family: origin.family,
        import: origin.import,
        cgroup: origin.cgroup,
        updated_ns: origin.time_ns,
        bytes_sent: 0,
        bytes_received: 0,
        rtt_us: 0,
        retransmits: 0,
        state: BPF_TCP_SYN_SENT,
        padding: 0,
    };
    if !maps::open_flow(origin.socket_cookie, &flow) {
        maps::count(Reason::FlowsFull);
        return;
    }
    // Other programs may have asked for callbacks of their own.
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG;
    if ctx.set_cb_flags(flags as i32).is_err() {
        maps::close_flow(origin.socket_cookie);
    }
}

/// Whether a connect without a record can be to our gateway. Another peer on this host may use the
/// same gateway address in a namespace of its own; connects from there start at that very address,
/// and would otherwise remove records of ours.
#[inline(always)]
fn may_forget(ctx: &SockOpsContext, gateway: &Gateway, tuple: &Tuple) -> bool {
    if !address::same(&tuple.client, &tuple.gateway) || !features::sock_ops_netns() {
        return true;
    }
    context::tcp_netns_cookie(ctx) == gateway.netns_cookie
}

/// The gateway accepts a connection.
#[inline(always)]
fn accepted(ctx: &SockOpsContext) {
    let Some(gateway) = maps::gateway() else {
        return;
    };
    let port = context::local_port(ctx);
    if port != gateway.port_v4 && port != gateway.port_v6 {
        return;
    }
    let tuple = context::tuple_from_gateway(ctx);
    if !gateway.serves(&tuple.gateway, tuple.gateway_port) {
        return;
    }
    if features::sock_ops_netns() && context::tcp_netns_cookie(ctx) != gateway.netns_cookie {
        return;
    }
    let Some(origin) = maps::handed_off(&tuple) else {
        maps::count(Reason::HandoffMissing);
        return;
    };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    if !rule::is_current(now, origin.time_ns) {
        maps::count(Reason::HandoffExpired);
    } else if let Some(socket) = context::tcp_socket(ctx)
        && !maps::set_origin(socket, origin)
    {
        maps::count(Reason::HandoffFailed);
    }
    maps::forget_hand_off(&tuple);
}

/// TCP took a sample of the round-trip time: the moment to read its counters, now and then.
#[inline(always)]
fn measured(ctx: &SockOpsContext) {
    let Some(flow) = maps::flow(context::tcp_socket_cookie(ctx)) else {
        return;
    };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    if now.saturating_sub(flow.updated_ns) >= rule::FLOW_UPDATE_NS || flow.rtt_us == 0 {
        update(ctx, flow, now);
    }
}

/// The TCP state changes.
#[inline(always)]
fn changed(ctx: &SockOpsContext) {
    let cookie = context::tcp_socket_cookie(ctx);
    let state = ctx.arg(1);
    if state == BPF_TCP_CLOSE {
        maps::close_flow(cookie);
    } else if let Some(flow) = maps::flow(cookie) {
        flow.state = state;
        // SAFETY: the helper takes nothing.
        let now = unsafe { bpf_ktime_get_ns() };
        update(ctx, flow, now);
    }
}

#[inline(always)]
fn update(ctx: &SockOpsContext, flow: &mut Flow, now: u64) {
    let measurement = context::measurement(ctx);
    flow.updated_ns = now;
    flow.rtt_us = measurement.rtt_us;
    flow.retransmits = measurement.retransmits;
    flow.bytes_sent = measurement.bytes_sent;
    flow.bytes_received = measurement.bytes_received;
}
