//! Whether what is known may be decided upon: not while some of the watches were interrupted and have not
//! listed everything anew.

use std::time::Duration;

use tokio::time::Instant;

/// How long one watch is waited for after the last other one came back. It may be that it is not
/// permitted any more, which must not stop everything else for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// The watches that are waited for.
#[derive(Debug, Default)]
pub(crate) struct Currency {
    old: Vec<&'static str>,
    /// When those changed last.
    since: Option<Instant>,
    told: bool,
}

/// What there is to decide upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Enough is known.
    Current,
    /// Some of it may be old; to be asked again at this time, if there is one.
    Old(Option<Instant>),
}

impl Currency {
    /// Looks at which of `all` kinds may be old now.
    pub(crate) fn check(&mut self, old: Vec<&'static str>, all: usize, now: Instant) -> Known {
        if self.old != old {
            self.since = Some(now);
            self.told = false;
            self.old = old;
        }
        if self.old.is_empty() {
            return Known::Current;
        }
        // Without any of them the API server itself is away.
        if self.old.len() == all {
            return Known::Old(None);
        }
        let due = self.since.unwrap_or(now) + PATIENCE;
        if now < due {
            return Known::Old(Some(due));
        }
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                kinds = ?self.old,
                "these kinds cannot be listed since their watches broke, others can: it is written by what was read of them before"
            );
        }
        Known::Current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_counts_once_every_watch_is_back_or_one_has_stayed_away_for_long() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let none: &[&str] = &[];
        let all: &[&str] = &["Import", "Pod", "Service"];
        let rows: [(u64, &[&'static str], Known); 10] = [
            (0, none, Known::Current),
            (1, &["Service"], Known::Old(Some(at(31)))),
            (2, all, Known::Old(None)),
            (600, all, Known::Old(None)),
            // The first that is back has nothing to compare with.
            (601, &["Pod", "Service"], Known::Old(Some(at(631)))),
            (602, &["Pod"], Known::Old(Some(at(632)))),
            (631, &["Pod"], Known::Old(Some(at(632)))),
            (632, &["Pod"], Known::Current),
            (900, &["Pod"], Known::Current),
            (901, none, Known::Current),
        ];
        let mut currency = Currency::default();
        for (second, old, known) in rows {
            let found = currency.check(old.to_vec(), all.len(), at(second));
            assert_eq!(found, known, "in second {second}: {old:?}");
        }
    }
}
