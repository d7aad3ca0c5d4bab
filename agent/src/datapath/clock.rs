//! The clock that the hooks read.

use rustix::time::{ClockId, clock_gettime};

/// Monotonic time, as `bpf_ktime_get_ns` tells it.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds * 1_000_000_000 + nanoseconds
}
