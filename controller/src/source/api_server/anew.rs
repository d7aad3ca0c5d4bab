//! Watches of kinds that are decided upon together. One that breaks begins anew with a list, and so do
//! the others: their connections may be just as dead without knowing it yet.
//!
//! ```text
//! a watch breaks ─▶ Init, at once: what is known may be old ─▶ pause ─▶ Init, InitApply…, InitDone
//!        └────────▶ the others begin anew
//! ```
//! A watch that went on from where it was would tell what it has missed, but not when it has told all.

use std::{collections::VecDeque, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use kube::runtime::{
    utils::Backoff as _,
    watcher::{self, Event},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::pauses::Pauses;

/// A watch that ends sooner has not worked: its end says nothing of the others.
const STEADY: Duration = Duration::from_secs(10);

/// The watches that begin anew together. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Together {
    breaks: watch::Sender<u64>,
}

/// One of them.
struct Watch<B, S, K> {
    begin: B,
    together: Together,
    breaks: watch::Receiver<u64>,
    pauses: Pauses,
    /// The watch that is read, and when it began.
    reading: Option<(S, Instant)>,
    /// A list was begun, of which nothing was read yet.
    listing: bool,
    /// All is known as of some time that is not known to be past.
    current: bool,
    /// How long to wait before the next attempt.
    pause: Option<Duration>,
    ready: VecDeque<watcher::Result<Event<K>>>,
}

impl Together {
    /// The events of a watch, which `begin` begins with a list.
    pub(super) fn watch<B, S, K>(
        &self,
        begin: B,
    ) -> impl Stream<Item = watcher::Result<Event<K>>> + use<B, S, K>
    where
        B: Fn() -> S,
        S: Stream<Item = watcher::Result<Event<K>>> + Unpin,
    {
        let watch = Watch {
            begin,
            together: self.clone(),
            breaks: self.breaks.subscribe(),
            pauses: Pauses::default(),
            reading: None,
            listing: false,
            current: false,
            pause: None,
            ready: VecDeque::new(),
        };
        stream::unfold(watch, |mut watch| async move {
            let event = watch.next().await?;
            Some((event, watch))
        })
    }
}

impl<B, S, K> Watch<B, S, K>
where
    B: Fn() -> S,
    S: Stream<Item = watcher::Result<Event<K>>> + Unpin,
{
    async fn next(&mut self) -> Option<watcher::Result<Event<K>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if let Some(pause) = self.pause.take() {
                sleep(pause).await;
            }
            let (reading, _) = self.reading.get_or_insert_with(|| {
                self.breaks.mark_unchanged();
                ((self.begin)(), Instant::now())
            });
            tokio::select! {
                biased;
                // The sending end is held, too.
                _ = self.breaks.changed() => {
                    self.reading = None;
                    self.is_old();
                }
                event = reading.next() => self.take(event?),
            }
        }
    }

    fn take(&mut self, event: watcher::Result<Event<K>>) {
        match event {
            // It is told when the list has an answer: until then it is but another attempt.
            Ok(Event::Init) => self.listing = true,
            Ok(event) => {
                if std::mem::take(&mut self.listing) {
                    self.ready.push_back(Ok(Event::Init));
                }
                self.current |= matches!(event, Event::InitDone);
                self.ready.push_back(Ok(event));
            }
            Err(error) => self.broke(error),
        }
    }

    fn broke(&mut self, error: watcher::Error) {
        let began = self.reading.take().map(|(_, began)| began);
        self.listing = false;
        if self.current && began.is_some_and(|began| began.elapsed() >= STEADY) {
            self.pauses.reset();
            self.together.breaks.send_modify(|count| *count += 1);
        }
        self.is_old();
        self.ready.push_back(Err(error));
        self.pause = self.pauses.next();
    }

    /// What is known may be old: whoever decides upon it has to wait for the next list.
    fn is_old(&mut self) {
        if std::mem::take(&mut self.current) {
            self.ready.push_back(Ok(Event::Init));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::{FutureExt as _, stream::BoxStream};
    use k8s_openapi::api::core::v1::Namespace;
    use tokio::{sync::mpsc, time::advance};

    use super::*;

    type Told = watcher::Result<Event<Namespace>>;

    /// A watch whose API server is the test.
    struct Scene {
        watch: BoxStream<'static, Told>,
        attempts: Arc<Mutex<Vec<mpsc::UnboundedSender<Told>>>>,
    }

    impl Scene {
        fn new(together: &Together) -> Self {
            let attempts = Arc::<Mutex<Vec<mpsc::UnboundedSender<Told>>>>::default();
            let shared = Arc::clone(&attempts);
            let begin = move || {
                let (sender, receiver) = mpsc::unbounded_channel();
                shared.lock().unwrap().push(sender);
                stream::unfold(receiver, |mut receiver| async move {
                    receiver.recv().await.map(|told| (told, receiver))
                })
                .boxed()
            };
            Self {
                watch: together.watch(begin).boxed(),
                attempts,
            }
        }

        fn attempts(&self) -> usize {
            self.attempts.lock().unwrap().len()
        }

        /// What the API server says, and what is made of it.
        async fn says(&mut self, told: impl IntoIterator<Item = Told>) -> String {
            self.heard();
            for one in told {
                self.attempts
                    .lock()
                    .unwrap()
                    .last()
                    .unwrap()
                    .send(one)
                    .unwrap();
            }
            self.heard()
        }

        fn heard(&mut self) -> String {
            let mut heard = Vec::new();
            while let Some(Some(event)) = self.watch.next().now_or_never() {
                heard.push(match event {
                    Ok(Event::Init) => "old",
                    Ok(Event::InitDone) => "current",
                    Ok(Event::InitApply(_)) => "one",
                    Ok(Event::Apply(_) | Event::Delete(_)) => "change",
                    Err(_) => "broken",
                });
            }
            heard.join(" ")
        }
    }

    fn list() -> [Told; 3] {
        [
            Ok(Event::Init),
            Ok(Event::InitApply(Namespace::default())),
            Ok(Event::InitDone),
        ]
    }

    fn broken() -> Told {
        Err(watcher::Error::NoResourceVersion)
    }

    async fn a_while() {
        advance(STEADY).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_breaks_is_old_at_once_and_current_after_the_next_list() {
        let mut scene = Scene::new(&Together::default());
        assert_eq!(scene.says(list()).await, "old one current");
        a_while().await;
        assert_eq!(
            scene.says([Ok(Event::Apply(Namespace::default()))]).await,
            "change"
        );
        assert_eq!(scene.says([broken()]).await, "old broken");
        assert_eq!(scene.attempts(), 1, "there is a pause");
        a_while().await;
        assert_eq!(scene.says([Ok(Event::Init), broken()]).await, "broken");
        a_while().await;
        assert_eq!(scene.says(list()).await, "old one current");
        assert_eq!(scene.attempts(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_breaks_makes_the_others_begin_anew_once() {
        let together = Together::default();
        let (mut one, mut other) = (Scene::new(&together), Scene::new(&together));
        one.says(list()).await;
        other.says(list()).await;
        a_while().await;
        assert_eq!(one.says([broken()]).await, "old broken");
        assert_eq!(other.heard(), "old", "its connection may be as dead");
        assert_eq!(other.says(list()).await, "old one current");
        // The first one cannot be watched any more; it keeps nobody else busy.
        for _ in 0..3 {
            a_while().await;
            one.says([Ok(Event::Init), broken()]).await;
            a_while().await;
            one.says(list().into_iter().chain([broken()])).await;
        }
        assert_eq!(other.heard(), "");
        assert_eq!(other.attempts(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_was_begun_before_another_watch_broke_does_not_count() {
        let together = Together::default();
        let (mut one, mut other) = (Scene::new(&together), Scene::new(&together));
        one.says(list()).await;
        a_while().await;
        assert_eq!(other.says([Ok(Event::Init)]).await, "");
        one.says([broken()]).await;
        assert_eq!(other.heard(), "");
        assert_eq!(other.attempts(), 2);
        assert_eq!(other.says(list()).await, "old one current");
    }
}
