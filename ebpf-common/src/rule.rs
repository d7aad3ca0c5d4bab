//! Rules that hold in the kernel and are tested on the host.

use crate::layout::Verdicts;

/// A gateway that was not heard of for this long is taken for dead.
pub const STALE_NS: u64 = 2_000_000_000;

/// Hooks whose gateway was not heard of for this long change nothing any more.
pub const INERT_NS: u64 = 600_000_000_000;

/// A record older than this belongs to no connection that is being opened now: Linux gives up on
/// a SYN after about 130 seconds.
pub const HANDOFF_NS: u64 = 130_000_000_000;

/// The counters of an open connection are read at most this often.
pub const FLOW_UPDATE_NS: u64 = 100_000_000;

/// How many imports a block of verdicts covers.
pub const BLOCK_IMPORTS: u32 = 512;

/// Whether a gateway lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Heard of lately.
    Fresh,
    /// Not heard of for a while.
    Stale,
    /// Gone for so long that the hooks are as if they were not there.
    Inert,
}

/// Whether a gateway lives, by its last heartbeat. Time is monotonic and stands still while the
/// machine sleeps, so that waking up never looks like ten minutes of silence.
#[inline(always)]
pub const fn liveness(now_ns: u64, heartbeat_ns: u64) -> Liveness {
    // The heartbeat may have been written on another CPU after `now_ns` was read.
    let silence = now_ns.saturating_sub(heartbeat_ns);
    if silence <= STALE_NS {
        Liveness::Fresh
    } else if silence <= INERT_NS {
        Liveness::Stale
    } else {
        Liveness::Inert
    }
}

/// Whether a record may still speak for a connection that is accepted now.
#[inline(always)]
pub const fn is_current(now_ns: u64, recorded_ns: u64) -> bool {
    now_ns.saturating_sub(recorded_ns) <= HANDOFF_NS
}

/// The block that an import's verdict is in.
#[inline(always)]
pub const fn block(import: u32) -> u32 {
    import / BLOCK_IMPORTS
}

/// Whether a block of verdicts allows an import that belongs to it.
#[inline(always)]
pub const fn allows(verdicts: &Verdicts, import: u32) -> bool {
    (verdicts.bits[((import / 64) & 7) as usize] >> (import & 63)) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_fresh_then_stale_then_gone() {
        let start = 5_000_000_000_000;
        for (silence, expected) in [
            (0, Liveness::Fresh),
            (STALE_NS, Liveness::Fresh),
            (STALE_NS + 1, Liveness::Stale),
            (INERT_NS, Liveness::Stale),
            (INERT_NS + 1, Liveness::Inert),
        ] {
            assert_eq!(liveness(start + silence, start), expected, "{silence}");
        }
    }

    #[test]
    fn a_heartbeat_from_another_cpu_may_be_ahead() {
        assert_eq!(liveness(1_000, 2_000), Liveness::Fresh);
        assert!(is_current(1_000, 2_000));
    }

    #[test]
    fn a_record_speaks_for_as_long_as_a_connect_can_take() {
        assert!(is_current(HANDOFF_NS, 0));
        assert!(!is_current(HANDOFF_NS + 1, 0));
    }

    #[test]
    fn exactly_the_set_bit_allows() {
        for set in [0_u32, 63, 64, 511, 512, 1_000, u32::MAX] {
            let mut verdicts = Verdicts { bits: [0; 8] };
            verdicts.bits[(set % BLOCK_IMPORTS / 64) as usize] = 1 << (set % 64);
            assert!(allows(&verdicts, set));
            let first = block(set) * BLOCK_IMPORTS;
            for offset in 0..BLOCK_IMPORTS {
                let import = first + offset;
                assert_eq!(
                    allows(&verdicts, import),
                    import == set,
                    "{import} of {set}"
                );
            }
        }
    }
}
