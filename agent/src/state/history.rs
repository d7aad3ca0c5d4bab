//! What was in force lately: a refusal of the kernel is fetched some time after it was made, and
//! has to be explained by what held then.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clusterlink_gateway::view::View;
use clusterlink_model::Client;
use rustix::time::{ClockId, clock_gettime};

use super::identities::{Identities, pod};

/// How many changes are remembered from one fetch to the next.
const REMEMBERED: usize = 64;

/// For how long it is known that a verdict was withheld: longer than that lasts, and than a
/// refusal waits to be fetched.
const KNOWN: Duration = Duration::from_secs(2);

/// What was in force from some time on.
#[derive(Clone, Debug)]
pub struct Moment {
    since: Duration,
    /// The view.
    pub view: Arc<View>,
    identities: Arc<Identities>,
}

impl Moment {
    /// Who ran in a cgroup.
    pub fn client(&self, cgroup: u64) -> Client {
        match self.identities.cgroups.get(&cgroup) {
            Some(Some(workload)) => pod(workload),
            Some(None) | None => Client::Unknown,
        }
    }
}

/// The moments since the last fetch, oldest first, and the one before them.
#[derive(Debug, Default)]
pub(super) struct History {
    moments: Mutex<VecDeque<Moment>>,
    withheld: Mutex<Vec<Withheld>>,
}

/// A verdict that the kernel is not given for a while: every source had denied it.
#[derive(Clone, Debug)]
struct Withheld {
    since: Duration,
    class: u32,
    import: u32,
}

impl History {
    /// Notes that this is in force from now on.
    pub(super) fn push(&self, view: Arc<View>, identities: Arc<Identities>) {
        let mut moments = lock(&self.moments);
        if moments.len() >= REMEMBERED {
            moments.pop_front();
        }
        moments.push_back(Moment {
            since: monotonic(),
            view,
            identities,
        });
    }

    /// Notes that a class is denied an import from now on for what its sources said.
    pub(super) fn withheld(&self, class: u32, import: u32) {
        let since = monotonic();
        lock(&self.withheld).push(Withheld {
            since,
            class,
            import,
        });
    }

    /// The moments so far; the next call begins with the newest of them.
    pub(super) fn fetch(&self) -> Recent {
        let now = monotonic();
        let mut withheld = lock(&self.withheld);
        withheld.retain(|one| now.saturating_sub(one.since) < KNOWN);
        let mut moments = lock(&self.moments);
        let newest = moments.back().cloned();
        Recent {
            moments: std::mem::replace(&mut *moments, newest.into_iter().collect()),
            withheld: withheld.clone(),
        }
    }
}

/// A panic elsewhere leaves a list that is whole.
fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The moments between two fetches.
#[derive(Debug)]
pub struct Recent {
    moments: VecDeque<Moment>,
    withheld: Vec<Withheld>,
}

impl Recent {
    /// All moments, the one that was in force at a time of the kernel's monotonic clock first. Its
    /// neighbours follow: a change reaches the kernel a little before or after it becomes the view.
    pub fn at(&self, nanoseconds: u64) -> impl Iterator<Item = &Moment> {
        let time = Duration::from_nanos(nanoseconds);
        let after = self.moments.partition_point(|moment| moment.since <= time);
        let place = after.saturating_sub(1);
        let rest = (0..self.moments.len()).filter(move |&other| other.abs_diff(place) > 1);
        [Some(place), place.checked_add(1), place.checked_sub(1)]
            .into_iter()
            .flatten()
            .chain(rest)
            .filter_map(|place| self.moments.get(place))
    }
}

impl Recent {
    /// Whether a class was denied an import at that time because every source had just done so.
    pub fn was_withheld(&self, class: u32, import: u32, nanoseconds: u64) -> bool {
        let time = Duration::from_nanos(nanoseconds);
        self.withheld.iter().any(|one| {
            let age = time.checked_sub(one.since);
            (one.class, one.import) == (class, import) && age.is_some_and(|age| age < KNOWN)
        })
    }
}

/// The clock of the kernel's time stamps.
fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clusterlink_model::LocalPeer;

    use super::*;

    fn recent(since: &[u64]) -> Recent {
        let local = LocalPeer {
            name: "west".parse().expect("a name"),
            labels: Default::default(),
        };
        let moment = |&since| Moment {
            since: Duration::from_nanos(since),
            view: Arc::new(View::not_ready(local.clone())),
            identities: Arc::default(),
        };
        Recent {
            moments: since.iter().map(moment).collect(),
            withheld: Vec::new(),
        }
    }

    #[test]
    fn what_was_in_force_comes_first_and_its_neighbours_next() {
        let order = |time| -> Vec<u128> {
            let recent = recent(&[10, 20, 30, 40]);
            recent.at(time).map(|one| one.since.as_nanos()).collect()
        };
        assert_eq!(order(25), [20, 30, 10, 40]);
        assert_eq!(order(10), [10, 20, 30, 40]);
        assert_eq!(order(5), [10, 20, 30, 40]);
        assert_eq!(order(99), [40, 30, 10, 20]);
        assert_eq!(recent(&[]).at(1).count(), 0);
    }

    #[test]
    fn a_withheld_verdict_is_known_by_class_import_and_time() {
        let history = History::default();
        history.withheld(7, 3);
        let recent = history.fetch();
        let since = u64::try_from(recent.withheld[0].since.as_nanos()).expect("a time");
        assert!(recent.was_withheld(7, 3, since) && recent.was_withheld(7, 3, since + 400_000_000));
        for (class, import, time) in [
            (7, 3, since - 1),
            (7, 3, since + 3_000_000_000),
            (7, 4, since),
            (8, 3, since),
        ] {
            assert!(!recent.was_withheld(class, import, time));
        }
    }

    #[test]
    fn a_fetch_leaves_what_is_in_force() {
        let history = History::default();
        for moment in recent(&[1, 2]).moments {
            history.push(moment.view, moment.identities);
        }
        assert_eq!(history.fetch().moments.len(), 2);
        assert_eq!(history.fetch().moments.len(), 1);
        for _ in 0..1_000 {
            let moment = recent(&[1]).moments.remove(0).expect("one");
            history.push(moment.view, moment.identities);
        }
        assert_eq!(history.fetch().moments.len(), REMEMBERED);
    }
}
