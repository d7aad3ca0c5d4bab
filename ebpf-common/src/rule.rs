//! Rules that hold in the kernel and are tested on the host.

use crate::{address::Address, layout::Verdicts};

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

/// What becomes of a connection to a leased port of the Service path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// The gateway gets it, and nobody else: it is refused where the socket is gone.
    Gateway,
    /// It is refused: a gateway that is taken for dead would keep its client waiting, and whoever
    /// else listens on the port must not get what is meant for an import.
    Refuse,
    /// The port is as free as any other: nobody is sent here any more.
    Leave,
}

/// What becomes of a connection to a leased port. A stale gateway leaves no gap for other listeners,
/// since other nodes may go on sending clients here until they learn of its end; after ten minutes
/// the port is given back to the node.
#[inline(always)]
pub const fn handling(liveness: Liveness) -> Handling {
    match liveness {
        Liveness::Fresh => Handling::Gateway,
        Liveness::Stale => Handling::Refuse,
        Liveness::Inert => Handling::Leave,
    }
}

/// Which of `sockets` gets a connection: the same one for each of its packets, since the kernel may
/// have to recognise a SYN cookie of its own.
#[inline(always)]
pub const fn spread(client: &Address, client_port: u16, port: u16, sockets: u32) -> u32 {
    let mut hash = 0x9e37_79b9 ^ ((client_port as u32) << 16 | port as u32);
    hash = mix(hash ^ client[0]);
    hash = mix(hash ^ client[1]);
    hash = mix(hash ^ client[2]);
    hash = mix(hash ^ client[3]);
    ((hash as u64 * sockets as u64) >> 32) as u32
}

/// A bijection that spreads every input bit over the word.
#[inline(always)]
const fn mix(mut word: u32) -> u32 {
    word ^= word >> 16;
    word = word.wrapping_mul(0x7feb_352d);
    word ^= word >> 15;
    word = word.wrapping_mul(0x846c_a68b);
    word ^ word >> 16
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
    fn a_leased_port_is_the_gateways_alone_until_nobody_is_sent_there_any_more() {
        for (liveness, expected) in [
            (Liveness::Fresh, Handling::Gateway),
            (Liveness::Stale, Handling::Refuse),
            (Liveness::Inert, Handling::Leave),
        ] {
            assert_eq!(handling(liveness), expected, "{liveness:?}");
        }
    }

    #[test]
    fn clients_are_spread_evenly_over_the_sockets() {
        let v4 = |last: u32| [0, 0, 0xffff_u32.to_be(), (0x0a01_0000 + last).to_be()];
        for (name, count, clients) in [
            ("ports of one client", 3_u32, [40_000_u32, 0, 1]),
            ("one port of many clients", 4, [40_000, 1, 0]),
            ("both", 64, [40_000, 1, 1]),
        ] {
            let [total, address_step, port_step] = clients;
            let mut hits = [0_u32; 64];
            for i in 0..total {
                let port = ((i * port_step) as u16).to_be();
                let socket = spread(&v4(i * address_step), port, 30_001_u16.to_be(), count);
                hits[socket as usize] += 1;
            }
            let expected = total / count;
            for (socket, hits) in hits.iter().enumerate() {
                let used = socket < count as usize;
                let even = *hits > expected * 8 / 10 && *hits < expected * 12 / 10;
                assert!(
                    used && even || !used && *hits == 0,
                    "{name}: socket {socket} of {count} got {hits} instead of {expected}"
                );
            }
        }
    }

    #[test]
    fn a_connection_stays_with_its_socket() {
        let client = [1, 2, 3, 4];
        assert_eq!(spread(&client, 5, 6, 7), spread(&client, 5, 6, 7));
        assert_eq!(spread(&client, 5, 6, 1), 0);
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
