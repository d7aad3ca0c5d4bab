//! Which class of clients the current process belongs to.

use aya_ebpf::{
    helpers::{bpf_get_current_cgroup_id, generated::bpf_get_current_ancestor_cgroup_id},
    programs::SockAddrContext,
};
use clusterlink_ebpf_common::layout::Gateway;

use crate::{context, maps};

/// The class of clients that nothing is known of: the gateway judges them.
pub(crate) const UNKNOWN: u32 = 0;

/// The class of the host's own processes.
const HOST: u32 = 1;

/// How deep in the tree a workload's cgroup may be. Kubernetes nests pods at level 4 at most; its
/// own containers, and cgroups that those make, are below and find it from there.
const DEEPEST: i32 = 16;

/// A client: its class, and the cgroup by which it is known.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    /// The class.
    pub(crate) class: u32,
    /// The cgroup that gave the class, else the process's own.
    pub(crate) cgroup: u64,
}

/// Who the current process is: the deepest cgroup above it that has a class decides. A process
/// without one is the host's if it uses the gateway's network namespace, else unknown.
#[inline(always)]
pub(crate) fn of_current_process(ctx: &SockAddrContext, gateway: &Gateway) -> Identity {
    // SAFETY: the helper takes nothing.
    let current = unsafe { bpf_get_current_cgroup_id() };
    if let Some(class) = maps::class(current) {
        return Identity {
            class,
            cgroup: current,
        };
    }
    let mut level = DEEPEST;
    while level > 0 {
        // SAFETY: the helper takes a number; it returns 0 for a level below the process's own.
        let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if ancestor != 0
            && ancestor != current
            && let Some(class) = maps::class(ancestor)
        {
            return Identity {
                class,
                cgroup: ancestor,
            };
        }
        level -= 1;
    }
    let class = if context::netns_cookie(ctx) == gateway.netns_cookie {
        HOST
    } else {
        UNKNOWN
    };
    Identity {
        class,
        cgroup: current,
    }
}
