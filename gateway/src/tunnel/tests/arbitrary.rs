//! Arbitrary input: the bodies of the fuzz targets, run over seeded random bytes, and the decoding
//! of every message.

use proptest::prelude::*;

use crate::tunnel::fuzzing;

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_neither_panic_nor_go_over_a_bound(
        input in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        fuzzing::session(&input);
    }

    #[test]
    fn arbitrary_frames_neither_panic_nor_go_over_a_bound(
        frames in prop::collection::vec(
            (1..=16_u8, 0..6_u8, prop::collection::vec(0..20_u8, 0..20)),
            0..100,
        ),
        side in 2..4_u8,
    ) {
        let mut input = vec![side];
        for (kind, stream, payload) in frames {
            input.extend([0x80, kind, stream, payload.len() as u8]);
            input.extend(payload);
        }
        fuzzing::session(&input);
    }

    #[test]
    fn what_decodes_as_a_frame_encodes_to_the_same_bytes(
        input in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        fuzzing::frame(&input);
    }
}
