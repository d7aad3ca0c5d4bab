//! Which object is written next.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::cluster::{Write, WriteKey};

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a write may take to come back by the watch before it is thought lost: a busy API server
/// tells its watches seconds later.
pub(super) const ECHO: Duration = Duration::from_secs(30);

/// Objects that have something to be written, now or later.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: BTreeSet<WriteKey>,
    later: BTreeSet<(Instant, WriteKey)>,
    states: HashMap<WriteKey, State>,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this; the queue is to be told how it went.
    Now(WriteKey, Arc<Write>),
    /// There is nothing to send before something changes or its time comes.
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    busy: bool,
    failures: u32,
    /// Not to be written before.
    pause: Option<Instant>,
    /// What was written last, and until when it is expected back by the watch.
    written: Option<(Arc<Write>, Instant)>,
}

impl Queue {
    pub(super) fn new(keys: impl IntoIterator<Item = WriteKey>) -> Self {
        Self {
            ready: keys.into_iter().collect(),
            ..Self::default()
        }
    }

    /// What is wanted for these objects has changed.
    pub(super) fn changed(&mut self, keys: impl IntoIterator<Item = WriteKey>) {
        self.ready.extend(keys);
    }

    /// The next object whose time has come, with the write that `wanted` gives for it.
    pub(super) fn next(
        &mut self,
        now: Instant,
        wanted: impl Fn(&WriteKey) -> Option<Arc<Write>>,
    ) -> Next {
        while let Some((time, _)) = self.later.first()
            && *time <= now
            && let Some((_, key)) = self.later.pop_first()
        {
            self.ready.insert(key);
        }
        while let Some(key) = self.ready.pop_first() {
            let Some(write) = wanted(&key) else {
                // A busy one is looked at again when it is done.
                if self.states.get(&key).is_some_and(|state| !state.busy) {
                    self.states.remove(&key);
                }
                continue;
            };
            let state = self.states.entry(key.clone()).or_default();
            if state.busy {
                continue;
            }
            let echo = state.written.as_ref();
            let echo = echo.filter(|(written, _)| Arc::ptr_eq(written, &write));
            let until = echo.map(|(_, until)| *until).or(state.pause);
            match until {
                Some(until) if until > now => drop(self.later.insert((until, key))),
                _ => {
                    state.busy = true;
                    return Next::Now(key, write);
                }
            }
        }
        Next::Nothing
    }

    /// When [`Self::next`] may give something though nothing has changed.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.later.first().map(|(time, _)| *time)
    }

    pub(super) fn succeeded(&mut self, key: &WriteKey, write: Arc<Write>, now: Instant) {
        let state = State {
            written: Some((write, now + ECHO)),
            ..State::default()
        };
        self.states.insert(key.clone(), state);
        self.ready.insert(key.clone());
    }

    /// All objects were read anew: no write that was done before is still to come back.
    pub(super) fn read_anew(&mut self) {
        for (key, state) in &mut self.states {
            if state.written.take().is_some() {
                self.ready.insert(key.clone());
            }
        }
    }

    /// Says how many times in a row it has failed.
    pub(super) fn failed(&mut self, key: &WriteKey, now: Instant) -> u32 {
        let state = self.states.entry(key.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << state.failures.min(16));
        state.busy = false;
        state.failures += 1;
        state.pause = Some(now + pause.min(LONGEST_PAUSE));
        self.ready.insert(key.clone());
        state.failures
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clusterlink_model::ObjectName;

    use super::*;
    use crate::cluster::Kind;

    fn key(name: &str) -> WriteKey {
        WriteKey {
            kind: Kind::Service,
            name: ObjectName::new("ns", name),
        }
    }

    fn delete(uid: &str) -> Arc<Write> {
        Arc::new(Write::Delete {
            uid: uid.into(),
            resource_version: "1".into(),
        })
    }

    struct Scene {
        queue: Queue,
        wanted: BTreeMap<WriteKey, Arc<Write>>,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                queue: Queue::default(),
                wanted: BTreeMap::new(),
                now: Instant::now(),
            }
        }

        fn want(&mut self, name: &str, write: Option<Arc<Write>>) {
            match write {
                Some(write) => drop(self.wanted.insert(key(name), write)),
                None => drop(self.wanted.remove(&key(name))),
            }
            self.queue.changed([key(name)]);
        }

        fn next(&mut self) -> Option<Arc<Write>> {
            match self
                .queue
                .next(self.now, |key| self.wanted.get(key).cloned())
            {
                Next::Now(_, write) => Some(write),
                Next::Nothing => None,
            }
        }
    }

    #[test]
    fn a_write_goes_out_once_and_again_only_if_it_never_comes_back() {
        let mut scene = Scene::new();
        let write = delete("1");
        scene.want("a", Some(Arc::clone(&write)));
        assert_eq!(scene.next(), Some(Arc::clone(&write)));
        assert_eq!(scene.next(), None, "it is under way");
        scene
            .queue
            .succeeded(&key("a"), Arc::clone(&write), scene.now);
        assert_eq!(scene.next(), None, "the watch has not told of it yet");
        scene.now += ECHO;
        assert_eq!(scene.queue.wakes_at(), Some(scene.now));
        assert_eq!(scene.next(), Some(write));
    }

    #[test]
    fn a_write_that_all_objects_were_read_anew_after_does_not_come_back_any_more() {
        let mut scene = Scene::new();
        let writes = ["a", "b", "c"].map(|name| (name, delete(name)));
        for (name, write) in &writes {
            scene.want(name, Some(Arc::clone(write)));
        }
        let [first, second, _] = [scene.next(), scene.next(), scene.next()].map(Option::unwrap);
        scene.queue.succeeded(&key("a"), first, scene.now);
        scene.queue.succeeded(&key("b"), second, scene.now);
        assert_eq!(scene.next(), None);
        // What was read shows the effect of the second one.
        scene.want("b", None);
        scene.queue.read_anew();
        assert_eq!(scene.next(), Some(delete("a")));
        assert_eq!(scene.next(), None, "the third is under way");
    }

    #[test]
    fn the_newest_wish_is_written_after_the_one_that_is_under_way() {
        let mut scene = Scene::new();
        scene.want("a", Some(delete("1")));
        let first = scene.next().unwrap();
        scene.want("a", Some(delete("2")));
        scene.want("a", Some(delete("3")));
        assert_eq!(scene.next(), None);
        scene.queue.succeeded(&key("a"), first, scene.now);
        assert_eq!(scene.next(), Some(delete("3")));
    }

    #[test]
    fn what_fails_waits_longer_each_time_while_others_go_on() {
        let mut scene = Scene::new();
        scene.want("a", Some(delete("1")));
        let mut waited = Vec::new();
        for failures in 1..=14 {
            assert!(scene.next().is_some(), "{failures}");
            assert_eq!(scene.queue.failed(&key("a"), scene.now), failures);
            assert_eq!(scene.next(), None);
            scene.want("b", Some(delete(&failures.to_string())));
            let other = scene.next().unwrap();
            scene.queue.succeeded(&key("b"), other, scene.now);
            scene.want("b", None);
            assert_eq!(scene.next(), None);
            let until = scene.queue.wakes_at().unwrap();
            waited.push((until - scene.now).as_millis());
            scene.now = until;
        }
        assert_eq!(waited[..4], [50, 100, 200, 400]);
        assert_eq!(*waited.last().unwrap(), LONGEST_PAUSE.as_millis());
        let write = scene.next().unwrap();
        scene.queue.succeeded(&key("a"), write, scene.now);
        scene.want("a", Some(delete("2")));
        assert!(scene.next().is_some(), "a success ends the pauses");
    }

    #[test]
    fn what_is_not_wanted_any_more_is_not_written() {
        let mut scene = Scene::new();
        scene.want("a", Some(delete("1")));
        scene.want("a", None);
        assert_eq!(scene.next(), None);
        scene.want("b", Some(delete("1")));
        scene.next().unwrap();
        scene.queue.failed(&key("b"), scene.now);
        scene.want("b", None);
        scene.now += LONGEST_PAUSE;
        assert_eq!(scene.next(), None);
    }
}
