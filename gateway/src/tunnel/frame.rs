//! The frame codec: headers, types, lengths, and the small payloads of fixed shape.

use prost::Message;

use crate::tunnel::violation::Violation;

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 8;

/// The longest payload of a control frame.
pub const MAX_CONTROL: usize = 64 * 1024;

/// The longest payload of a DATA frame.
pub const MAX_DATA: usize = 256 * 1024;

/// The bounds of the payload of PING and PONG.
pub const PING_LEN: std::ops::RangeInclusive<usize> = 8..=32;

/// What a frame carries. Types from 0x80 on end the session where they are not understood, lower
/// ones are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// Versions, limits and identity of the session; the first frame each way.
    Hello = 0x01,
    /// The sender's labels changed.
    Labels = 0x02,
    /// A dictionary entry.
    Define = 0x03,
    /// A dictionary entry goes.
    Forget = 0x04,
    /// A new stream.
    Open = 0x05,
    /// The client's attributes changed.
    Attest = 0x06,
    /// The backend is connected.
    Accept = 0x07,
    /// The stream is not accepted.
    Reject = 0x08,
    /// Bytes of a stream.
    Data = 0x09,
    /// The end of a direction, with its byte count.
    Fin = 0x0a,
    /// The end of both directions.
    Reset = 0x0b,
    /// How far the receiver of this frame may send.
    Credit = 0x0c,
    /// A question for a sign of life.
    Ping = 0x0d,
    /// The answer to it.
    Pong = 0x0e,
    /// No new streams on this session.
    GoAway = 0x0f,
    /// Reserved: the last frame of a direction on this session.
    Move = 0x80,
    /// Reserved: the first frame of a direction on the session that it moved to.
    Carry = 0x81,
}

impl FrameType {
    /// The type with this number, if this version knows it.
    pub fn from_wire(kind: u8) -> Option<Self> {
        Some(match kind {
            0x01 => Self::Hello,
            0x02 => Self::Labels,
            0x03 => Self::Define,
            0x04 => Self::Forget,
            0x05 => Self::Open,
            0x06 => Self::Attest,
            0x07 => Self::Accept,
            0x08 => Self::Reject,
            0x09 => Self::Data,
            0x0a => Self::Fin,
            0x0b => Self::Reset,
            0x0c => Self::Credit,
            0x0d => Self::Ping,
            0x0e => Self::Pong,
            0x0f => Self::GoAway,
            0x80 => Self::Move,
            0x81 => Self::Carry,
            _ => return None,
        })
    }

    /// Whether it belongs to a stream, rather than to the session.
    pub fn of_stream(self) -> bool {
        match self {
            Self::Open
            | Self::Attest
            | Self::Accept
            | Self::Reject
            | Self::Data
            | Self::Fin
            | Self::Reset
            | Self::Credit
            | Self::Move
            | Self::Carry => true,
            Self::Hello
            | Self::Labels
            | Self::Define
            | Self::Forget
            | Self::Ping
            | Self::Pong
            | Self::GoAway => false,
        }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The stream, or 0 for the session.
    pub stream: u32,
    /// The type on the wire.
    pub kind: u8,
    /// Bytes of payload, below 2^24.
    pub length: u32,
}

impl Header {
    /// A header for a payload whose length the caller has checked.
    pub fn new(stream: u32, kind: FrameType, length: usize) -> Self {
        debug_assert!(
            length <= MAX_DATA,
            "a payload of {length} bytes fits no frame"
        );
        Self {
            stream,
            kind: kind as u8,
            length: length as u32,
        }
    }

    /// The header on the wire.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        [s0, s1, s2, s3, self.kind, l0, l1, l2]
    }

    /// The header that these bytes are; every 8 bytes are one.
    pub fn decode(bytes: [u8; HEADER_LEN]) -> Self {
        let [s0, s1, s2, s3, kind, l0, l1, l2] = bytes;
        Self {
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            kind,
            length: u32::from_be_bytes([0, l0, l1, l2]),
        }
    }

    /// Checks what can be checked without a session; `None` means that the frame is to be ignored.
    pub fn check(self) -> Result<Option<FrameType>, Violation> {
        let kind = FrameType::from_wire(self.kind);
        let longest = if kind == Some(FrameType::Data) {
            MAX_DATA
        } else {
            MAX_CONTROL
        };
        if self.length as usize > longest {
            return Err(Violation::FrameTooLong {
                kind: self.kind,
                length: self.length,
            });
        }
        match kind {
            // No version of HELLO offers moving streams yet, so nobody may.
            Some(FrameType::Move | FrameType::Carry) => Err(Violation::UnknownFrame(self.kind)),
            Some(kind) if kind.of_stream() == (self.stream == 0) => Err(Violation::WrongStream {
                kind,
                stream: self.stream,
            }),
            Some(kind) => Ok(Some(kind)),
            None if self.kind >= 0x80 => Err(Violation::UnknownFrame(self.kind)),
            None => Ok(None),
        }
    }
}

/// A message was longer than a control frame may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Appends a frame whose payload is at hand.
pub(crate) fn push(out: &mut Vec<u8>, stream: u32, kind: FrameType, payload: &[u8]) {
    out.extend_from_slice(&Header::new(stream, kind, payload.len()).encode());
    out.extend_from_slice(payload);
}

/// Appends a frame whose payload is one number, in one write without an allocation of its own.
pub(crate) fn push_u64(out: &mut Vec<u8>, stream: u32, kind: FrameType, value: u64) {
    let mut frame = [0; HEADER_LEN + 8];
    frame[..HEADER_LEN].copy_from_slice(&Header::new(stream, kind, 8).encode());
    frame[HEADER_LEN..].copy_from_slice(&value.to_be_bytes());
    out.extend_from_slice(&frame);
}

/// Appends a frame whose payload is a message; leaves `out` alone if it is too long.
pub(crate) fn push_message(
    out: &mut Vec<u8>,
    stream: u32,
    kind: FrameType,
    message: &impl Message,
) -> Result<(), TooLong> {
    let length = message.encoded_len();
    if length > MAX_CONTROL {
        return Err(TooLong);
    }
    out.reserve(HEADER_LEN + length);
    out.extend_from_slice(&Header::new(stream, kind, length).encode());
    message.encode(out).expect("a Vec grows as needed");
    Ok(())
}

/// The number that a payload starts with; what a later version appends is ignored.
pub(crate) fn leading_u64(payload: &[u8]) -> Option<u64> {
    payload
        .first_chunk()
        .map(|bytes| u64::from_be_bytes(*bytes))
}
