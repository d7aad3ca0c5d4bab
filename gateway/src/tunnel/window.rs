//! The receive window of one stream: how much credit the peer gets, and when.
//!
//! The window follows the bandwidth-delay product: twice what the application took during a round
//! trip, at most doubled per round trip. It grows only through bytes that were taken, so a reader
//! that stops keeps the memory of what it has shown to need, and no more.

use std::time::{Duration, Instant};

/// What the gateways and the application add to the network's round trip on a fast network.
const PROCESSING: Duration = Duration::from_micros(150);

/// The receive window of a stream.
#[derive(Debug)]
pub(crate) struct Window {
    size: u64,
    consumed: u64,
    granted: u64,
    measured_from: Instant,
    measured_at: u64,
}

impl Window {
    /// A window of which the peer knows from our HELLO.
    pub(crate) fn new(size: u32, now: Instant) -> Self {
        let size = u64::from(size);
        Self {
            size,
            consumed: 0,
            granted: size,
            measured_from: now,
            measured_at: 0,
        }
    }

    /// How far the peer may send.
    pub(crate) fn granted(&self) -> u64 {
        self.granted
    }

    /// How many bytes the application has taken.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Its present size.
    #[cfg(test)]
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The application took `n` more bytes. Tells whether credit is worth a frame now.
    pub(crate) fn consume(
        &mut self,
        n: u64,
        rtt: Option<Duration>,
        largest: u64,
        now: Instant,
    ) -> bool {
        self.consumed += n;
        if let Some(rtt) = rtt {
            self.measure(rtt + PROCESSING, largest, now);
        }
        self.consumed + self.size >= self.granted + self.size / 2
    }

    /// Grants the whole window, and tells how far the peer may send now.
    pub(crate) fn grant(&mut self) -> u64 {
        self.granted = self.granted.max(self.consumed + self.size);
        self.granted
    }

    /// Looks at the rate once per round trip.
    fn measure(&mut self, rtt: Duration, largest: u64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.measured_from);
        if elapsed < rtt {
            return;
        }
        let taken = u128::from(self.consumed - self.measured_at);
        let target = 2 * taken * rtt.as_nanos() / elapsed.as_nanos().max(1);
        let target = u64::try_from(target).unwrap_or(u64::MAX);
        if target > self.size {
            self.size = target.min(2 * self.size).min(largest).max(self.size);
        }
        self.measured_from = now;
        self.measured_at = self.consumed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// A sender that fills the window each round trip, an application that takes all of it.
    fn run(window: &mut Window, start: Instant, rounds: u32, rtt: Duration, most: u64) {
        for round in 1..=rounds {
            let n = (window.granted() - window.consumed()).min(most);
            if window.consume(n, Some(rtt), 16 << 20, start + (rtt + PROCESSING) * round) {
                window.grant();
            }
        }
    }

    #[test]
    fn a_filled_window_doubles_each_round_trip_up_to_its_bound() {
        let start = Instant::now();
        let mut window = Window::new(64 * 1024, start);
        run(&mut window, start, 3, 50 * MILLISECOND, u64::MAX);
        assert_eq!(window.size(), 512 * 1024);
        run(
            &mut window,
            start + Duration::from_secs(1),
            20,
            50 * MILLISECOND,
            u64::MAX,
        );
        assert_eq!(window.size(), 16 << 20);
    }

    #[test]
    fn a_slow_application_keeps_a_small_window() {
        let start = Instant::now();
        let mut window = Window::new(64 * 1024, start);
        run(&mut window, start, 100, 50 * MILLISECOND, 10_000);
        assert_eq!(window.size(), 64 * 1024);
    }

    #[test]
    fn credit_waits_for_half_a_window_and_never_shrinks() {
        let start = Instant::now();
        let mut window = Window::new(64 * 1024, start);
        assert!(!window.consume(32 * 1024 - 1, None, 16 << 20, start));
        assert!(window.consume(1, None, 16 << 20, start));
        assert_eq!(window.grant(), 96 * 1024);
        assert_eq!(window.grant(), 96 * 1024);
    }
}
