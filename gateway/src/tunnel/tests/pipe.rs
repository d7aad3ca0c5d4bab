//! Two sessions joined by byte pipes, with random operations and chunks, against a reference that
//! only counts bytes.

mod world;

use proptest::prelude::*;
use world::{Half, World};

use crate::tunnel::frame::Header;

/// Something that one side does; numbers pick a stream or an amount.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open(u8),
    Answer(u8, bool),
    Send(u8, u32, bool),
    Fin(u8),
    Reset(u8),
    Attest(u8, u8),
    Take(u8, u32),
    Ping,
    Flush,
    Deliver(u32),
    Wait(u16),
}

fn step() -> impl Strategy<Value = (bool, Step)> {
    let amount = prop_oneof![0..200_u32, 0..400_000_u32];
    let step = prop_oneof![
        2 => any::<u8>().prop_map(Step::Open),
        2 => (any::<u8>(), prop::bool::weighted(0.8)).prop_map(|(n, yes)| Step::Answer(n, yes)),
        6 => (any::<u8>(), amount.clone(), any::<bool>()).prop_map(|(n, l, c)| Step::Send(n, l, c)),
        1 => any::<u8>().prop_map(Step::Fin),
        1 => any::<u8>().prop_map(Step::Reset),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(n, w)| Step::Attest(n, w)),
        4 => (any::<u8>(), amount.clone()).prop_map(|(n, l)| Step::Take(n, l)),
        1 => Just(Step::Ping),
        3 => Just(Step::Flush),
        6 => amount.prop_map(Step::Deliver),
        1 => any::<u16>().prop_map(Step::Wait),
    ];
    (any::<bool>(), step)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_arrives_in_order_and_ends_only_as_it_was_ended(
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut world = World::new();
        for (side, step) in steps {
            world.step(side.into(), step);
        }
        world.settle();
        for (stream, half) in &world.halves[0] {
            let other = &world.halves[1][stream];
            // A reset may cross the last FIN: then one side ended in order, and rightly so.
            let in_order = |half: &Half| half.fin_sent && half.finished;
            let crossed = half.gone && in_order(other) || other.gone && in_order(half);
            assert!(half.gone == other.gone || crossed, "both sides know of the end of {stream}");
            if !half.gone && !other.gone {
                assert_eq!((half.received, half.finished), (other.sent, other.fin_sent));
                assert_eq!((other.received, other.finished), (half.sent, half.fin_sent));
                let open = !(half.finished && other.finished);
                for session in &world.sessions {
                    assert_eq!(session.stream_ids().any(|id| id == *stream), open);
                }
            }
        }
        for side in [0, 1] {
            let live: Vec<u32> = world.sessions[side].stream_ids().collect();
            for stream in live {
                world.fin(side, stream);
            }
        }
        world.settle();
        for session in &world.sessions {
            assert_eq!(session.live_streams(), 0, "every slot is free again");
        }
    }

    #[test]
    fn headers_survive_the_wire(stream: u32, kind: u8, length in 0..1_u32 << 24) {
        let header = Header { stream, kind, length };
        assert_eq!(Header::decode(header.encode()), header);
    }
}
