//! Signs of life: pings, the round-trip time, and when a session is suspect.
//!
//! A suspect session is one to avoid for new streams; those that it has stay. Any byte from the
//! peer clears the suspicion.

use std::time::{Duration, Instant};

use crate::tunnel::frame::{self, FrameType};

/// How often a session is pinged at least; load balancers forget idle flows after minutes.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// An unanswered OPEN is backed by a PING when the peer was silent for this long.
const PROBE: Duration = Duration::from_millis(50);

/// The shortest silence after a question that makes a session suspect.
const SUSPECT: Duration = Duration::from_millis(250);

/// That silence while no round-trip time is known (RFC 6298 starts with it, too).
const SUSPECT_UNMEASURED: Duration = Duration::from_secs(1);

/// Among how many round-trip times the shortest is looked for.
const MEMORY: u32 = 8;

/// The liveness of one session.
#[derive(Debug)]
pub(crate) struct Liveness {
    last_heard: Instant,
    ping: Option<Ping>,
    next_keepalive: Instant,
    suspect: bool,
    random: u64,
    rtt: Rtt,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    token: u64,
    sent: Instant,
}

impl Liveness {
    pub(crate) fn new(now: Instant, seed: u64) -> Self {
        let mut liveness = Self {
            last_heard: now,
            ping: None,
            next_keepalive: now,
            suspect: false,
            random: seed,
            rtt: Rtt::default(),
        };
        liveness.schedule_keepalive(now);
        liveness
    }

    pub(crate) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect
    }

    pub(crate) fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    pub(crate) fn rtt_mut(&mut self) -> &mut Rtt {
        &mut self.rtt
    }

    /// The peer sent something.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.suspect = false;
    }

    /// Asks for a sign of life, unless a question is already under way.
    pub(crate) fn ping(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.ping.is_none() {
            let token = self.next_random();
            frame::push_u64(out, 0, FrameType::Ping, token);
            self.ping = Some(Ping { token, sent: now });
            self.schedule_keepalive(now);
        }
    }

    /// A stream was opened: a peer that was silent for a while is probed at once.
    pub(crate) fn opened(&mut self, now: Instant, out: &mut Vec<u8>) {
        if now.saturating_duration_since(self.last_heard) >= PROBE {
            self.ping(now, out);
        }
    }

    /// Takes an answer, and gives its round-trip time if it belongs to our question.
    pub(crate) fn pong(&mut self, now: Instant, payload: &[u8]) -> Option<Duration> {
        let ping = self.ping?;
        if payload != ping.token.to_be_bytes() {
            return None;
        }
        self.ping = None;
        let rtt = now.saturating_duration_since(ping.sent);
        self.rtt.measured(rtt);
        Some(rtt)
    }

    /// When [`Liveness::timeout`] wants to be called.
    pub(crate) fn next_timeout(&self, unanswered: bool) -> Instant {
        match &self.ping {
            Some(ping) if !self.suspect => self.suspect_at(ping).min(self.next_keepalive),
            None if unanswered => self.probe_at().min(self.next_keepalive),
            Some(_) | None => self.next_keepalive,
        }
    }

    /// Acts on the time; tells whether the session has just become suspect.
    pub(crate) fn timeout(&mut self, now: Instant, unanswered: bool, out: &mut Vec<u8>) -> bool {
        match &self.ping {
            Some(ping) if !self.suspect && now >= self.suspect_at(ping) => {
                self.suspect = true;
                return true;
            }
            None if unanswered && now >= self.probe_at() => self.ping(now, out),
            Some(_) | None => {}
        }
        if now >= self.next_keepalive {
            self.ping(now, out);
            self.schedule_keepalive(now);
        }
        false
    }

    fn suspect_at(&self, ping: &Ping) -> Instant {
        let patience = match self.rtt.smoothed() {
            Some(smoothed) => SUSPECT.max(4 * smoothed),
            None => SUSPECT_UNMEASURED,
        };
        ping.sent.max(self.last_heard) + patience
    }

    fn probe_at(&self) -> Instant {
        self.last_heard + PROBE.max(self.rtt.smoothed().unwrap_or_default())
    }

    /// Between 80 and 120 % of the interval, so that sessions do not ping in step.
    fn schedule_keepalive(&mut self, now: Instant) {
        let jitter = 80 + (self.next_random() % 41) as u32;
        self.next_keepalive = now + KEEPALIVE * jitter / 100;
    }

    /// The SplitMix64 sequence; nothing secret depends on it.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The round-trip time: smoothed for patience, the shortest recent one for windows, because a
/// PING waits behind the bytes that the windows let through.
#[derive(Debug, Default)]
pub(crate) struct Rtt {
    smoothed: Option<Duration>,
    shortest: Option<Duration>,
    previous_shortest: Option<Duration>,
    samples: u32,
}

impl Rtt {
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(crate) fn shortest(&self) -> Option<Duration> {
        [self.shortest, self.previous_shortest]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn measured(&mut self, rtt: Duration) {
        self.smoothed = Some(
            self.smoothed
                .map_or(rtt, |smoothed| (smoothed * 7 + rtt) / 8),
        );
        if self.samples == MEMORY {
            self.samples = 0;
            self.previous_shortest = self.shortest.take();
        }
        self.samples += 1;
        self.shortest = Some(self.shortest.map_or(rtt, |shortest| shortest.min(rtt)));
    }
}
