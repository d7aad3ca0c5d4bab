use clusterlink_model::{Backend, Export, ObjectName, Resource};

use super::*;
use crate::publish::{Held, Publisher};

fn export(number: usize, bytes: usize) -> Resource {
    Resource::Export(Arc::new(Export {
        name: ObjectName::new("shop", format!("export-{number:04}")),
        labels: std::collections::BTreeMap::new(),
        backend: Backend::Unavailable("x".repeat(bytes).into()),
    }))
}

fn batch(resources: impl IntoIterator<Item = Resource>) -> Batch {
    let publisher = Publisher::new();
    publisher.publish(resources.into_iter().map(|r| (r.key(), Some(r))));
    publisher
        .subscriber()
        .node_view("n1".into())
        .first(&Held::new())
}

fn outbox() -> Outbox {
    Outbox::new(Duration::from_secs(60), Metrics::default())
}

fn update(outbox: &mut Outbox) -> Option<wire::Update> {
    match outbox.pop()?.message? {
        Message::Update(update) => Some(update),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_empty_batch_is_a_marker() {
    let mut outbox = outbox();
    outbox.begin(Batch::default(), Vec::new());
    let first = update(&mut outbox).unwrap();
    assert!(first.synced && !first.more && first.upserts.is_empty());
    assert!(!outbox.is_idle() && !outbox.is_synced());
    outbox.acknowledged(first.nonce).unwrap();
    assert!(outbox.is_idle() && outbox.is_synced());
}

#[tokio::test]
async fn a_large_batch_goes_in_chunks_each_after_the_last_was_acknowledged() {
    let mut outbox = outbox();
    outbox.begin(
        batch((0..10).map(|number| export(number, CHUNK / 4))),
        Vec::new(),
    );
    let mut sizes = Vec::new();
    while let Some(update) = update(&mut outbox) {
        assert_eq!(outbox.pop(), None, "one at a time");
        assert_eq!(update.more, sizes.len() < 2);
        assert_eq!(update.synced, !update.more);
        sizes.push(update.upserts.len());
        assert!(!outbox.is_synced());
        outbox.acknowledged(update.nonce).unwrap();
    }
    assert_eq!(sizes, [4, 4, 2]);
    assert!(outbox.is_synced());
}

#[tokio::test]
async fn removals_come_in_chunks_too() {
    let mut outbox = outbox();
    let long = "n".repeat(250);
    let names = (0..2000).map(|number| wire::ResourceName {
        kind: 99,
        namespace: String::new(),
        name: format!("{long}{number}"),
    });
    outbox.begin(batch([export(1, 1)]), names.collect());
    let first = update(&mut outbox).unwrap();
    assert!(first.more && first.upserts.is_empty() && first.removals.len() < 2000);
    outbox.acknowledged(first.nonce).unwrap();
    let second = update(&mut outbox).unwrap();
    assert!(second.synced && second.upserts.len() == 1);
    assert_eq!(first.removals.len() + second.removals.len(), 2000);
}

#[tokio::test]
async fn only_what_was_sent_can_be_acknowledged_and_only_once() {
    let mut outbox = outbox();
    assert_eq!(outbox.acknowledged(0), Err(WrongNonce { nonce: 0 }));
    outbox.begin(Batch::default(), Vec::new());
    assert_eq!(
        outbox.acknowledged(1),
        Err(WrongNonce { nonce: 1 }),
        "not sent yet"
    );
    let nonce = update(&mut outbox).unwrap().nonce;
    assert_eq!(
        outbox.acknowledged(nonce + 1),
        Err(WrongNonce { nonce: nonce + 1 })
    );
    outbox.acknowledged(nonce).unwrap();
    assert_eq!(outbox.acknowledged(nonce), Err(WrongNonce { nonce }));
}

#[tokio::test]
async fn answers_do_not_wait_for_an_acknowledgement_and_heartbeats_go_last() {
    let mut outbox = outbox();
    outbox.begin(Batch::default(), Vec::new());
    update(&mut outbox).unwrap();
    outbox.answer(wire::Answer::default());
    outbox.heartbeat();
    assert!(matches!(
        outbox.pop().unwrap().message,
        Some(Message::Answer(_))
    ));
    assert!(!outbox.has_something(), "the answer has shown that we live");
    outbox.heartbeat();
    assert!(matches!(
        outbox.pop().unwrap().message,
        Some(Message::Heartbeat(_))
    ));
    assert_eq!(outbox.pop(), None);
}

#[tokio::test]
async fn a_resource_that_is_too_large_is_left_out_and_the_rest_is_sent() {
    let mut outbox = outbox();
    outbox.begin(batch([export(1, MAX_RESOURCE), export(2, 10)]), Vec::new());
    let update = update(&mut outbox).unwrap();
    assert_eq!(update.upserts.len(), 1);
    assert!(update.synced);
}

#[tokio::test(start_paused = true)]
async fn an_agent_has_a_while_to_acknowledge() {
    let mut outbox = outbox();
    assert_eq!(outbox.deadline(), None);
    outbox.begin(Batch::default(), Vec::new());
    let nonce = update(&mut outbox).unwrap().nonce;
    assert_eq!(
        outbox.deadline(),
        Some(Instant::now() + Duration::from_secs(60))
    );
    outbox.acknowledged(nonce).unwrap();
    assert_eq!(outbox.deadline(), None);
}
