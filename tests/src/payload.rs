//! What clients and servers send: bytes that anybody can tell who knows the seed.

use crc32fast::Hasher;

use crate::report::Amount;

/// Pseudo-random bytes that never repeat, so that a lost, doubled or swapped block changes the checksum.
#[derive(Debug)]
pub struct Payload {
    state: u64,
}

impl Payload {
    /// Those of a seed, from the first one on.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Fills the buffer with what comes next.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            // The generator is splitmix64.
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut value = self.state;
            value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            value ^= value >> 31;
            word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        }
    }

    /// How the first so many bytes of a seed are counted and checksummed.
    pub fn beginning(seed: u64, bytes: u64) -> Amount {
        let (mut payload, mut tally) = (Self::new(seed), Tally::default());
        let mut buffer = [0; 4096];
        while tally.bytes() < bytes {
            payload.fill(&mut buffer);
            let left = bytes - tally.bytes();
            let part = usize::try_from(left).unwrap_or(usize::MAX);
            tally.add(&buffer[..part.min(buffer.len())]);
        }
        tally.amount()
    }
}

/// A count with its running checksum.
#[derive(Debug, Default)]
pub struct Tally {
    bytes: u64,
    hasher: Hasher,
}

impl Tally {
    /// Counts these bytes, too.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
    }

    /// How many there were.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All that there were.
    pub fn amount(self) -> Amount {
        Amount {
            bytes: self.bytes,
            crc32: self.hasher.finalize(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_depends_on_the_seed_alone_and_not_on_the_buffers() {
        let mut whole = vec![0; 4096];
        Payload::new(7).fill(&mut whole);
        let mut parts = vec![0; 4096];
        let mut payload = Payload::new(7);
        for part in parts.chunks_mut(512) {
            payload.fill(part);
        }
        assert_eq!(whole, parts);
        let mut other = vec![0; 4096];
        Payload::new(8).fill(&mut other);
        assert_ne!(whole, other);
    }

    #[test]
    fn a_beginning_is_what_was_sent_first_and_nothing_that_came_twice() {
        let mut sent = vec![0; 10_000];
        Payload::new(7).fill(&mut sent);
        let counted = |parts: &[&[u8]]| {
            let mut tally = Tally::default();
            parts.iter().for_each(|part| tally.add(part));
            tally.amount()
        };
        for end in [0, 1, 4095, 4096, 9_999] {
            let beginning = Payload::beginning(7, end as u64);
            assert_eq!(beginning, counted(&[&sent[..end]]), "{end}");
        }
        let twice = counted(&[&sent[..64], &sent[..64], &sent[64..128]]);
        assert_ne!(twice, Payload::beginning(7, twice.bytes));
        let gap = counted(&[&sent[..64], &sent[128..192]]);
        assert_ne!(gap, Payload::beginning(7, gap.bytes));
    }
}
