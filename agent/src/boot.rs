//! This boot of the node, and the time since it: what is kept on the node is good for one boot only.

use std::{fs, io, sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// Names the present boot.
pub fn id() -> io::Result<Arc<str>> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .into())
}

/// Time since the boot; it goes on while the node sleeps, and over restarts of this process.
pub fn time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}
