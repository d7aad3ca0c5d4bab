//! The streams of a session: their state, the table of them, and how many count against limits.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hasher},
};

use crate::tunnel::{EARLY_DATA, window::Window};

/// One live stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Whether this side opened it.
    pub(crate) opened_here: bool,
    /// Whether ACCEPT was sent (by the opened side) or received (by the opening side).
    pub(crate) accepted: bool,
    /// Whether its client is relayed from another gateway.
    pub(crate) relayed: bool,
    /// Whether our direction ended.
    pub(crate) fin_sent: bool,
    /// Whether the peer's direction ended.
    pub(crate) fin_received: bool,
    /// Whether it is in the list of streams whose credit is to be sent.
    pub(crate) credit_queued: bool,
    /// Bytes that we sent.
    pub(crate) sent: u64,
    /// How far we may send.
    pub(crate) send_limit: u64,
    /// Bytes that the peer sent, counted when their frame begins.
    pub(crate) received: u64,
    /// What the peer may send.
    pub(crate) window: Window,
}

impl Stream {
    /// A stream that was just opened.
    pub(crate) fn new(opened_here: bool, send_limit: u32, window: Window) -> Self {
        Self {
            opened_here,
            accepted: false,
            relayed: false,
            fin_sent: false,
            fin_received: false,
            credit_queued: false,
            sent: 0,
            send_limit: send_limit.into(),
            received: 0,
            window,
        }
    }

    /// How many bytes we may send now.
    pub(crate) fn sendable(&self) -> u64 {
        if self.fin_sent {
            return 0;
        }
        let limit = match (self.accepted, self.opened_here) {
            (true, _) => self.send_limit,
            (false, true) => self.send_limit.min(EARLY_DATA),
            (false, false) => 0,
        };
        limit.saturating_sub(self.sent)
    }

    /// Whether both directions ended in order.
    pub(crate) fn ended(&self) -> bool {
        self.fin_sent && self.fin_received
    }
}

/// How many streams count against a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// All that are live.
    pub(crate) live: u32,
    /// Of these, those neither accepted nor rejected.
    pub(crate) pending: u32,
}

/// The live streams of a session.
#[derive(Debug)]
pub(crate) struct Streams {
    table: HashMap<u32, Stream, Scatter>,
    /// Streams that ended while this side's dial was still under way: their slot is not free.
    abandoned: HashSet<u32, Scatter>,
    here: Count,
    there: Count,
}

impl Streams {
    /// An empty table; `seed` keeps the peer from choosing ids that collide in it.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            table: HashMap::with_hasher(Scatter(seed)),
            abandoned: HashSet::with_hasher(Scatter(seed)),
            here: Count::default(),
            there: Count::default(),
        }
    }

    /// Streams that this side opened.
    pub(crate) fn opened_here(&self) -> Count {
        self.here
    }

    /// Streams that the peer opened.
    pub(crate) fn opened_there(&self) -> Count {
        self.there
    }

    /// How many streams are abandoned by the peer and still unanswered here.
    pub(crate) fn abandoned(&self) -> u32 {
        self.abandoned.len() as u32
    }

    pub(crate) fn insert(&mut self, id: u32, stream: Stream) {
        let count = self.count(stream.opened_here);
        count.live += 1;
        count.pending += 1;
        self.table.insert(id, stream);
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Stream> {
        self.table.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.table.get_mut(&id)
    }

    /// Marks a live stream as accepted.
    pub(crate) fn accept(&mut self, id: u32) {
        if let Some(stream) = self.table.get_mut(&id)
            && !stream.accepted
        {
            stream.accepted = true;
            let here = stream.opened_here;
            self.count(here).pending -= 1;
        }
    }

    /// Takes a stream out, answered or not.
    pub(crate) fn remove(&mut self, id: u32) -> Option<Stream> {
        let stream = self.table.remove(&id)?;
        let count = self.count(stream.opened_here);
        count.live -= 1;
        count.pending -= u32::from(!stream.accepted);
        Some(stream)
    }

    /// Takes a stream out because of what the peer did: a dial that is under way keeps its slot.
    /// Tells whether there was such a stream.
    pub(crate) fn abandon(&mut self, id: u32) -> bool {
        let Some(stream) = self.remove(id) else {
            return false;
        };
        if !stream.opened_here && !stream.accepted {
            self.abandoned.insert(id);
        }
        true
    }

    /// The dial of an abandoned stream has ended, if there was one.
    pub(crate) fn settle(&mut self, id: u32) {
        self.abandoned.remove(&id);
    }

    /// Every live stream's id.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.table.keys().copied()
    }

    /// Every live stream.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        self.table.iter_mut().map(|(&id, stream)| (id, stream))
    }

    fn count(&mut self, opened_here: bool) -> &mut Count {
        if opened_here {
            &mut self.here
        } else {
            &mut self.there
        }
    }
}

/// Hashes stream ids by one multiplication, seeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scatter(u64);

/// The state of hashing one id.
#[derive(Debug)]
pub(crate) struct ScatterHasher(u64);

impl BuildHasher for Scatter {
    type Hasher = ScatterHasher;
    fn build_hasher(&self) -> ScatterHasher {
        ScatterHasher(self.0)
    }
}

impl Hasher for ScatterHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    fn write_u32(&mut self, id: u32) {
        // Both halves of the wide product are used, so that every bit of the id reaches the bits
        // that choose the bucket; the odd constant is 2^64 divided by the golden ratio.
        let wide = u128::from(self.0 ^ u64::from(id)) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
