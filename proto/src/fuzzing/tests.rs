use proptest::prelude::*;

use super::*;
use crate::resource::tests::any_resource;

/// The messages of a stream, some of them damaged.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let update = (
        proptest::collection::vec(any_resource(), 0..4),
        proptest::collection::vec(any_resource(), 0..2),
        any::<(bool, bool)>(),
    )
        .prop_map(|(upserts, removals, (more, synced))| {
            wire::subscribe_response::Message::Update(wire::Update {
                nonce: 7,
                upserts: (upserts.iter())
                    .map(|resource| Encoded::new(resource).upsert().clone())
                    .collect(),
                removals: removals.iter().map(|r| (&r.key()).into()).collect(),
                more,
                synced,
            })
        });
    let answer = any_resource().prop_map(|resource| {
        wire::subscribe_response::Message::Answer(wire::Answer {
            address: vec![192, 0, 2, 1].into(),
            found: Some(wire::answer::Found::Workload(
                Encoded::new(&resource).upsert().clone(),
            )),
        })
    });
    let message = prop_oneof![update, answer].prop_map(|message| {
        let message = Some(message);
        let mut bytes = wire::SubscribeResponse { message }.encode_to_vec();
        // An unknown field with number 15 fills the message up to a multiple of four.
        let fill = match bytes.len() % 4 {
            0 if bytes.len() >= 8 => &[][..],
            0 => &[0x78, 0x80, 0x80, 0],
            1 => &[0x78, 0x80, 0],
            2 => &[0x78, 0],
            _ => &[0x78, 0x80, 0x80, 0x80, 0],
        };
        bytes.extend(fill);
        let length = u8::try_from(bytes.len() / 4).ok()?;
        Some([&[length][..], &bytes].concat())
    });
    let message = message
        .prop_filter_map("too long for one record", |message| message)
        .boxed();
    let damaged = (message.clone(), any::<(usize, u8)>()).prop_map(|(mut bytes, (at, value))| {
        let at = at % bytes.len();
        bytes[at] = value;
        bytes
    });
    let step = prop_oneof![
        4 => message,
        2 => damaged,
        1 => Just(vec![0]),
        3 => Just(vec![1]),
    ];
    proptest::collection::vec(step, 0..12).prop_map(|steps| steps.concat())
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange_for_a_resource(input: Vec<u8>) {
        resource(&input);
    }

    #[test]
    fn a_damaged_resource_is_whole_or_refused(
        good in any_resource(),
        damage in proptest::collection::vec(any::<(usize, u8)>(), 0..3),
    ) {
        let mut bytes = wire::Resource::from(&good).encode_to_vec();
        for (at, value) in damage {
            let at = at % bytes.len().max(1);
            bytes[at] = value;
        }
        resource(&bytes);
    }

    #[test]
    fn no_bytes_are_too_strange_for_a_controller(input: Vec<u8>) {
        to_controller(&input);
    }

    #[test]
    fn no_bytes_are_too_strange_for_an_agent(input: Vec<u8>) {
        replica(&input);
    }

    #[test]
    fn no_order_of_messages_makes_an_agent_apply_what_it_does_not_hold(input in stream()) {
        replica(&input);
    }
}
