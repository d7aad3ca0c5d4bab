use std::time::Duration;

use clusterlink_model::{Peer, PeerName, Snapshot};
use futures::FutureExt;
use proptest::prelude::*;

use super::*;

fn name(number: u8) -> PeerName {
    PeerName::new(&format!("peer{number}")).unwrap()
}

fn upsert(number: u8, stamp: i64) -> Change {
    let peer = Peer {
        name: name(number),
        gateways: Vec::new(),
        labels: None,
        not_issued_before: Some(stamp),
    };
    (
        ResourceKey::Peer(name(number)),
        Some(Resource::Peer(Arc::new(peer))),
    )
}

fn removal(number: u8) -> Change {
    (ResourceKey::Peer(name(number)), None)
}

fn next(subscription: &mut Subscription) -> Option<Update> {
    subscription.next().now_or_never().flatten()
}

#[test]
fn nothing_is_handed_out_before_the_first_publish() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscriber().subscribe();
    assert_eq!(next(&mut subscription), None);
    publisher.publish([]);
    let update = next(&mut subscription).unwrap();
    assert!(update.complete && update.upserts.is_empty());
    assert_eq!(next(&mut subscription), None);
}

#[test]
fn a_slow_subscriber_sees_only_the_newest_state_of_each_resource() {
    let publisher = Publisher::new();
    publisher.publish([upsert(1, 0)]);
    let mut subscription = publisher.subscriber().subscribe();
    assert!(next(&mut subscription).unwrap().complete);
    for stamp in 1..100 {
        publisher.publish([upsert(1, stamp), upsert(2, stamp)]);
    }
    publisher.publish([removal(2)]);
    let update = next(&mut subscription).unwrap();
    assert!(!update.complete);
    assert_eq!(update.upserts.len(), 1);
    assert_eq!(update.removals, [ResourceKey::Peer(name(2))]);
}

#[test]
fn an_equal_resource_is_no_news() {
    let publisher = Publisher::new();
    publisher.publish([upsert(1, 0)]);
    let mut subscription = publisher.subscriber().subscribe();
    assert!(next(&mut subscription).is_some());
    publisher.publish([upsert(1, 0), removal(9)]);
    assert_eq!(next(&mut subscription), None);
}

#[test]
fn a_subscriber_that_lags_too_far_behind_gets_a_complete_snapshot() {
    let publisher = Publisher::with_removals_kept(4);
    publisher.publish((0..20).map(|number| upsert(number, 0)));
    let mut subscription = publisher.subscriber().subscribe();
    assert!(next(&mut subscription).is_some());
    publisher.publish((0..20).map(removal));
    let update = next(&mut subscription).unwrap();
    assert!(update.complete && update.upserts.is_empty());
}

#[tokio::test]
async fn a_waiting_subscriber_is_woken_and_ends_with_the_publisher() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscriber().subscribe();
    let reader = tokio::spawn(async move {
        let first = subscription.next().await;
        let end = subscription.next().await;
        (first, end)
    });
    tokio::task::yield_now().await;
    publisher.publish([upsert(1, 0)]);
    drop(publisher);
    let (first, end) = tokio::time::timeout(Duration::from_secs(10), reader)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.unwrap().upserts.len(), 1);
    assert_eq!(end, None);
}

proptest! {
    #[test]
    fn deltas_add_up_to_the_published_state(
        steps in proptest::collection::vec((0u8..12, proptest::option::of(0i64..3), any::<bool>()), 0..200),
        removals_kept in 0usize..6,
    ) {
        let publisher = Publisher::with_removals_kept(removals_kept);
        publisher.publish([]);
        let mut subscription = publisher.subscriber().subscribe();
        let mut built = Snapshot::default();
        let mut truth = Snapshot::default();
        for (number, stamp, read) in steps {
            let change = match stamp {
                Some(stamp) => upsert(number, stamp),
                None => removal(number),
            };
            truth.apply(Update {
                upserts: change.1.clone().into_iter().collect(),
                removals: change.1.is_none().then(|| change.0.clone()).into_iter().collect(),
                complete: false,
            });
            publisher.publish([change]);
            if read && let Some(update) = next(&mut subscription) {
                built.apply(update);
                prop_assert_eq!(&built, &truth);
            }
        }
        if let Some(update) = next(&mut subscription) {
            built.apply(update);
        }
        prop_assert_eq!(&built, &truth);
    }
}
