//! What a session sends: bytes of streams, credit, and answers that coalesce.

use std::time::Instant;

use crate::tunnel::{
    RejectCode, Session, StreamError,
    frame::{self, FrameType, HEADER_LEN, Header, MAX_DATA},
    message::{cut, wire},
    stream::Stream,
};

/// Credit and PONG wait until less than this is queued before them, so that a peer that takes
/// nothing has one of each waiting, however many it has provoked.
const COALESCE: usize = 16 * 1024;

/// Frames to be sent.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Plaintext, ready to encrypt.
    pub(super) frames: Vec<u8>,
    /// The payload of the PONG to be sent.
    pub(super) pong: Vec<u8>,
    /// Streams with credit to be sent.
    credit: Vec<u32>,
    /// Answers to the peer's frames since the queue was last seen short.
    answers: usize,
}

impl Writer {
    /// Queues a frame that the peer provoked.
    pub(super) fn answer(&mut self, stream: u32, kind: FrameType, payload: &[u8]) {
        self.answers += 1;
        frame::push(&mut self.frames, stream, kind, payload);
    }

    /// Queues a REJECT.
    pub(super) fn reject(&mut self, stream: u32, code: RejectCode, text: &str) {
        self.answers += 1;
        let reject = wire::Reject {
            code: code.to_wire(),
            text: cut(text).to_owned(),
        };
        let sent = frame::push_message(&mut self.frames, stream, FrameType::Reject, &reject);
        sent.expect("a short text fits a control frame");
    }

    /// Whether more answers wait than a peer that reads them could have provoked.
    pub(super) fn is_flooded(&self, streams: u32) -> bool {
        self.answers > 2 * streams as usize && self.frames.len() > COALESCE
    }
}

impl Session {
    /// How many bytes of a stream may be sent now: what the peer's credit allows, and before
    /// ACCEPT at most [`crate::tunnel::EARLY_DATA`] in all.
    pub fn sendable(&self, stream: u32) -> u64 {
        self.streams.get(stream).map_or(0, Stream::sendable)
    }

    /// The header of a DATA frame whose payload the caller writes itself, without a copy: first
    /// all of [`Session::output`], then this header, then `length` bytes, then later output.
    /// `length` is at most [`MAX_DATA`].
    pub fn data_header(
        &mut self,
        stream: u32,
        length: usize,
    ) -> Result<[u8; HEADER_LEN], StreamError> {
        let state = self
            .streams
            .get_mut(stream)
            .ok_or(StreamError::Gone(stream))?;
        if state.fin_sent {
            return Err(StreamError::State(stream));
        }
        if length > MAX_DATA || length as u64 > state.sendable() {
            return Err(StreamError::NoCredit { stream, length });
        }
        state.sent += length as u64;
        Ok(Header::new(stream, FrameType::Data, length).encode())
    }

    /// Queues bytes of a stream by copying them: for small pieces, which share a TLS record with
    /// other frames.
    pub fn data(&mut self, stream: u32, bytes: &[u8]) -> Result<(), StreamError> {
        if bytes.len() as u64 > self.sendable(stream) && self.streams.get(stream).is_some() {
            return Err(StreamError::NoCredit {
                stream,
                length: bytes.len(),
            });
        }
        for piece in bytes.chunks(MAX_DATA) {
            let header = self.data_header(stream, piece.len())?;
            self.writer.frames.extend_from_slice(&header);
            self.writer.frames.extend_from_slice(piece);
        }
        Ok(())
    }

    /// The application took `n` bytes of a stream: the peer gets credit for more when that is
    /// worth a frame.
    pub fn consumed(&mut self, now: Instant, stream: u32, n: u64) {
        let rtt = self.liveness.rtt().shortest();
        let Some(state) = self.streams.get_mut(stream) else {
            return;
        };
        let unread = state.received - state.window.consumed();
        debug_assert!(n <= unread, "took {n} bytes of {unread}");
        let n = n.min(unread);
        let due = state.window.consume(n, rtt, self.bounds.window, now);
        if due && !state.fin_received && !state.credit_queued {
            state.credit_queued = true;
            self.writer.credit.push(stream);
        }
    }

    /// How many bytes of a stream have arrived that the application did not take yet.
    pub fn unread(&self, stream: u32) -> u64 {
        self.streams
            .get(stream)
            .map_or(0, |state| state.received - state.window.consumed())
    }

    /// The frames to encrypt and send, in order. The caller drains them from the front, and asks
    /// again until there are none: credit and answers wait while much is queued.
    pub fn output(&mut self) -> &mut Vec<u8> {
        let writer = &mut self.writer;
        if writer.frames.len() < COALESCE {
            writer.answers = 0;
            if !writer.pong.is_empty() {
                frame::push(&mut writer.frames, 0, FrameType::Pong, &writer.pong);
                writer.pong.clear();
            }
            for stream in writer.credit.drain(..) {
                let Some(state) = self.streams.get_mut(stream) else {
                    continue;
                };
                state.credit_queued = false;
                if !state.fin_received {
                    let granted = state.window.grant();
                    frame::push_u64(&mut writer.frames, stream, FrameType::Credit, granted);
                }
            }
        }
        &mut self.writer.frames
    }

    /// Whether [`Session::output`] would give anything.
    pub fn has_output(&self) -> bool {
        let writer = &self.writer;
        !(writer.frames.is_empty() && writer.pong.is_empty() && writer.credit.is_empty())
    }
}
