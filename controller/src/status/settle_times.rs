//! How long it takes until what was read is published.

use std::time::Duration;

/// The times of all settling so far; measured only where there is somebody to show them to.
#[derive(Debug)]
#[cfg_attr(not(feature = "api-server"), derive(Default))]
pub(crate) struct SettleTimes {
    #[cfg(feature = "api-server")]
    pub(crate) histogram: prometheus_client::metrics::histogram::Histogram,
}

#[cfg(feature = "api-server")]
impl Default for SettleTimes {
    fn default() -> Self {
        let buckets = [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0];
        Self {
            histogram: prometheus_client::metrics::histogram::Histogram::new(buckets),
        }
    }
}

impl SettleTimes {
    /// Notes one.
    pub(crate) fn observe(&self, time: Duration) {
        #[cfg(feature = "api-server")]
        self.histogram.observe(time.as_secs_f64());
        #[cfg(not(feature = "api-server"))]
        let _ = time;
    }
}
