//! What the loader found out about the kernel. These are constants by the time the verifier looks,
//! so branches that this kernel cannot run are never checked.

use aya_ebpf::Global;

/// `bpf_set_retval` can be called from the connect hooks (Linux 5.18).
// SAFETY: the loader finds the constant by this symbol; nothing else has the name.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: Global<u32> = Global::new(1);

/// `bpf_get_netns_cookie` can be called from sock_ops (Linux 5.15).
// SAFETY: the loader finds the constant by this symbol; nothing else has the name.
#[unsafe(no_mangle)]
static HAS_SOCK_OPS_NETNS: Global<u32> = Global::new(1);

/// Whether a refusal can have an errno of its own.
#[inline(always)]
pub(crate) fn set_retval() -> bool {
    HAS_SET_RETVAL.load() != 0
}

/// Whether sock_ops can tell network namespaces apart.
#[inline(always)]
pub(crate) fn sock_ops_netns() -> bool {
    HAS_SOCK_OPS_NETNS.load() != 0
}
