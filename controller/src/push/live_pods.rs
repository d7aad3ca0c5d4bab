//! Which pods of agents exist, as the API server says.

use std::{collections::BTreeSet, future::Future, sync::Arc};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{Config, Event, watcher},
    },
};
use tokio::sync::watch;

use super::LivePods;
use crate::{agents::AGENT, cluster::NAME_LABEL};

/// The UIDs of the agents' pods in the system namespace, and the task that keeps them current. It
/// ends when nobody reads them any more.
pub fn live_pods(
    client: Client,
    namespace: &str,
) -> (watch::Receiver<LivePods>, impl Future<Output = ()> + use<>) {
    let (sender, receiver) = watch::channel(None);
    let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, namespace);
    let agents = Config::default().labels(&format!("{NAME_LABEL}={AGENT}"));
    let events = watcher(pods, agents).default_backoff();
    let task = async move {
        let mut events = events.boxed();
        let mut known = Known::default();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = sender.closed() => return,
            };
            match event {
                Some(Ok(event)) => {
                    if known.apply(event) {
                        sender.send_replace(Some(Arc::new(known.live.clone())));
                    }
                }
                // It goes on by itself; what was read last holds.
                Some(Err(error)) => tracing::warn!(%error, "the agents' pods cannot be watched"),
                None => return,
            }
        }
    };
    (receiver, task)
}

/// The pods as of the last event.
#[derive(Debug, Default)]
struct Known {
    live: BTreeSet<Arc<str>>,
    /// Of a listing that is not over yet.
    listed: BTreeSet<Arc<str>>,
}

impl Known {
    /// Whether what is known has become current.
    fn apply(&mut self, event: Event<PartialObjectMeta<Pod>>) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                return false;
            }
            Event::InitApply(pod) => {
                self.listed.extend(uid(&pod));
                return false;
            }
            Event::InitDone => self.live = std::mem::take(&mut self.listed),
            Event::Apply(pod) => self.live.extend(uid(&pod)),
            Event::Delete(pod) => {
                if let Some(uid) = uid(&pod) {
                    self.live.remove(&uid);
                }
            }
        }
        true
    }
}

fn uid(pod: &PartialObjectMeta<Pod>) -> Option<Arc<str>> {
    pod.metadata.uid.as_deref().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> PartialObjectMeta<Pod> {
        let mut pod = PartialObjectMeta::<Pod>::default();
        pod.metadata.uid = Some(uid.to_owned());
        pod
    }

    #[test]
    fn a_listing_counts_when_it_is_over() {
        let mut known = Known::default();
        assert!(!known.apply(Event::Init));
        assert!(!known.apply(Event::InitApply(pod("a"))));
        assert!(!known.apply(Event::InitApply(pod("b"))));
        assert!(known.apply(Event::InitDone));
        assert!(known.apply(Event::Apply(pod("c"))));
        assert!(known.apply(Event::Delete(pod("a"))));
        assert_eq!(known.live, ["b".into(), "c".into()].into());
        known.apply(Event::Init);
        known.apply(Event::InitApply(pod("d")));
        assert_eq!(known.live, ["b".into(), "c".into()].into(), "still listing");
        known.apply(Event::InitDone);
        assert_eq!(known.live, ["d".into()].into());
    }
}
