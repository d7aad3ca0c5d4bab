//! In which order the sources of an import are tried for one connection.
//!
//! The caller says of each source whether it can be tried and brings the randomness, or the
//! import's rotation counter; the rest follows. Usable sources come first, as the import's scheme
//! orders them, then the unreachable ones (what was unreachable a moment ago may answer now).
//! Sources that must not be tried are kept apart with the reason, for the flow log.
//!
//! What to do after an attempt that failed is decided by [`failover`].

pub mod failover;
#[cfg(test)]
mod tests;

use smallvec::SmallVec;

use crate::resource::{Import, LbScheme, Source};

/// What is known of a source before it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceState {
    /// Allowed, and its peer answers or was not tried yet.
    Usable,
    /// Allowed, but its peer did not answer lately.
    Unreachable,
    /// A local policy denies it to this client.
    Denied,
    /// There is no Peer object of that name.
    NoPeer,
}

impl SourceState {
    /// The state that counts: without a Peer object nothing else matters, and what is denied is
    /// not tried, reachable or not.
    pub fn new(peer_exists: bool, allowed: bool, reachable: bool) -> Self {
        match (peer_exists, allowed, reachable) {
            (false, _, _) => Self::NoPeer,
            (true, false, _) => Self::Denied,
            (true, true, false) => Self::Unreachable,
            (true, true, true) => Self::Usable,
        }
    }

    /// Whether a source in this state is tried at all.
    pub fn is_tried(self) -> bool {
        match self {
            Self::Usable | Self::Unreachable => true,
            Self::Denied | Self::NoPeer => false,
        }
    }
}

/// One source of an import in the order of trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    index: u32,
    /// Its state when the order was made.
    pub state: SourceState,
}

impl Candidate {
    /// Its position in the import's list of sources.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// Up to this many sources an order needs no allocation.
const INLINE: usize = 16;

/// The sources of one import, in the order in which one connection tries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Usable ones, then unreachable ones, then those that are not tried.
    candidates: SmallVec<[Candidate; INLINE]>,
    tried: usize,
}

impl Order {
    /// Orders the sources whose states are given in list order.
    ///
    /// `ticket` is a uniformly random number for [`LbScheme::Random`], the number of connections
    /// before this one for [`LbScheme::RoundRobin`], and is not looked at for
    /// [`LbScheme::Static`].
    pub fn new(
        scheme: LbScheme,
        ticket: u64,
        states: impl IntoIterator<Item = SourceState>,
    ) -> Self {
        let mut candidates: SmallVec<[Candidate; INLINE]> = (0..)
            .zip(states)
            .map(|(index, state)| Candidate { index, state })
            .collect();
        // The key is unique, so an unstable sort keeps the list order within each state; it does
        // not allocate.
        candidates.sort_unstable_by_key(|candidate| (stage(candidate.state), candidate.index));
        let usable = candidates.partition_point(|c| c.state == SourceState::Usable);
        let tried = candidates.partition_point(|c| c.state.is_tried());
        let (first, rest) = candidates[..tried].split_at_mut(usable);
        arrange(scheme, ticket, first);
        arrange(scheme, ticket, rest);
        Self { candidates, tried }
    }

    /// Orders the sources of `import`, asking for the state of each.
    pub fn of_import(
        import: &Import,
        ticket: u64,
        state_of: impl FnMut(&Source) -> SourceState,
    ) -> Self {
        Self::new(import.scheme, ticket, import.sources.iter().map(state_of))
    }

    /// The sources to try, first to last.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates[..self.tried]
    }

    /// The sources that are not tried, in list order, with the reason as their state.
    pub fn skipped(&self) -> &[Candidate] {
        &self.candidates[self.tried..]
    }
}

/// Usable sources come before unreachable ones; those that are not tried keep list order.
fn stage(state: SourceState) -> u8 {
    match state {
        SourceState::Usable => 0,
        SourceState::Unreachable => 1,
        SourceState::Denied | SourceState::NoPeer => 2,
    }
}

/// Puts candidates that are in list order into the order of the scheme.
fn arrange(scheme: LbScheme, ticket: u64, candidates: &mut [Candidate]) {
    match scheme {
        LbScheme::Static => {}
        LbScheme::RoundRobin => {
            if let Some(turn) = ticket.checked_rem(candidates.len() as u64) {
                candidates.rotate_left(turn as usize);
            }
        }
        LbScheme::Random => {
            // Usable and unreachable sources draw from numbers of their own, so that the order of
            // one says nothing of the order of the other.
            let stage = candidates.first().map_or(0, |first| stage(first.state));
            shuffle(mix(ticket ^ u64::from(stage)), candidates);
        }
    }
}

/// A Fisher-Yates shuffle whose steps are drawn from one random number: the first place is
/// uniform over all, the second over those that are left, and so on.
fn shuffle(ticket: u64, candidates: &mut [Candidate]) {
    let mut random = ticket;
    for place in 0..candidates.len().saturating_sub(1) {
        let left = candidates.len() - place;
        random = mix(random);
        // The high half of the product is a uniform number below `left`.
        let chosen = ((u128::from(random) * left as u128) >> 64) as usize;
        candidates.swap(place, place + chosen);
    }
}

/// One step of the SplitMix64 generator: a bijection, so a uniform input stays uniform.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
