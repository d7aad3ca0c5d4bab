//! The maps, behind functions that say what they are asked for. Who writes each is told in
//! `clusterlink_ebpf_common::maps`.

use core::ptr::{addr_of, null_mut};

use aya_ebpf::{
    bindings::{
        BPF_F_NO_PREALLOC, BPF_RB_NO_WAKEUP, BPF_SK_LOOKUP_F_NO_REUSEPORT,
        BPF_SK_STORAGE_GET_F_CREATE, bpf_sock,
    },
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, SkStorage, SockMap},
    helpers::generated::{
        bpf_map_lookup_elem, bpf_sk_release, bpf_sk_storage_delete, bpf_sk_storage_get,
    },
    macros::btf_map,
    programs::SkLookupContext,
};
use clusterlink_ebpf_common::{
    layout::{
        Flow, Gateway, Origin, Probe, Refusal, Service, ServiceKey, Target, TargetKey, Tuple,
        VerdictKey, Verdicts,
    },
    maps::{
        MAX_FLOWS, MAX_GATEWAYS, MAX_HANDOFF, MAX_IDENTITIES, MAX_LISTENERS, MAX_PROBES,
        MAX_SERVICES, MAX_TARGET_SOCKETS, MAX_TARGETS, MAX_VERDICTS, REFUSALS_BYTES,
    },
    reason::{self, Reason},
    rule,
};

/// Tables that are written rarely, or sparsely filled, take memory as they grow.
const GROWS: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
static SERVICES: HashMap<ServiceKey, Service, { MAX_SERVICES as usize }, GROWS> = HashMap::new();
#[btf_map]
static GATEWAYS: Array<Gateway, { MAX_GATEWAYS as usize }> = Array::new();
#[btf_map]
static IDENTITIES: HashMap<u64, u32, { MAX_IDENTITIES as usize }, GROWS> = HashMap::new();
#[btf_map]
static VERDICTS: HashMap<VerdictKey, Verdicts, { MAX_VERDICTS as usize }, GROWS> = HashMap::new();
#[btf_map]
static LISTENERS: SockMap<{ MAX_LISTENERS as usize }> = SockMap::new();
#[btf_map]
static TARGETS: HashMap<TargetKey, Target, { MAX_TARGETS as usize }, GROWS> = HashMap::new();
#[btf_map]
static TARGET_SOCKETS: SockMap<{ MAX_TARGET_SOCKETS as usize }> = SockMap::new();
#[btf_map]
static STEERED: SkStorage<Origin> = SkStorage::new();
#[btf_map]
static HANDOFF: LruHashMap<Tuple, Origin, { MAX_HANDOFF as usize }> = LruHashMap::new();
#[btf_map]
static ORIGINS: SkStorage<Origin> = SkStorage::new();
#[btf_map]
static FLOWS: HashMap<u64, Flow, { MAX_FLOWS as usize }, GROWS> = HashMap::new();
#[btf_map]
static REFUSALS: RingBuf<Refusal, { REFUSALS_BYTES as usize }> = RingBuf::new();
#[btf_map]
static PROBES: Array<Probe, { MAX_PROBES as usize }> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { reason::COUNT as usize }> = PerCpuArray::new();

/// What a connect to this key means.
#[inline(always)]
pub(crate) fn service(key: &ServiceKey) -> Option<Service> {
    // SAFETY: the entry is two words that only the agent writes, and it is copied at once; a
    // concurrent update can at worst mix an old import with a new flag of the same key.
    unsafe { SERVICES.get(key) }.copied()
}

/// The gateway.
#[inline(always)]
pub(crate) fn gateway() -> Option<&'static Gateway> {
    // The entry lives as long as the program: arrays have no deletion.
    let gateway = GATEWAYS.get(0)?;
    // SAFETY: as above; fields are written by the agent alone, each by one aligned store.
    Some(unsafe { &*core::ptr::from_ref(gateway) })
}

/// The identity class of a cgroup.
#[inline(always)]
pub(crate) fn class(cgroup: u64) -> Option<u32> {
    // SAFETY: one aligned word, copied at once.
    unsafe { IDENTITIES.get(cgroup) }.copied()
}

/// Whether a class may reach an import.
#[inline(always)]
pub(crate) fn allows(class: u32, import: u32) -> bool {
    // SAFETY: the agent replaces the entry as a whole, and the one word read is aligned.
    let verdicts = unsafe {
        VERDICTS.get(VerdictKey {
            class,
            block: rule::block(import),
        })
    };
    verdicts.is_some_and(|verdicts| rule::allows(verdicts, import))
}

/// Whether one of the gateway's first `used` listeners lives.
#[inline(always)]
pub(crate) fn listener_lives(used: u32) -> bool {
    let mut slot = 0;
    while slot < MAX_LISTENERS && slot < used {
        // SAFETY: the map and the key are valid for the call. The kernel hands out a socket only
        // with a reference, which is given back at once.
        unsafe {
            let socket =
                bpf_map_lookup_elem(addr_of!(LISTENERS).cast_mut().cast(), addr_of!(slot).cast());
            if !socket.is_null() {
                bpf_sk_release(socket);
                return true;
            }
        }
        slot += 1;
    }
    false
}

/// Whether a port at an address is leased to an import.
#[inline(always)]
pub(crate) fn is_target(key: &TargetKey) -> bool {
    // SAFETY: only whether there is an entry is asked for, its content is not read.
    unsafe { TARGETS.get(key) }.is_some()
}

/// Gives a connection to one of the gateway's sockets of the Service path; `false` if it is gone.
#[inline(always)]
pub(crate) fn hand_over(ctx: &SkLookupContext, slot: u32) -> bool {
    TARGET_SOCKETS
        .redirect_sk_lookup(ctx, slot, BPF_SK_LOOKUP_F_NO_REUSEPORT.into())
        .is_ok()
}

/// The record of the connect that steered a client's socket.
#[inline(always)]
pub(crate) fn steered(socket: *mut bpf_sock) -> Option<&'static Origin> {
    // SAFETY: the map is valid, and the socket is the context's; the storage lives as long as the
    // socket, hence longer than the program runs.
    unsafe {
        bpf_sk_storage_get(
            addr_of!(STEERED).cast_mut().cast(),
            socket.cast(),
            null_mut(),
            0,
        )
        .cast::<Origin>()
        .as_ref()
    }
}

/// Keeps the record of a connect on the client's socket; `false` if there is no memory.
#[inline(always)]
pub(crate) fn set_steered(socket: *mut bpf_sock, origin: &Origin) -> bool {
    // SAFETY: as for `steered`; nobody else writes a socket's record while it connects.
    unsafe { store(addr_of!(STEERED).cast_mut().cast(), socket, origin) }
}

/// Forgets what an earlier connect left on a client's socket.
#[inline(always)]
pub(crate) fn clear_steered(socket: *mut bpf_sock) {
    // SAFETY: the map is valid, and the socket is the context's. It is no error if there is none.
    let _ = unsafe { bpf_sk_storage_delete(addr_of!(STEERED).cast_mut().cast(), socket.cast()) };
}

/// Keeps the record of a client on the socket that the gateway accepted.
#[inline(always)]
pub(crate) fn set_origin(socket: *mut bpf_sock, origin: &Origin) -> bool {
    // SAFETY: as for `set_steered`.
    unsafe { store(addr_of!(ORIGINS).cast_mut().cast(), socket, origin) }
}

/// Puts a record where the accepting side will look for it; `false` if that failed.
#[inline(always)]
pub(crate) fn hand_off(tuple: &Tuple, origin: &Origin) -> bool {
    HANDOFF.insert(tuple, origin, 0).is_ok()
}

/// Takes the record of a connection that is being accepted.
#[inline(always)]
pub(crate) fn handed_off(tuple: &Tuple) -> Option<&'static Origin> {
    // SAFETY: memory of a removed entry is not given back before the program ends, and a tuple is
    // only written again by a connect that cannot happen before this one is accepted.
    unsafe {
        HANDOFF
            .get(tuple)
            .map(|origin| &*core::ptr::from_ref(origin))
    }
}

/// Removes a record, so that it cannot speak for a later connection.
#[inline(always)]
pub(crate) fn forget_hand_off(tuple: &Tuple) {
    // It is no error if there is none.
    let _ = HANDOFF.remove(tuple);
}

/// Adds an open connection; `false` if the table is full.
#[inline(always)]
pub(crate) fn open_flow(socket_cookie: u64, flow: &Flow) -> bool {
    FLOWS.insert(socket_cookie, flow, 0).is_ok()
}

/// An open connection, to be updated.
#[inline(always)]
pub(crate) fn flow(socket_cookie: u64) -> Option<&'static mut Flow> {
    // SAFETY: an entry is only written under the lock of the socket whose cookie it has.
    FLOWS
        .get_ptr_mut(socket_cookie)
        .map(|flow| unsafe { &mut *flow })
}

/// Removes a connection that has closed.
#[inline(always)]
pub(crate) fn close_flow(socket_cookie: u64) {
    // It is no error if it was never added.
    let _ = FLOWS.remove(socket_cookie);
}

/// Tells the agent of a refusal. The agent looks regularly; waking it would cost more than the
/// refusal itself.
#[inline(always)]
pub(crate) fn report(refusal: Refusal) -> bool {
    let Some(mut entry) = REFUSALS.reserve(0) else {
        return false;
    };
    entry.write(refusal);
    entry.submit(BPF_RB_NO_WAKEUP.into());
    true
}

/// The agent's probe.
#[inline(always)]
pub(crate) fn probe() -> Option<*mut Probe> {
    PROBES.get_ptr_mut(0)
}

/// Counts.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: the slot belongs to this CPU, and cgroup programs do not migrate.
        unsafe { *counter += 1 };
    }
}

/// # Safety
/// `map` is an `SkStorage<Origin>`, `socket` the context's.
#[inline(always)]
unsafe fn store(map: *mut core::ffi::c_void, socket: *mut bpf_sock, origin: &Origin) -> bool {
    // SAFETY: upheld by the caller; the storage has the size of an `Origin`.
    unsafe {
        let slot = bpf_sk_storage_get(
            map,
            socket.cast(),
            null_mut(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
        .cast::<Origin>();
        if slot.is_null() {
            return false;
        }
        *slot = *origin;
    }
    true
}
