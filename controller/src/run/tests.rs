use clusterlink_crds::{Import, Peer, PeerSpec};
use clusterlink_model::{LocalPeer, PeerName, Update};
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Service;
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

/// A source of a cluster whose Imports and Services are fed by the test.
struct FedCluster {
    imports: mpsc::UnboundedReceiver<Event<Import>>,
    services: mpsc::UnboundedReceiver<Event<Service>>,
}

impl Source for FedCluster {
    fn start(self: Box<Self>) -> (Streams, watch::Receiver<Arc<Vec<Problem>>>) {
        fn listed<K: Send + 'static>() -> BoxStream<'static, Event<K>> {
            stream::iter([Event::Init, Event::InitDone])
                .chain(stream::pending())
                .boxed()
        }
        fn fed<K: Send + 'static>(
            events: mpsc::UnboundedReceiver<Event<K>>,
        ) -> BoxStream<'static, Event<K>> {
            stream::unfold(events, |mut events| async move {
                events.recv().await.map(|event| (event, events))
            })
            .boxed()
        }
        let streams = Streams {
            exports: listed(),
            imports: fed(self.imports),
            peers: listed(),
            access_policies: listed(),
            privileged_access_policies: listed(),
            services: fed(self.services),
            endpoint_slices: listed(),
            pods: listed(),
            namespaces: listed(),
            nodes: listed(),
        };
        (streams, watch::channel(Arc::default()).1)
    }
}

/// Waits until what is to be written is so.
async fn until(desired: &Desired, condition: impl Fn(&Desired) -> bool) {
    let mut changes = desired.changes();
    let holds = async {
        while !condition(desired) {
            changes.changed().await.unwrap();
        }
    };
    timeout(Duration::from_secs(20), holds)
        .await
        .expect("it is soon");
}

#[tokio::test]
async fn nothing_is_to_be_written_until_all_that_it_is_decided_upon_was_listed_anew() {
    let (imports, fed_imports) = mpsc::unbounded_channel();
    let (services, fed_services) = mpsc::unbounded_channel();
    let peer = LocalPeer {
        name: PeerName::new("here").unwrap(),
        labels: Default::default(),
    };
    let source = FedCluster {
        imports: fed_imports,
        services: fed_services,
    };
    let config = ClusterConfig::new(peer, "system");
    let handle = start_in_cluster(config, source, Agents::default()).unwrap();
    handle.denies().unwrap().stored(Vec::new());
    let desired = handle.desired();
    let metadata = serde_json::json!({"namespace": "ns", "name": "web", "uid": "u"});
    let import: Import = serde_json::from_value(serde_json::json!({
        "apiVersion": "clusterlink.net/v1alpha1", "kind": "Import", "metadata": metadata,
        "spec": {"port": 80, "sources": []},
    }))
    .unwrap();
    let mut metadata = metadata;
    metadata["labels"] = serde_json::json!({"app.kubernetes.io/managed-by": "clusterlink.net"});
    metadata["finalizers"] = serde_json::json!(["clusterlink.net/steering"]);
    let service: Service = serde_json::from_value(serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"clusterIP": "10.96.0.7"},
    }))
    .unwrap();
    let makes = |desired: &Desired| {
        let all = desired.all();
        all.values()
            .any(|write| matches!(**write, crate::cluster::Write::Create { .. }))
    };
    services.send(Event::Init).unwrap();
    services.send(Event::InitDone).unwrap();
    imports.send(Event::Init).unwrap();
    imports.send(Event::InitDone).unwrap();
    let mut missing = handle.missing();
    let read = missing.wait_for(Vec::is_empty);
    timeout(Duration::from_secs(20), read)
        .await
        .unwrap()
        .unwrap();
    until(&desired, |desired| !desired.is_held()).await;

    // Both watches break. Another replica makes an Import's Service meanwhile.
    imports.send(Event::Init).unwrap();
    services.send(Event::Init).unwrap();
    until(&desired, Desired::is_held).await;
    imports.send(Event::InitApply(import.clone())).unwrap();
    imports.send(Event::InitDone).unwrap();
    until(&desired, makes).await;
    assert!(desired.is_held(), "there may be such a Service");
    services.send(Event::InitApply(service)).unwrap();
    services.send(Event::InitDone).unwrap();
    until(&desired, |desired| !desired.is_held()).await;
    assert!(!makes(&desired), "{:?}", desired.all());

    // The Import is deleted together with its Service.
    imports.send(Event::Init).unwrap();
    services.send(Event::Init).unwrap();
    until(&desired, Desired::is_held).await;
    services.send(Event::InitDone).unwrap();
    until(&desired, makes).await;
    assert!(desired.is_held(), "there may be no such Import");
    imports.send(Event::InitDone).unwrap();
    until(&desired, |desired| !desired.is_held()).await;
    assert!(desired.all().is_empty(), "{:?}", desired.all());
    handle.shutdown().await;
}
