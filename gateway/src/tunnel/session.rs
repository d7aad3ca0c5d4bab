//! One session: the protocol's state on one TLS connection.

mod output;
mod reader;
mod receive;
mod verbs;

use std::time::{Duration, Instant};

use clusterlink_model::Labels;

use crate::tunnel::{
    Bounds, SessionConfig, Side,
    dictionary::{Incoming, Outgoing},
    frame::{self, FrameType},
    liveness::Liveness,
    message::{Hello, Limits, cut, wire},
    rate::Bucket,
    stream::Streams,
    violation::Violation,
};

pub use verbs::{OpenError, StreamError};

/// The protocol's state on one TLS connection.
#[derive(Debug)]
pub struct Session {
    side: Side,
    limits: Limits,
    bounds: Bounds,
    remote: Option<Hello>,
    /// What the peer grants: the protocol's minimum until its HELLO came.
    remote_limits: Limits,
    streams: Streams,
    /// The next id that this side opens; wider than ids, so that it can pass the last one.
    next_here: u64,
    highest_there: u32,
    outgoing: Outgoing,
    incoming: Incoming,
    liveness: Liveness,
    control: Bucket,
    opens: Bucket,
    reader: reader::Reader,
    writer: output::Writer,
    going_away_here: bool,
    going_away_there: bool,
    ended: Option<Violation>,
}

impl Session {
    /// A session whose TLS handshake is done; HELLO and a first PING are queued. Labels that are
    /// too large for a frame (64 KiB) are not sent.
    pub fn new(config: SessionConfig, now: Instant) -> Self {
        let mut hello = config.hello;
        hello.limits = hello.limits.at_least_minimum();
        let limits = hello.limits;
        let parity = match config.side {
            Side::Dialler => 1,
            Side::Acceptor => 0,
        };
        let first = u64::from(config.first_stream).max(1);
        let mut session = Self {
            side: config.side,
            limits,
            bounds: config.bounds,
            remote: None,
            remote_limits: Limits::MINIMUM,
            streams: Streams::new(config.seed),
            next_here: if first % 2 == parity {
                first
            } else {
                first + 1
            },
            highest_there: 0,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            liveness: Liveness::new(now, config.seed),
            control: Bucket::new(config.bounds.control_frames_per_second, now),
            opens: Bucket::new(config.bounds.opens_per_second, now),
            reader: reader::Reader::default(),
            writer: output::Writer::default(),
            going_away_here: false,
            going_away_there: false,
            ended: None,
        };
        session.say_hello(hello);
        session.ping(now);
        session
    }

    /// This peer's own labels changed; those too large for a frame are not sent.
    pub fn set_labels(&mut self, labels: &Labels) -> Result<(), OpenError> {
        let labels = wire::Labels {
            labels: labels.clone(),
        };
        frame::push_message(&mut self.writer.frames, 0, FrameType::Labels, &labels)
            .map_err(|_| OpenError::TooLarge)
    }

    /// Asks for a sign of life, unless a question is already under way.
    pub fn ping(&mut self, now: Instant) {
        self.liveness.ping(now, &mut self.writer.frames);
    }

    /// No new streams on this session, either way; existing ones may go on until the deadline.
    /// What the peer opens from now on is rejected without an event.
    pub fn go_away(&mut self, deadline: Duration, reason: &str) {
        let message = wire::GoAway {
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            reason: cut(reason).to_owned(),
        };
        self.going_away_here = true;
        let sent = frame::push_message(&mut self.writer.frames, 0, FrameType::GoAway, &message);
        sent.expect("a short text fits a control frame");
    }

    /// What the peer said of itself, once it did; its labels are kept up to date.
    pub fn remote_hello(&self) -> Option<&Hello> {
        self.remote.as_ref()
    }

    /// Whether no new streams may be opened.
    pub fn going_away(&self) -> bool {
        self.going_away_here || self.going_away_there
    }

    /// How many streams are live, opened by either side.
    pub fn live_streams(&self) -> usize {
        (self.streams.opened_here().live + self.streams.opened_there().live) as usize
    }

    /// The live streams, in no order; when the session ends each of them is to be reset.
    pub fn stream_ids(&self) -> impl Iterator<Item = u32> {
        self.streams.ids()
    }

    /// When something last came from the peer.
    pub fn last_heard(&self) -> Instant {
        self.liveness.last_heard()
    }

    /// The smoothed round-trip time, once measured.
    pub fn srtt(&self) -> Option<Duration> {
        self.liveness.rtt().smoothed()
    }

    /// Takes a round-trip time that the transport measured.
    pub fn observe_rtt(&mut self, rtt: Duration) {
        self.liveness.rtt_mut().measured(rtt);
    }

    /// Whether a question has been without any sign of life for too long: new streams are better
    /// opened elsewhere.
    pub fn is_suspect(&self) -> bool {
        self.liveness.is_suspect()
    }

    /// When [`Session::handle_timeout`] is to be called; it changes with every other call.
    pub fn next_timeout(&self) -> Instant {
        self.liveness
            .next_timeout(self.streams.opened_here().pending > 0)
    }

    /// Acts on the time; tells whether the session has just become suspect.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let unanswered = self.streams.opened_here().pending > 0;
        self.liveness
            .timeout(now, unanswered, &mut self.writer.frames)
    }

    /// Changes how large receive windows may grow, for a process that is short of memory.
    pub fn set_window_bound(&mut self, bytes: u64) {
        self.bounds.window = bytes;
    }

    /// Queues HELLO. Labels that fit no frame are left out rather than the whole session.
    fn say_hello(&mut self, mut hello: Hello) {
        hello.software.truncate(cut(&hello.software).len());
        hello.instance.truncate(cut(&hello.instance).len());
        let frames = &mut self.writer.frames;
        if frame::push_message(frames, 0, FrameType::Hello, &hello.to_wire()).is_err() {
            hello.labels.clear();
            hello.features.clear();
            let sent = frame::push_message(frames, 0, FrameType::Hello, &hello.to_wire());
            sent.expect("two short texts and a few numbers fit a control frame");
        }
    }
}
