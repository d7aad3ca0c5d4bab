//! A token bucket that costs one decrement while it is not empty.

use std::time::{Duration, Instant};

/// Allows a number of events per second, and as many at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: u32,
    per_second: u32,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            tokens: per_second,
            per_second,
            filled: now,
        }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if self.tokens == 0 {
            self.fill(now);
        }
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }

    /// Fills what has come in since the last time; the clock is only asked when the bucket is
    /// empty.
    fn fill(&mut self, now: Instant) {
        let elapsed = now
            .saturating_duration_since(self.filled)
            .min(Duration::from_secs(1));
        let earned = elapsed.as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        // Fractions stay in the bucket: the clock moves only when a whole token was earned.
        if earned > 0 {
            self.tokens = u32::try_from(earned).unwrap_or(self.per_second);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bucket_fills_at_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        let taken = (0..20).filter(|_| bucket.take(start)).count();
        assert_eq!(taken, 10);
        assert!(!bucket.take(start + Duration::from_millis(99)));
        assert!(bucket.take(start + Duration::from_millis(100)));
        assert!(!bucket.take(start + Duration::from_millis(150)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| bucket.take(later)).count(), 10);
    }
}
