//! `target_lookup`: a connection to a leased port of this node goes to the gateway, or is refused.
//!
//! It runs before ordinary listeners are looked for, for every new connection to this network
//! namespace: whatever is not in TARGETS is left alone, or a node would lose its ssh and its kubelet.

use aya_ebpf::{
    bindings::sk_action::{SK_DROP, SK_PASS},
    helpers::bpf_ktime_get_ns,
    macros::sk_lookup,
    programs::SkLookupContext,
};
use clusterlink_ebpf_common::{
    TCP, address,
    layout::TargetKey,
    maps::MAX_TARGET_SOCKETS,
    reason::Reason,
    rule::{self, Handling},
};

use crate::{context, maps};

/// Where the sockets of IPv6 begin.
const FIRST_V6: u32 = MAX_TARGET_SOCKETS / 2;

/// What becomes of a connection.
enum Outcome {
    /// It is none of ours.
    Unmatched,
    /// The gateway has been gone for so long that we stay out of the way.
    Inert,
    /// The gateway gets it.
    Handed,
    /// The gateway is not heard of.
    GatewayStale,
    /// The gateway's socket is gone.
    GatewayGone,
}

/// Hands connections to leased ports to the gateway.
#[sk_lookup]
pub(crate) fn target_lookup(ctx: SkLookupContext) -> u32 {
    // Passing without a socket leaves the choice to the kernel; a drop is a reset to the client.
    let (reason, verdict) = match look_up(&ctx) {
        Outcome::Unmatched => (None, SK_PASS),
        Outcome::Inert => (Some(Reason::TargetPassedInert), SK_PASS),
        Outcome::Handed => (Some(Reason::TargetHanded), SK_PASS),
        Outcome::GatewayStale => (Some(Reason::TargetRefusedStale), SK_DROP),
        Outcome::GatewayGone => (Some(Reason::TargetRefusedGone), SK_DROP),
    };
    if let Some(reason) = reason {
        maps::count(reason);
    }
    verdict
}

#[inline(always)]
fn look_up(ctx: &SkLookupContext) -> Outcome {
    if context::lookup_protocol(ctx) != u32::from(TCP) {
        return Outcome::Unmatched;
    }
    let (local, remote) = context::lookup_ends(ctx);
    if !maps::is_target(&TargetKey::new(local.address, local.port)) {
        return Outcome::Unmatched;
    }
    let Some(gateway) = maps::gateway() else {
        return Outcome::GatewayGone;
    };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    match rule::handling(rule::liveness(now, gateway.heartbeat_ns)) {
        Handling::Gateway => {}
        Handling::Refuse => return Outcome::GatewayStale,
        Handling::Leave => return Outcome::Inert,
    }
    let (first, sockets) = if address::is_v4(&local.address) {
        (0, gateway.target_sockets_v4)
    } else {
        (FIRST_V6, gateway.target_sockets_v6)
    };
    if sockets == 0 {
        return Outcome::GatewayGone;
    }
    let slot = first + rule::spread(&remote.address, remote.port, local.port, sockets);
    if maps::hand_over(ctx, slot) {
        Outcome::Handed
    } else {
        Outcome::GatewayGone
    }
}
