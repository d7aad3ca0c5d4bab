use clusterlink_crds::{Peer, PeerSpec};
use clusterlink_model::{LocalPeer, PeerName, Update};
use futures::stream::BoxStream;
use kube::runtime::watcher::Event;
use tokio::{sync::mpsc, time::timeout};

use super::*;

/// A source whose Peer stream is fed by the test; all other streams are empty lists.
struct Fed {
    peers: mpsc::UnboundedReceiver<Event<Peer>>,
    problems: watch::Receiver<Arc<Vec<Problem>>>,
}

impl Source for Fed {
    fn start(self: Box<Self>) -> (Streams, watch::Receiver<Arc<Vec<Problem>>>) {
        fn listed<K: Send + 'static>() -> BoxStream<'static, Event<K>> {
            stream::iter([Event::Init, Event::InitDone])
                .chain(stream::pending())
                .boxed()
        }
        let peers = stream::unfold(self.peers, |mut peers| async move {
            peers.recv().await.map(|event| (event, peers))
        });
        let streams = Streams {
            exports: listed(),
            imports: listed(),
            peers: peers.boxed(),
            access_policies: listed(),
            privileged_access_policies: listed(),
            services: listed(),
            endpoint_slices: listed(),
            pods: listed(),
            namespaces: listed(),
            nodes: listed(),
        };
        (streams, self.problems)
    }
}

struct Running {
    handle: Handle,
    peers: mpsc::UnboundedSender<Event<Peer>>,
    problems: watch::Sender<Arc<Vec<Problem>>>,
    _state: tempfile::TempDir,
}

fn running() -> Running {
    let state = tempfile::tempdir().unwrap();
    let peer = LocalPeer {
        name: PeerName::new("here").unwrap(),
        labels: Default::default(),
    };
    let ranges = vec!["10.1.0.0/16".parse().unwrap()];
    let config = Config::new(peer, ranges, state.path().to_owned());
    let (peers, received) = mpsc::unbounded_channel();
    let (problems, seen) = watch::channel(Arc::default());
    let handle = start(
        config,
        Fed {
            peers: received,
            problems: seen,
        },
    )
    .unwrap();
    Running {
        handle,
        peers,
        problems,
        _state: state,
    }
}

fn peer(name: &str) -> Peer {
    let mut peer = Peer::new(
        name,
        PeerSpec {
            gateways: vec![],
            labels: None,
            not_issued_before: None,
        },
    );
    peer.metadata.namespace = Some("ns".into());
    peer
}

async fn next(subscription: &mut Subscription) -> Option<Update> {
    timeout(Duration::from_secs(20), subscription.next())
        .await
        .expect("an update within 20 s")
}

#[tokio::test]
async fn a_subscriber_gets_everything_once_all_lists_are_complete_and_then_what_changes() {
    let running = running();
    let mut subscription = running.handle.subscribe();
    running.peers.send(Event::Init).unwrap();
    running.peers.send(Event::InitApply(peer("east"))).unwrap();
    running.peers.send(Event::InitDone).unwrap();
    let first = next(&mut subscription).await.unwrap();
    assert!(first.complete);
    assert_eq!(first.upserts.len(), 1);
    assert!(running.handle.status().complete);

    running.peers.send(Event::Apply(peer("west"))).unwrap();
    let second = next(&mut subscription).await.unwrap();
    assert!(!second.complete);
    assert_eq!(second.upserts.len(), 1);
    running.peers.send(Event::Delete(peer("east"))).unwrap();
    let third = next(&mut subscription).await.unwrap();
    assert_eq!(third.removals.len(), 1);

    let mut late = running.handle.subscribe();
    assert_eq!(next(&mut late).await.unwrap().upserts.len(), 1);
}

#[tokio::test]
async fn a_source_that_ends_leaves_its_last_word_in_force() {
    let Running {
        handle,
        peers,
        problems,
        _state,
    } = running();
    for event in [Event::Init, Event::InitApply(peer("east")), Event::InitDone] {
        peers.send(event).unwrap();
    }
    drop((peers, problems));
    let mut subscription = handle.subscribe();
    assert_eq!(next(&mut subscription).await.unwrap().upserts.len(), 1);
    assert_eq!(handle.status().peers.len(), 1);
}

#[tokio::test]
async fn shutdown_ends_the_task_and_the_subscriptions() {
    let running = running();
    let mut subscription = running.handle.subscribe();
    timeout(Duration::from_secs(20), running.handle.shutdown())
        .await
        .expect("an orderly end");
    assert_eq!(next(&mut subscription).await, None);
}

#[tokio::test]
async fn contradictory_settings_are_refused() {
    let peer = LocalPeer {
        name: PeerName::new("here").unwrap(),
        labels: Default::default(),
    };
    let state = tempfile::tempdir().unwrap();
    let fed = || {
        let (_, peers) = mpsc::unbounded_channel();
        let (_, problems) = watch::channel(Arc::default());
        Fed { peers, problems }
    };
    let mut config = Config::new(peer, vec![], state.path().to_owned());
    assert!(matches!(
        start(config.clone(), fed()),
        Err(Error::NoServiceCidr)
    ));
    config.service_cidrs = vec!["10.1.0.0/16".parse().unwrap()];
    #[expect(clippy::reversed_empty_ranges, reason = "the mistake under test")]
    let backwards = 2000..=1000;
    config.target_ports = backwards;
    assert!(matches!(
        start(config, fed()),
        Err(Error::EmptyTargetPorts { .. })
    ));
}
