//! When to connect again.

use std::time::Duration;

/// The shortest and the longest wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// After the first failure.
    pub shortest: Duration,
    /// After many.
    pub longest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shortest: Duration::from_millis(200),
            longest: Duration::from_secs(10),
        }
    }
}

/// Waits that double, each between half of itself and the whole, so that the agents of a cluster do
/// not come back all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    limits: Limits,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(limits: Limits) -> Self {
        let next = limits.shortest;
        Self { limits, next }
    }

    /// How long to wait now.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(rand::random_range(0.5..=1.0));
        self.next = (self.next * 2).min(self.limits.longest);
        wait
    }

    /// All is well again.
    pub(super) fn reset(&mut self) {
        self.next = self.limits.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread() {
        let mut backoff = Backoff::new(Limits::default());
        for whole in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let wait = backoff.wait().as_millis();
            assert!((whole / 2..=whole).contains(&wait), "{wait} of {whole}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(200));
        let waits: std::collections::BTreeSet<_> = (0..20)
            .map(|_| Backoff::new(Limits::default()).wait())
            .collect();
        assert!(waits.len() > 10, "{waits:?}");
    }
}
