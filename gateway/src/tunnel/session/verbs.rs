//! What a driver does with the streams of a session.

use std::{sync::Arc, time::Instant};

use clusterlink_model::{ObjectName, WorkloadAttributes};

use crate::tunnel::{
    MAX_HOPS, RejectCode, ResetCode, Session,
    dictionary::Undefinable,
    frame::{self, FrameType},
    message::wire,
    stream::Stream,
    window::Window,
};

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
    /// The client's namespace or the export's name is none that a peer would take.
    #[error("the client's namespace or the export's name is not a valid name")]
    InvalidName,
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
    /// The client's namespace is none that a peer would take.
    #[error("the namespace of the client of stream {0} is not a valid name")]
    InvalidName(u32),
}

impl From<Undefinable> for OpenError {
    fn from(why: Undefinable) -> Self {
        match why {
            Undefinable::TooLarge => Self::TooLarge,
            Undefinable::InvalidName => Self::InvalidName,
        }
    }
}

impl Session {
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
        let relayed = hops > 0;
        let workload = match workload {
            Some(attributes) => {
                self.outgoing
                    .workload(attributes, relayed, &self.remote_limits, out)?
            }
            None => 0,
        };
        let export = self.outgoing.export(export, &self.remote_limits, out)?;
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
                .map_err(|why| match why {
                    Undefinable::TooLarge => StreamError::TooLarge(stream),
                    Undefinable::InvalidName => StreamError::InvalidName(stream),
                })?,
            None => 0,
        };
        let sent = frame::push_message(out, stream, FrameType::Attest, &wire::Attest { workload });
        sent.expect("a number fits a control frame");
        Ok(())
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
