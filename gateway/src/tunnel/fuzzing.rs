//! The bodies of the fuzz targets, kept here so that ordinary tests run them too.

use std::time::{Duration, Instant};

use prost::Message as _;

use crate::tunnel::{
    Bounds, Event, Hello, Limits, RejectCode, ResetCode, Session, SessionConfig, Side, StreamError,
    frame::{FrameType, Header, MAX_CONTROL, MAX_DATA},
    message::wire,
};

/// Feeds a session with what `input` makes: the first byte chooses the side and whether a valid
/// HELLO comes first, then come records. A record is raw bytes (its first byte below 0x80 is their
/// number) or a frame (type, stream and length follow as one byte each, then the payload).
///
/// # Panics
/// When the session goes over one of its bounds.
pub fn session(input: &[u8]) {
    let Some((&first, mut input)) = input.split_first() else {
        return;
    };
    let side = if first & 1 == 0 {
        Side::Acceptor
    } else {
        Side::Dialler
    };
    let hello = Hello {
        limits: Limits::MINIMUM,
        ..Hello::default()
    };
    let mut now = Instant::now();
    let mut fuzzed = Fuzzed {
        session: Session::new(
            SessionConfig {
                side,
                hello: hello.clone(),
                bounds: Bounds::default(),
                first_stream: 0,
                seed: first.into(),
            },
            now,
        ),
        asked: Vec::new(),
        arrived: Vec::new(),
    };
    let export = clusterlink_model::ObjectName::new("shop", "checkout");
    // A full dictionary or stream table is an answer, not a failure of the target.
    let _ = fuzzed.session.open(now, None, &export, 0, false);
    if first & 2 != 0 {
        let hello = hello.to_wire().encode_to_vec();
        let header = Header::new(0, FrameType::Hello, hello.len()).encode();
        fuzzed.feed(now, &[&header[..], &hello].concat());
        let define = wire::Define::export(1, &export).encode_to_vec();
        let header = Header::new(0, FrameType::Define, define.len()).encode();
        fuzzed.feed(now, &[&header[..], &define].concat());
    }
    while let Some((&record, rest)) = input.split_first() {
        now += Duration::from_millis(u64::from(record));
        let piece = if record < 0x80 {
            let (raw, rest) = rest.split_at(usize::from(record).min(rest.len()));
            input = rest;
            raw.to_vec()
        } else {
            let Some((&[kind, stream, length], rest)) = rest.split_first_chunk() else {
                return;
            };
            let (payload, rest) = rest.split_at(usize::from(length).min(rest.len()));
            input = rest;
            let length = payload.len() as u32;
            let header = Header {
                stream: stream.into(),
                kind,
                length,
            }
            .encode();
            [&header[..], payload].concat()
        };
        if !fuzzed.feed(now, &piece) {
            return;
        }
        fuzzed.act(now, record);
    }
}

/// Decodes a header and, for the frames that have one, a message; what decodes must encode again.
///
/// # Panics
/// When something does not survive that.
pub fn frame(input: &[u8]) {
    let Some((bytes, payload)) = input.split_first_chunk() else {
        return;
    };
    let header = Header::decode(*bytes);
    assert_eq!(header.encode(), *bytes, "every 8 bytes are one header");
    if let Ok(Some(kind)) = header.check() {
        let longest = if kind == FrameType::Data {
            MAX_DATA
        } else {
            MAX_CONTROL
        };
        assert!(header.length as usize <= longest, "{kind:?} is bounded");
        assert_eq!(
            kind.of_stream(),
            header.stream != 0,
            "{kind:?} on the right stream"
        );
    }
    if let Ok(hello) = Hello::from_wire(payload) {
        let again = Hello::from_wire(&hello.to_wire().encode_to_vec());
        assert_eq!(again.as_ref(), Ok(&hello), "HELLO survives the wire");
    }
    if let Ok(define) = wire::Define::decode(payload) {
        let again = wire::Define::decode(&define.encode_to_vec()[..]);
        assert_eq!(again.as_ref(), Ok(&define), "DEFINE survives the wire");
    }
}

struct Fuzzed {
    session: Session,
    /// Streams that wait for an answer.
    asked: Vec<u32>,
    /// Bytes that arrived and were not taken.
    arrived: Vec<(u32, u64)>,
}

impl Fuzzed {
    /// False when the session was ended.
    fn feed(&mut self, now: Instant, bytes: &[u8]) -> bool {
        let (asked, arrived) = (&mut self.asked, &mut self.arrived);
        let mut delivered = 0;
        let result = self.session.receive(now, bytes, &mut |event| match event {
            Event::Opened { stream, .. } => asked.push(stream),
            Event::Data { stream, bytes } => {
                delivered += bytes.len();
                arrived.push((stream, bytes.len() as u64));
            }
            Event::Rejected { text, .. } => assert!(text.len() <= 1024, "texts are bounded"),
            _ => {}
        });
        assert!(delivered <= bytes.len(), "no byte is delivered twice");
        let limit = Limits::MINIMUM.streams as usize;
        assert!(
            self.session.live_streams() <= 2 * limit,
            "streams are bounded"
        );
        result.is_ok()
    }

    /// Does something with what came, as `choice` says.
    fn act(&mut self, now: Instant, choice: u8) {
        if choice & 1 != 0
            && let Some(stream) = self.asked.pop()
        {
            let answered = match choice & 6 {
                0 => self.session.reject(stream, RejectCode::Denied, "no"),
                2 => self.session.reset(stream, ResetCode::Application),
                _ => self.session.accept(stream),
            };
            assert!(
                matches!(answered, Ok(()) | Err(StreamError::Gone(_))),
                "{answered:?}"
            );
        }
        if choice & 8 != 0 {
            for (stream, n) in self.arrived.drain(..) {
                // What a stream that ended had left is nobody's any more.
                let n = n.min(self.session.unread(stream));
                self.session.consumed(now, stream, n);
            }
        }
        if choice & 16 != 0 {
            self.session.handle_timeout(now);
        }
        let output = self.session.output();
        assert!(
            output.len() <= MAX_CONTROL,
            "what a peer provokes is bounded"
        );
        if choice & 32 != 0 {
            output.clear();
        }
    }
}
