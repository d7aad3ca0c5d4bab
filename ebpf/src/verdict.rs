//! What a connect or a datagram comes to, and what the kernel is told. Whether each case passes or
//! is refused is visible here.

use aya_ebpf::helpers::generated::bpf_set_retval;
use clusterlink_ebpf_common::reason::Reason;

use crate::{features, maps};

/// Why something goes on.
pub(crate) enum Passed {
    /// It is none of ours.
    Unmatched,
    /// It was sent to the gateway.
    Steered,
    /// It is the gateway's own.
    Exempt,
    /// The gateway has been gone for so long that we stay out of the way.
    Inert,
    /// The gateway is not heard of, and another path is there to take over.
    Stale,
}

/// Why something is refused.
pub(crate) enum Refused {
    /// No verdict allows it.
    Denied,
    /// None of the gateway's listeners lives.
    GatewayGone,
    /// The gateway is not heard of.
    GatewayStale,
    /// The gateway has no address of that family.
    NoGatewayAddress,
    /// There was no memory for the record.
    NoMemory,
    /// Only TCP is shared.
    NotTcp,
    /// It was the agent's probe, which goes nowhere.
    Probed,
}

/// `ECONNREFUSED`, as the kernel wants it.
const CONNECTION_REFUSED: i32 = -111;

/// What a hook returns to let the kernel go on.
pub(crate) const PASS: i32 = 1;

/// What a hook returns to fail the call: with `EPERM`, unless another errno was set.
const FAIL: i32 = 0;

/// Counts what happened and turns it into the hook's return value.
#[inline(always)]
pub(crate) fn answer(result: Result<Passed, Refused>) -> i32 {
    let (reason, verdict) = match result {
        Ok(Passed::Unmatched) => (None, PASS),
        Ok(Passed::Steered) => (Some(Reason::Steered), PASS),
        Ok(Passed::Exempt) => (Some(Reason::Exempt), PASS),
        Ok(Passed::Inert) => (Some(Reason::PassedInert), PASS),
        Ok(Passed::Stale) => (Some(Reason::PassedStale), PASS),
        Err(Refused::Denied) => (Some(Reason::RefusedDenied), FAIL),
        Err(Refused::GatewayGone) => (Some(Reason::RefusedGatewayGone), FAIL),
        Err(Refused::GatewayStale) => (Some(Reason::RefusedGatewayStale), FAIL),
        Err(Refused::NoGatewayAddress) => (Some(Reason::RefusedNoGatewayAddress), FAIL),
        Err(Refused::NoMemory) => (Some(Reason::RefusedNoMemory), FAIL),
        Err(Refused::NotTcp) => (Some(Reason::RefusedNotTcp), FAIL),
        Err(Refused::Probed) => (Some(Reason::Probed), FAIL),
    };
    if let Some(reason) = reason {
        maps::count(reason);
    }
    if verdict == FAIL && features::set_retval() {
        // SAFETY: the helper takes a number and has no memory to get wrong.
        let _ = unsafe { bpf_set_retval(CONNECTION_REFUSED) };
    }
    verdict
}
