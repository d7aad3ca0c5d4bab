//! Addresses that this node was not told of, asked of the controller: each once at a time, and not
//! again within a second.

use std::{
    collections::HashMap,
    future::pending,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, WeakShared},
};
use tokio::time::Instant;

use crate::control::{Found, Lookup};

/// How long an answer counts: what changes at the controller applies to new connections within a second.
const FRESH: Duration = Duration::from_secs(1);

/// How many answers are kept, and how many questions may be open: whoever reaches the node can have
/// addresses asked for.
const ANSWERS: usize = 4096;
const QUESTIONS: usize = 256;

/// What was asked. By default there is nobody who would answer.
#[derive(Default)]
pub(super) struct Lookups {
    lookup: Option<Arc<dyn Lookup>>,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    answers: HashMap<IpAddr, (Instant, Found)>,
    questions: HashMap<IpAddr, WeakShared<BoxFuture<'static, Found>>>,
}

impl Lookups {
    /// Asks `lookup`.
    pub(super) fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self {
            lookup: Some(lookup),
            asked: Mutex::default(),
        }
    }

    /// The last answer, if it still counts.
    pub(super) fn answer(&self, address: IpAddr) -> Option<Found> {
        let asked = self.lock();
        let (since, found) = asked.answers.get(&address)?;
        (since.elapsed() < FRESH).then(|| found.clone())
    }

    /// Asks; never ends if nobody answers.
    pub(super) async fn ask(&self, address: IpAddr) -> Found {
        let Some(question) = self.question(address) else {
            return pending().await;
        };
        let found = question.await;
        let mut asked = self.lock();
        asked.questions.remove(&address);
        if asked.answers.len() >= ANSWERS {
            (asked.answers).retain(|_, (since, _)| since.elapsed() < FRESH);
        }
        if asked.answers.len() < ANSWERS {
            let answer = (Instant::now(), found.clone());
            asked.answers.insert(address, answer);
        }
        found
    }

    /// The open question for an address: a new one, unless it was asked before.
    fn question(&self, address: IpAddr) -> Option<impl Future<Output = Found> + use<>> {
        let lookup = self.lookup.clone()?;
        let mut asked = self.lock();
        let open = asked.questions.get(&address).and_then(WeakShared::upgrade);
        if open.is_some() {
            return open;
        }
        if asked.questions.len() >= QUESTIONS {
            // Those whose clients have all given up.
            (asked.questions).retain(|_, question| question.upgrade().is_some());
        }
        if asked.questions.len() >= QUESTIONS {
            return None;
        }
        let question = async move { lookup.lookup(address).await }.boxed().shared();
        let weak = question.downgrade().expect("it was not polled yet");
        asked.questions.insert(address, weak);
        Some(question)
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures::future::join3;
    use tokio::{sync::Notify, time::timeout};

    use super::*;

    #[derive(Default)]
    struct Controller {
        asked: AtomicUsize,
        answer: Notify,
    }

    impl Lookup for Controller {
        fn lookup(&self, _address: IpAddr) -> BoxFuture<'_, Found> {
            self.asked.fetch_add(1, Relaxed);
            async {
                self.answer.notified().await;
                Found::Node
            }
            .boxed()
        }
    }

    fn address(last: u32) -> IpAddr {
        (0x0a00_0000 + last).to_be_bytes().into()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_asked_for_once_at_a_time_and_again_after_a_second() {
        let controller = Arc::new(Controller::default());
        let lookups = Lookups::new(controller.clone());
        for round in 1..=2 {
            assert_eq!(lookups.answer(address(1)), None);
            let answered = async { controller.answer.notify_one() };
            let both = join3(lookups.ask(address(1)), lookups.ask(address(1)), answered).await;
            assert_eq!(both, (Found::Node, Found::Node, ()));
            assert_eq!(controller.asked.load(Relaxed), round);
            assert_eq!(lookups.answer(address(1)), Some(Found::Node));
            assert_eq!(lookups.answer(address(2)), None);
            tokio::time::advance(FRESH).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn questions_that_nobody_waits_for_make_room() {
        let controller = Arc::new(Controller::default());
        let lookups = Lookups::new(controller.clone());
        let patience = Duration::from_secs(2);
        for last in 0..QUESTIONS as u32 {
            let given_up = timeout(patience, lookups.ask(address(last))).await;
            assert!(given_up.is_err());
        }
        let waiting: Vec<_> = (0..QUESTIONS as u32)
            .map(|last| lookups.question(address(last)))
            .collect();
        assert!(waiting.iter().all(Option::is_some));
        assert!(
            lookups.question(address(9_999)).is_none(),
            "there is a bound"
        );
        drop(waiting);
        controller.answer.notify_one();
        assert_eq!(lookups.ask(address(9_999)).await, Found::Node);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_answers_where_there_is_no_controller() {
        let lookups = Lookups::default();
        let asked = timeout(Duration::from_secs(60), lookups.ask(address(1))).await;
        assert!(asked.is_err());
    }
}
