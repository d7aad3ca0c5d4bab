//! What a peer can do wrong on a session. Each ends the session.

use crate::tunnel::frame::FrameType;

/// How the other gateway broke the protocol or went over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The first frame is not HELLO.
    #[error("the first frame is not HELLO")]
    HelloMissing,
    /// HELLO came again.
    #[error("HELLO was sent twice")]
    HelloTwice,
    /// No version of the protocol is spoken by both.
    #[error("no common protocol version (this gateway speaks 1)")]
    NoCommonVersion,
    /// HELLO promises less than the protocol asks of everyone.
    #[error("HELLO announces limits below the protocol's minimum")]
    LimitsTooLow,
    /// A frame of a type that must be understood and is not.
    #[error("frame type {0:#04x} is not known and must not be ignored")]
    UnknownFrame(u8),
    /// A frame is longer than its type may be.
    #[error("frame of type {kind:#04x} has {length} bytes, more than its type may have")]
    FrameTooLong {
        /// The type on the wire.
        kind: u8,
        /// The length in its header.
        length: u32,
    },
    /// A frame's payload cannot be decoded, or a value in it is out of bounds.
    #[error("{0:?} frame is malformed")]
    Malformed(FrameType),
    /// A frame of the session names a stream, or one of a stream names none.
    #[error("{kind:?} frame on stream {stream}")]
    WrongStream {
        /// The frame's type.
        kind: FrameType,
        /// The stream that it names.
        stream: u32,
    },
    /// A frame names a stream that was never opened, or OPEN uses the wrong side's numbers.
    #[error("stream {0} was never opened")]
    StreamNotOpened(u32),
    /// A frame that the stream's state does not allow.
    #[error("{kind:?} frame does not fit the state of stream {stream}")]
    Unexpected {
        /// The frame's type.
        kind: FrameType,
        /// The stream.
        stream: u32,
    },
    /// More bytes than the stream's credit.
    #[error("more bytes than stream {0} has credit for")]
    CreditExceeded(u32),
    /// Too many bytes before the stream was accepted.
    #[error("more than 16 KiB on stream {0} before it was accepted")]
    EarlyDataExceeded(u32),
    /// Bytes after the direction's end.
    #[error("bytes on stream {0} after its FIN")]
    DataAfterFin(u32),
    /// More streams than announced in our HELLO.
    #[error("more streams than the announced limit")]
    StreamLimit,
    /// More unanswered streams than announced in our HELLO.
    #[error("more unanswered streams than the announced limit")]
    PendingLimit,
    /// More dictionary entries, or larger ones, than announced in our HELLO.
    #[error("the dictionary is larger than the announced limit")]
    DictionaryLimit,
    /// A dictionary id that is not above all earlier ones.
    #[error("dictionary id {0} is not above all earlier ones")]
    DictionaryReuse(u32),
    /// A dictionary id that is not defined, or of another kind.
    #[error("dictionary id {0} does not name what it is used for")]
    DictionaryMissing(u32),
    /// More control frames than a session may carry in a second.
    #[error("too many control frames in a second")]
    ControlRate,
    /// More streams opened than a session may open in a second.
    #[error("too many streams opened in a second")]
    OpenRate,
    /// The peer provokes answers and does not take them.
    #[error("answers pile up that the peer does not read")]
    AnswersUnread,
}

impl Violation {
    /// The reason as a metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::HelloMissing => "hello-missing",
            Self::HelloTwice => "hello-twice",
            Self::NoCommonVersion => "no-common-version",
            Self::LimitsTooLow => "limits-too-low",
            Self::UnknownFrame(_) => "unknown-frame",
            Self::FrameTooLong { .. } => "frame-too-long",
            Self::Malformed(_) => "malformed",
            Self::WrongStream { .. } => "wrong-stream",
            Self::StreamNotOpened(_) => "stream-not-opened",
            Self::Unexpected { .. } => "unexpected-frame",
            Self::CreditExceeded(_) => "credit-exceeded",
            Self::EarlyDataExceeded(_) => "early-data-exceeded",
            Self::DataAfterFin(_) => "data-after-fin",
            Self::StreamLimit => "stream-limit",
            Self::PendingLimit => "pending-limit",
            Self::DictionaryLimit => "dictionary-limit",
            Self::DictionaryReuse(_) => "dictionary-reuse",
            Self::DictionaryMissing(_) => "dictionary-missing",
            Self::ControlRate => "control-rate",
            Self::OpenRate => "open-rate",
            Self::AnswersUnread => "answers-unread",
        }
    }
}
