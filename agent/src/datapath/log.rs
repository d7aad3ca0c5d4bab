//! What the hooks log, as events of this process.

use std::sync::Mutex;

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};

use super::{DatapathError, tables::lock};

/// The lines that the hooks have written.
pub(super) struct KernelLog {
    logger: Mutex<EbpfLogger<Events>>,
}

impl KernelLog {
    /// Takes the ring that the hooks write to out of what was loaded.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        EbpfLogger::init_with_logger(ebpf, Events)
            .map(|logger| Self {
                logger: Mutex::new(logger),
            })
            .map_err(|error| DatapathError::map("use", "AYA_LOGS", error))
    }

    /// Logs what was written since the last call.
    pub(super) fn flush(&self) {
        lock(&self.logger).flush();
    }
}

/// Turns records into events.
struct Events;

impl Log for Events {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args();
        match record.level() {
            Level::Error => tracing::error!(target: "clusterlink::kernel", "{line}"),
            Level::Warn => tracing::warn!(target: "clusterlink::kernel", "{line}"),
            Level::Info => tracing::info!(target: "clusterlink::kernel", "{line}"),
            Level::Debug => tracing::debug!(target: "clusterlink::kernel", "{line}"),
            Level::Trace => tracing::trace!(target: "clusterlink::kernel", "{line}"),
        }
    }

    fn flush(&self) {}
}
