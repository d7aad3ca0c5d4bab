//! The body of the fuzz target of what the kernel says by netlink, kept here so that ordinary tests run
//! it too.

use super::{
    conntrack::{self, Ends},
    sockets,
};

/// Arbitrary bytes as the kernel's answers about a connection, and about the sockets of its client.
///
/// # Panics
/// When one answer fits two questions.
pub fn netlink(input: &[u8]) {
    let at = |ip: [u8; 4], port: u16| (ip, port).into();
    // The ends in the corpus.
    let replies = Ends {
        source: at([10, 77, 0, 1], 30_001),
        destination: at([169, 254, 77, 1], 55_912),
    };
    if let Ok(Some(original)) = conntrack::parse(input, replies)
        && original != replies
    {
        let other = conntrack::parse(input, original);
        assert!(
            matches!(other, Ok(None)),
            "an answer to two questions: {other:?}"
        );
    }
    let (source, destination) = (at([10, 77, 0, 1], 45_252), at([10, 96, 0, 9], 80));
    let mut found = None;
    // What is no message is an error, and no panic.
    let _ = sockets::parse(input, source, destination, &mut found);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static CORPUS: [&[u8]; 6] = [
        include_bytes!("../../../fuzz/corpus/netlink/entry-v4.seed"),
        include_bytes!("../../../fuzz/corpus/netlink/entry-v6.seed"),
        include_bytes!("../../../fuzz/corpus/netlink/no-entry-v4.seed"),
        include_bytes!("../../../fuzz/corpus/netlink/not-permitted-v4.seed"),
        include_bytes!("../../../fuzz/corpus/netlink/socket-v4.seed"),
        include_bytes!("../../../fuzz/corpus/netlink/socket-v6.seed"),
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_bytes_do_not_panic(input in prop::collection::vec(any::<u8>(), 0..600)) {
            netlink(&input);
        }

        #[test]
        fn answers_that_were_changed_do_not_panic(
            answer in prop::sample::select(&CORPUS[..]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            length in any::<prop::sample::Index>(),
        ) {
            let mut answer = answer.to_vec();
            for (place, byte) in changes {
                let place = place.index(answer.len());
                answer[place] = byte;
            }
            netlink(&answer);
            netlink(&answer[..length.index(answer.len())]);
        }
    }
}
