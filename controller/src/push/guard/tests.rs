use std::collections::BTreeSet;

use clusterlink_model::ObjectName;
use futures::FutureExt as _;
use tonic::Code;

use super::*;

const GRACE: Duration = Duration::from_secs(30);

fn pods(uids: &[&str]) -> LivePods {
    let uids: BTreeSet<Arc<str>> = uids.iter().map(|uid| (*uid).into()).collect();
    Some(Arc::new(uids))
}

fn guard(live: &watch::Sender<LivePods>, ttl: u64, stop: &CancellationToken) -> Guard {
    let identity = Identity {
        pod: ObjectName::new("clusterlink-system", "a-1"),
        pod_uid: "u-1".into(),
        node: "n1".into(),
        expires: SystemTime::now() + Duration::from_secs(ttl),
    };
    Guard::new(&identity, live.subscribe(), GRACE, stop.clone())
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_token() {
    let live = watch::Sender::new(pods(&["u-1"]));
    let mut guard = guard(&live, 600, &CancellationToken::new());
    let start = Instant::now();
    assert_eq!(guard.over().await.code(), Code::Unauthenticated);
    let after = start.elapsed().as_secs();
    assert!((598..=600).contains(&after), "{after}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_pod_goes() {
    let live = watch::Sender::new(pods(&["u-1", "u-2"]));
    let mut guard = guard(&live, 600, &CancellationToken::new());
    assert!(guard.over().now_or_never().is_none());
    live.send_replace(pods(&["u-1"]));
    assert!(guard.over().now_or_never().is_none());
    live.send_replace(pods(&["u-2"]));
    let status = guard.over().now_or_never().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_watch_has_not_shown_yet_has_some_time() {
    let live = watch::Sender::new(None);
    let stop = CancellationToken::new();
    let mut unknown = guard(&live, 600, &stop);
    assert_eq!(
        unknown.over().await.code(),
        Code::Unauthenticated,
        "nobody knows the pods"
    );

    live.send_replace(pods(&[]));
    let mut late = guard(&live, 600, &stop);
    tokio::time::timeout(GRACE - Duration::from_secs(1), late.over())
        .await
        .unwrap_err();
    live.send_replace(pods(&["u-1"]));
    assert!(tokio::time::timeout(GRACE, late.over()).await.is_err());

    live.send_replace(pods(&[]));
    let mut never = guard(&live, 600, &stop);
    let start = Instant::now();
    assert_eq!(never.over().await.code(), Code::PermissionDenied);
    assert_eq!(start.elapsed(), GRACE);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_controller_and_outlives_the_watch_of_pods() {
    let live = watch::Sender::new(pods(&["u-1"]));
    let stop = CancellationToken::new();
    let mut guard = guard(&live, 600, &stop);
    drop(live);
    assert!(guard.over().now_or_never().is_none());
    stop.cancel();
    assert_eq!(guard.over().await.code(), Code::Unavailable);
}
