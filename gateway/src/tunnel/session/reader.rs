//! Takes frames from any pieces of plaintext. DATA goes on as it arrives, without a copy; control
//! frames are assembled; what is to be ignored is skipped.

use std::time::Instant;

use crate::tunnel::{
    Event, Session,
    frame::{FrameType, HEADER_LEN, Header},
    violation::Violation,
};

/// An assembly buffer that grew beyond this is given back.
const KEEP: usize = 4 * 1024;

/// Where in the sequence of frames the input stands.
#[derive(Debug, Default)]
pub(super) struct Reader {
    state: State,
    /// The part of a control frame's payload that has arrived.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header {
        bytes: [u8; HEADER_LEN],
        have: usize,
    },
    Control {
        stream: u32,
        kind: FrameType,
        length: usize,
    },
    Data {
        stream: u32,
        remaining: usize,
    },
    Skip {
        remaining: usize,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Header {
            bytes: [0; HEADER_LEN],
            have: 0,
        }
    }
}

pub(super) type Sink<'a> = &'a mut dyn FnMut(Event<'_>);

impl Session {
    /// Takes decrypted bytes, in pieces of any size, and tells `sink` what they say. After a
    /// violation the session is over: the caller closes the connection and resets every stream.
    pub fn receive(
        &mut self,
        now: Instant,
        bytes: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        if let Some(violation) = self.ended {
            return Err(violation);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.liveness.heard(now);
        let result = self.read(now, bytes, sink);
        self.ended = result.err();
        result
    }

    fn read(&mut self, now: Instant, mut bytes: &[u8], sink: Sink<'_>) -> Result<(), Violation> {
        while !bytes.is_empty() {
            match self.reader.state {
                State::Header {
                    bytes: mut header,
                    have,
                } => {
                    let n = bytes.len().min(HEADER_LEN - have);
                    header[have..have + n].copy_from_slice(&bytes[..n]);
                    bytes = &bytes[n..];
                    if have + n < HEADER_LEN {
                        self.reader.state = State::Header {
                            bytes: header,
                            have: have + n,
                        };
                    } else {
                        self.begin(now, Header::decode(header), sink)?;
                    }
                }
                State::Control {
                    stream,
                    kind,
                    length,
                } => {
                    let need = length - self.reader.partial.len();
                    let (piece, rest) = bytes.split_at(need.min(bytes.len()));
                    bytes = rest;
                    if piece.len() == length {
                        self.reader.state = State::default();
                        self.control(now, stream, kind, piece, sink)?;
                        continue;
                    }
                    self.reader.partial.extend_from_slice(piece);
                    if piece.len() == need {
                        self.reader.state = State::default();
                        let mut payload = std::mem::take(&mut self.reader.partial);
                        self.control(now, stream, kind, &payload, sink)?;
                        if payload.capacity() <= KEEP {
                            payload.clear();
                            self.reader.partial = payload;
                        }
                    }
                }
                State::Data { stream, remaining } => {
                    let (piece, rest) = bytes.split_at(remaining.min(bytes.len()));
                    bytes = rest;
                    // The stream may have been reset between two pieces of the frame.
                    if self.streams.get(stream).is_some() {
                        sink(Event::Data {
                            stream,
                            bytes: piece,
                        });
                    }
                    let remaining = remaining - piece.len();
                    self.reader.state = match remaining {
                        0 => State::default(),
                        remaining => State::Data { stream, remaining },
                    };
                }
                State::Skip { remaining } => {
                    let n = remaining.min(bytes.len());
                    bytes = &bytes[n..];
                    self.reader.state = match remaining - n {
                        0 => State::default(),
                        remaining => State::Skip { remaining },
                    };
                }
            }
        }
        Ok(())
    }

    /// A header is complete: decides what becomes of the payload.
    fn begin(&mut self, now: Instant, header: Header, sink: Sink<'_>) -> Result<(), Violation> {
        if self.remote.is_none() && header.kind != FrameType::Hello as u8 {
            return Err(Violation::HelloMissing);
        }
        let kind = header.check()?;
        let (stream, length) = (header.stream, header.length as usize);
        if (kind != Some(FrameType::Data) || length == 0) && !self.control.take(now) {
            return Err(Violation::ControlRate);
        }
        self.reader.state = match kind {
            Some(FrameType::Data) if self.is_live(stream)? => {
                self.account(stream, length as u64)?;
                State::Data {
                    stream,
                    remaining: length,
                }
            }
            // Frames for streams that ended are dropped: they crossed the end on their way.
            Some(kind)
                if kind.of_stream() && kind != FrameType::Open && !self.is_live(stream)? =>
            {
                State::Skip { remaining: length }
            }
            Some(kind) if length == 0 => {
                self.reader.state = State::default();
                return self.control(now, stream, kind, &[], sink);
            }
            Some(kind) => State::Control {
                stream,
                kind,
                length,
            },
            None => State::Skip { remaining: length },
        };
        if length == 0 {
            self.reader.state = State::default();
        }
        Ok(())
    }
}
