//! The bodies of the fuzz targets, kept here so that ordinary tests run them too.

use std::collections::BTreeSet;

use clusterlink_model::{Resource, ResourceKey, Snapshot};
use prost::Message as _;

use crate::{Encoded, NodeReport, Replica, encoded, wire};

/// Arbitrary bytes as a resource: what can be used survives the wire, and has one version.
///
/// # Panics
/// When it does not.
pub fn resource(input: &[u8]) {
    let Ok(resource) = wire::Resource::decode(input) else {
        return;
    };
    let Ok(resource) = Resource::try_from(resource) else {
        return;
    };
    let encoded = Encoded::new(&resource);
    let upsert = wire::Upsert::decode(encoded.upsert().clone()).expect("we have encoded it");
    let name = upsert.name.expect("every upsert has a name");
    let key = ResourceKey::try_from(&name).expect("its kind is known");
    let again = encoded::decode(&key, upsert.resource);
    assert_eq!(
        again.as_ref(),
        Ok(&resource),
        "a resource survives the wire"
    );
    assert_eq!(
        Encoded::new(&resource),
        encoded,
        "one content has one version"
    );
}

/// Arbitrary bytes as what an agent sends: what of a report can be used survives the wire.
///
/// # Panics
/// When it does not.
pub fn to_controller(input: &[u8]) {
    let _ = wire::SubscribeRequest::decode(input);
    let Ok(request) = wire::ReportRequest::decode(input) else {
        return;
    };
    if let Some(wire::report_request::Message::Report(report)) = request.message {
        let (report, _) = NodeReport::from_wire(report);
        // Long reasons are cut the first time.
        let (report, _) = NodeReport::from_wire((&report).into());
        let (again, invalid) = NodeReport::from_wire((&report).into());
        assert_eq!(invalid, [], "what could be used can be used again");
        assert_eq!(again, report, "a report survives the wire");
    }
}

/// Feeds an agent's replica with the messages that `input` makes. Each begins with a byte: 0 is a
/// new stream, 1 takes what there is to apply, any other one says how many bytes (times 4) of a
/// message follow.
///
/// # Panics
/// When something is applied that is not held, or a first update is not complete.
pub fn replica(mut input: &[u8]) {
    let mut replica = Replica::new("n1".into());
    let mut applied = Snapshot::default();
    let mut complete = false;
    while let Some((&first, rest)) = input.split_first() {
        input = rest;
        match first {
            0 => {
                let held: usize = replica.begin().iter().map(|m| m.resources.len()).sum();
                assert_eq!(held, replica.held(), "everything that is held is named");
                assert!(
                    replica.take().is_none(),
                    "nothing is taken before the marker"
                );
            }
            1 => {
                if let Some(taken) = replica.take() {
                    assert_eq!(
                        taken.update.complete, !complete,
                        "only the first is complete"
                    );
                    complete = true;
                    applied.apply(taken.update);
                    assert!(replica.take().is_none(), "nothing is taken twice");
                    check(&replica.begin(), &applied);
                }
            }
            length => {
                let (message, rest) = input.split_at((4 * usize::from(length)).min(input.len()));
                input = rest;
                feed(&mut replica, message);
            }
        }
    }
}

fn feed(replica: &mut Replica, message: &[u8]) {
    let Ok(response) = wire::SubscribeResponse::decode(message) else {
        return;
    };
    match response.message {
        Some(wire::subscribe_response::Message::Update(update)) => {
            let nonce = update.nonce;
            if let Some(ack) = replica.update(update) {
                assert_eq!(ack.nonce, nonce, "an update is answered by its own nonce");
            }
        }
        Some(wire::subscribe_response::Message::Answer(answer)) => {
            let _ = replica.answer(answer);
        }
        Some(
            wire::subscribe_response::Message::Welcome(_)
            | wire::subscribe_response::Message::Heartbeat(_),
        )
        | None => {}
    }
}

fn check(held: &[wire::Held], applied: &Snapshot) {
    let held: BTreeSet<_> = (held.iter())
        .flat_map(|message| &message.resources)
        .filter_map(|resource| ResourceKey::try_from(resource.name.as_ref()?).ok())
        .collect();
    for resource in applied.to_update().upserts {
        assert!(
            held.contains(&resource.key()),
            "{:?} is not held",
            resource.key()
        );
    }
}

#[cfg(test)]
mod tests;
