//! One session: the protocol's state on one TLS connection.

mod output;
mod receive;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clusterlink_model::{Labels, ObjectName, WorkloadAttributes};

use crate::tunnel::{
    MAX_HOPS, RejectCode, ResetCode,
    dictionary::{Incoming, Outgoing, TooLarge},
    frame::{self, FrameType},
    liveness::Liveness,
    message::{Hello, Limits, cut, wire},
    rate::Bucket,
    stream::{Stream, Streams},
    violation::Violation,
    window::Window,
};

/// Which side of the TLS connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that connected; it opens streams with odd ids.
    Dialler,
    /// The one that accepted; it opens streams with even ids.
    Acceptor,
}

/// What this side allows itself and the peer, besides what HELLO announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The largest receive window of a stream, in bytes.
    pub window: u64,
    /// Control frames that the peer may send per second.
    pub control_frames_per_second: u32,
    /// Streams that the peer may open per second, those that it resets at once included.
    pub opens_per_second: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            window: 16 << 20,
            control_frames_per_second: 400_000,
            opens_per_second: 50_000,
        }
    }
}

/// How a session starts.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Which side of the TLS connection this is.
    pub side: Side,
    /// What this side says of itself; limits below the protocol's minimum are raised to it.
    pub hello: Hello,
    /// Further bounds, which the peer is not told.
    pub bounds: Bounds,
    /// Stream ids start here or just above, because they are unique in the association; 0 for a
    /// new one.
    pub first_stream: u32,
    /// Random bits: for ping jitter and the stream table.
    pub seed: u64,
}

/// What happened on a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The peer said who it is. Comes once, before everything else.
    Hello(&'a Hello),
    /// The peer's labels changed.
    Labels(Labels),
    /// The peer opened a stream. Answer it exactly once, by [`Session::accept`],
    /// [`Session::reject`] or [`Session::reset`], even if it was reset in the meantime: only that
    /// frees its slot.
    Opened {
        /// The stream.
        stream: u32,
        /// The client's attributes; `None` for a client without a workload.
        workload: Option<Arc<WorkloadAttributes>>,
        /// Their number, never used for others within the session; 0 for none.
        workload_id: u32,
        /// Whether another gateway attested the client to the peer.
        relayed: bool,
        /// The export that is asked for.
        export: ObjectName,
        /// Its number, never used for others within the session.
        export_id: u32,
        /// How many gateways the connection passed before.
        hops: u32,
        /// Judge only, dial nothing.
        probe: bool,
    },
    /// The client of a stream has other attributes now.
    Attested {
        /// The stream.
        stream: u32,
        /// The client's attributes; `None` for a client without a workload.
        workload: Option<Arc<WorkloadAttributes>>,
        /// Their number.
        workload_id: u32,
    },
    /// The peer connected the backend; more than early data may be sent now.
    Accepted {
        /// The stream.
        stream: u32,
    },
    /// The peer delivered nothing, and will not. The stream is gone.
    Rejected {
        /// The stream.
        stream: u32,
        /// Why.
        code: RejectCode,
        /// Why, for people.
        text: String,
    },
    /// Bytes of a stream, as they arrive.
    Data {
        /// The stream.
        stream: u32,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The peer's direction ended in order: all its bytes have been delivered.
    Finished {
        /// The stream.
        stream: u32,
    },
    /// Both directions ended at once. The stream is gone.
    Reset {
        /// The stream.
        stream: u32,
        /// Why.
        code: ResetCode,
    },
    /// A stream that had no credit left has some again.
    Writable {
        /// The stream.
        stream: u32,
    },
    /// The peer takes no new streams on this session.
    GoAway {
        /// When it means to end those that are left, from now on.
        deadline: Duration,
        /// Why, for people.
        reason: String,
    },
    /// A ping was answered.
    Pong {
        /// Its round-trip time.
        rtt: Duration,
    },
}

/// Why a stream cannot be opened on this session; another session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The peer or this side said GOAWAY, or the session was ended.
    #[error("the session takes no new streams")]
    GoingAway,
    /// The peer's limit on streams is reached.
    #[error("the peer's limit of {0} streams on the session is reached")]
    Streams(u32),
    /// The peer's limit on unanswered streams is reached.
    #[error("the peer's limit of {0} unanswered streams on the session is reached")]
    Pending(u32),
    /// The attributes or the name are larger than the peer's dictionary can hold.
    #[error("the client's attributes are larger than the peer's dictionary can hold")]
    TooLarge,
    /// The connection passed too many gateways.
    #[error("the connection passed {0} gateways (at most 4 are allowed)")]
    Hops(u32),
    /// The association has no stream ids left; open a new one.
    #[error("the association has no stream ids left")]
    IdsExhausted,
}

/// Why a verb does not apply to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It ended, was reset, or never was.
    #[error("stream {0} is gone")]
    Gone(u32),
    /// Its state does not allow it: answered twice, not answered yet, opened by the other side, or
    /// already ended in this direction.
    #[error("the state of stream {0} does not allow this")]
    State(u32),
    /// More bytes than [`Session::sendable`], or than a frame holds.
    #[error("{length} bytes are more than stream {stream} may send now")]
    NoCredit {
        /// The stream.
        stream: u32,
        /// How many bytes were to be sent.
        length: usize,
    },
    /// The attributes are larger than the peer's dictionary can hold.
    #[error("the attributes for stream {0} are larger than the peer's dictionary can hold")]
    TooLarge(u32),
}

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
    reader: receive::Reader,
    writer: output::Writer,
    going_away_here: bool,
    going_away_there: bool,
    ended: Option<Violation>,
}

impl Session {
    /// A session whose TLS handshake is done; HELLO and a first PING are queued.
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
            reader: receive::Reader::default(),
            writer: output::Writer::default(),
            going_away_here: false,
            going_away_there: false,
            ended: None,
        };
        let sent = frame::push_message(
            &mut session.writer.frames,
            0,
            FrameType::Hello,
            &hello.to_wire(),
        );
        sent.expect("this gateway's own HELLO fits a control frame");
        session.ping(now);
        session
    }

    /// Opens a stream for a client; `None` is a client without a workload. `hops` counts the
    /// gateways that the connection passed before.
    pub fn open(
        &mut self,
        now: Instant,
        workload: Option<&Arc<WorkloadAttributes>>,
        export: &ObjectName,
        hops: u32,
        probe: bool,
    ) -> Result<u32, OpenError> {
        if self.going_away() || self.ended.is_some() {
            return Err(OpenError::GoingAway);
        }
        if hops > MAX_HOPS {
            return Err(OpenError::Hops(hops));
        }
        let count = self.streams.opened_here();
        if count.live >= self.remote_limits.streams {
            return Err(OpenError::Streams(self.remote_limits.streams));
        }
        if count.pending >= self.remote_limits.pending_opens {
            return Err(OpenError::Pending(self.remote_limits.pending_opens));
        }
        let id = u32::try_from(self.next_here).map_err(|_| OpenError::IdsExhausted)?;
        let out = &mut self.writer.frames;
        let too_large = |TooLarge| OpenError::TooLarge;
        let relayed = hops > 0;
        let workload = match workload {
            Some(attributes) => self
                .outgoing
                .workload(attributes, relayed, &self.remote_limits, out)
                .map_err(too_large)?,
            None => 0,
        };
        let export = self
            .outgoing
            .export(export, &self.remote_limits, out)
            .map_err(too_large)?;
        let open = wire::Open {
            workload,
            export,
            hops,
            probe,
        };
        let sent = frame::push_message(out, id, FrameType::Open, &open);
        sent.expect("a few numbers fit a control frame");
        self.next_here += 2;
        let window = Window::new(self.limits.initial_window, now);
        let mut stream = Stream::new(true, self.remote_limits.initial_window, window);
        stream.relayed = relayed;
        self.streams.insert(id, stream);
        self.liveness.opened(now, out);
        Ok(id)
    }

    /// The backend of a stream that the peer opened is connected.
    pub fn accept(&mut self, stream: u32) -> Result<(), StreamError> {
        self.answerable(stream)?;
        self.streams.accept(stream);
        self.writer.answer(stream, FrameType::Accept, &[]);
        Ok(())
    }

    /// A stream that the peer opened is not accepted, and nothing of it was delivered.
    pub fn reject(&mut self, stream: u32, code: RejectCode, text: &str) -> Result<(), StreamError> {
        self.answerable(stream)?;
        self.streams.remove(stream);
        self.writer.reject(stream, code, text);
        Ok(())
    }

    /// This side's direction ends in order, after everything that was sent.
    pub fn fin(&mut self, stream: u32) -> Result<(), StreamError> {
        let state = self
            .streams
            .get_mut(stream)
            .ok_or(StreamError::Gone(stream))?;
        if state.fin_sent || !(state.opened_here || state.accepted) {
            return Err(StreamError::State(stream));
        }
        state.fin_sent = true;
        frame::push_u64(&mut self.writer.frames, stream, FrameType::Fin, state.sent);
        if state.ended() {
            self.streams.remove(stream);
        }
        Ok(())
    }

    /// Both directions of a stream end at once.
    pub fn reset(&mut self, stream: u32, code: ResetCode) -> Result<(), StreamError> {
        if self.streams.remove(stream).is_some() {
            self.writer
                .answer(stream, FrameType::Reset, &code.to_wire().to_be_bytes());
            return Ok(());
        }
        self.streams.settle(stream);
        Err(StreamError::Gone(stream))
    }

    /// The client of a stream that this side opened has other attributes now.
    pub fn attest(
        &mut self,
        stream: u32,
        workload: Option<&Arc<WorkloadAttributes>>,
    ) -> Result<(), StreamError> {
        let state = self.streams.get(stream).ok_or(StreamError::Gone(stream))?;
        if !state.opened_here {
            return Err(StreamError::State(stream));
        }
        let out = &mut self.writer.frames;
        let workload = match workload {
            Some(attributes) => self
                .outgoing
                .workload(attributes, state.relayed, &self.remote_limits, out)
                .map_err(|TooLarge| StreamError::TooLarge(stream))?,
            None => 0,
        };
        let sent = frame::push_message(out, stream, FrameType::Attest, &wire::Attest { workload });
        sent.expect("a number fits a control frame");
        Ok(())
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

    /// Whether a stream waits for this side's answer.
    fn answerable(&mut self, stream: u32) -> Result<(), StreamError> {
        match self.streams.get(stream) {
            Some(state) if !state.opened_here && !state.accepted => Ok(()),
            Some(_) => Err(StreamError::State(stream)),
            None => {
                self.streams.settle(stream);
                Err(StreamError::Gone(stream))
            }
        }
    }
}
