//! A bound on the rate of writes.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Limit {
    /// How long it takes until another write may start.
    period: Duration,
    /// How much unused time may gather.
    reserve: Duration,
    /// When the next write may start; the further in the past, the more may start in a row.
    next: Instant,
}

impl Limit {
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let period = Duration::from_secs(1) / per_second;
        Self {
            period,
            reserve: period * (burst - 1),
            next: now,
        }
    }

    /// Whether a write may start, or when.
    pub(super) fn ready(&mut self, now: Instant) -> Result<(), Instant> {
        // Time that nobody used gathers up to the reserve.
        if now > self.next + self.reserve {
            self.next = now - self.reserve;
        }
        if self.next <= now {
            Ok(())
        } else {
            Err(self.next)
        }
    }

    /// Notes that a write has started.
    pub(super) fn take(&mut self) {
        self.next += self.period;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_the_rate_holds() {
        let start = Instant::now();
        let mut limit = Limit::new(10, 3, start);
        let mut started = Vec::new();
        let at = |millis| start + Duration::from_millis(millis);
        for millis in (10_000..11_000).step_by(10) {
            while limit.ready(at(millis)).is_ok() {
                limit.take();
                started.push(millis);
            }
        }
        assert_eq!(started[..3], [10_000; 3]);
        assert_eq!(limit.ready(at(10_990)), Err(at(11_000)));
        assert_eq!(started.len(), 3 + 9);
    }
}
