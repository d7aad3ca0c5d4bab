//! The pauses between attempts to watch.

use std::time::Duration;

use kube::runtime::{utils::Backoff, watcher::DefaultBackoff};

/// The longest pause: after an outage, however long, all is known again soon.
const LONGEST: Duration = Duration::from_secs(5);

/// Those of kube, which grow to half a minute, up to [`LONGEST`].
#[derive(Default)]
pub(super) struct Pauses(DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_few_seconds_and_never_end() {
        let pauses: Vec<_> = Pauses::default().take(50).collect();
        assert_eq!(pauses.len(), 50);
        assert!(pauses[0] < LONGEST, "{:?}", pauses[0]);
        assert!(pauses[20..].iter().all(|pause| *pause == LONGEST));
    }
}
