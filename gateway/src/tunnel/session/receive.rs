//! What the peer's frames do to a session: the rules of the protocol.

use std::time::{Duration, Instant};

use super::reader::Sink;
use crate::tunnel::{
    EARLY_DATA, Event, MAX_HOPS, RejectCode, ResetCode, Session, Side,
    frame::{FrameType, PING_LEN, leading_u64},
    message::{Hello, Limits, decode, readable, wire},
    stream::Stream,
    violation::Violation,
    window::Window,
};

/// The longest time that a GOAWAY is taken to mean.
const LONGEST_NOTICE: Duration = Duration::from_secs(24 * 60 * 60);

impl Session {
    /// Whether a stream is live; one that was never opened is a violation.
    pub(super) fn is_live(&self, stream: u32) -> Result<bool, Violation> {
        if self.streams.get(stream).is_some() {
            Ok(true)
        } else if self.is_theirs(stream) && stream <= self.highest_there
            || !self.is_theirs(stream) && u64::from(stream) < self.next_here
        {
            Ok(false)
        } else {
            Err(Violation::StreamNotOpened(stream))
        }
    }

    /// Whether an id is one that the peer opens.
    fn is_theirs(&self, stream: u32) -> bool {
        match self.side {
            Side::Dialler => stream.is_multiple_of(2),
            Side::Acceptor => !stream.is_multiple_of(2),
        }
    }

    /// Counts the payload of a DATA frame against the stream's credit.
    pub(super) fn account(&mut self, stream: u32, length: u64) -> Result<(), Violation> {
        let Some(state) = self.streams.get_mut(stream) else {
            return Ok(());
        };
        if state.fin_received {
            return Err(Violation::DataAfterFin(stream));
        }
        if state.opened_here && !state.accepted {
            return Err(Violation::Unexpected {
                kind: FrameType::Data,
                stream,
            });
        }
        // The sum cannot overflow: what was received is below an earlier credit.
        let received = state.received + length;
        if received > state.window.granted() {
            return Err(Violation::CreditExceeded(stream));
        }
        if !state.accepted && received > EARLY_DATA {
            return Err(Violation::EarlyDataExceeded(stream));
        }
        state.received = received;
        Ok(())
    }

    /// A control frame is complete.
    pub(super) fn control(
        &mut self,
        now: Instant,
        stream: u32,
        kind: FrameType,
        payload: &[u8],
        sink: Sink<'_>,
    ) -> Result<(), Violation> {
        match kind {
            FrameType::Hello => self.on_hello(payload, sink)?,
            FrameType::Labels => {
                let labels = decode::<wire::Labels>(kind, payload)?.labels;
                if let Some(remote) = &mut self.remote {
                    remote.labels.clone_from(&labels);
                }
                sink(Event::Labels(labels));
            }
            FrameType::Define => self.incoming.define(payload, &self.limits)?,
            FrameType::Forget => self.incoming.forget(payload)?,
            FrameType::Open => self.on_open(now, stream, payload, sink)?,
            FrameType::Attest => {
                let attest: wire::Attest = decode(kind, payload)?;
                let (workload, _) = self.incoming.workload(attest.workload)?;
                match self.streams.get(stream) {
                    Some(state) if state.opened_here => {
                        return Err(Violation::Unexpected { kind, stream });
                    }
                    Some(_) => sink(Event::Attested {
                        stream,
                        workload,
                        workload_id: attest.workload,
                    }),
                    None => {}
                }
            }
            FrameType::Accept => {
                if self.is_unanswered(stream, kind)? {
                    self.streams.accept(stream);
                    sink(Event::Accepted { stream });
                }
            }
            FrameType::Reject => {
                let reject: wire::Reject = decode(kind, payload)?;
                if self.is_unanswered(stream, kind)? {
                    self.streams.remove(stream);
                    let code = RejectCode::from_wire(reject.code);
                    let text = readable(reject.text);
                    sink(Event::Rejected { stream, code, text });
                }
            }
            FrameType::Fin => self.on_fin(stream, payload, sink)?,
            FrameType::Reset => {
                let code = payload.first_chunk().ok_or(Violation::Malformed(kind))?;
                let code = ResetCode::from_wire(u32::from_be_bytes(*code));
                if self.streams.abandon(stream) {
                    sink(Event::Reset { stream, code });
                }
            }
            FrameType::Credit => {
                let limit = leading_u64(payload).ok_or(Violation::Malformed(kind))?;
                if let Some(state) = self.streams.get_mut(stream) {
                    let before = state.sendable();
                    state.send_limit = state.send_limit.max(limit);
                    if before == 0 && state.sendable() > 0 {
                        sink(Event::Writable { stream });
                    }
                }
            }
            FrameType::Ping | FrameType::Pong if !PING_LEN.contains(&payload.len()) => {
                return Err(Violation::Malformed(kind));
            }
            FrameType::Ping => {
                self.writer.pong.clear();
                self.writer.pong.extend_from_slice(payload);
            }
            FrameType::Pong => {
                if let Some(rtt) = self.liveness.pong(now, payload) {
                    sink(Event::Pong { rtt });
                }
            }
            FrameType::GoAway => {
                let message: wire::GoAway = decode(kind, payload)?;
                self.going_away_there = true;
                let deadline = Duration::from_millis(message.deadline_ms).min(LONGEST_NOTICE);
                sink(Event::GoAway {
                    deadline,
                    reason: readable(message.reason),
                });
            }
            // These never get here: DATA is not assembled, and moving streams is refused.
            FrameType::Data | FrameType::Move | FrameType::Carry => {
                return Err(Violation::Unexpected { kind, stream });
            }
        }
        Ok(())
    }

    fn on_hello(&mut self, payload: &[u8], sink: Sink<'_>) -> Result<(), Violation> {
        if self.remote.is_some() {
            return Err(Violation::HelloTwice);
        }
        let hello = Hello::from_wire(payload)?;
        self.remote_limits = hello.limits.within_dictionary(&Limits::default());
        sink(Event::Hello(self.remote.insert(hello)));
        // Streams that were opened before counted on the protocol's minimum.
        let initial = u64::from(self.remote_limits.initial_window);
        for (stream, state) in self.streams.iter_mut() {
            let before = state.sendable();
            state.send_limit = state.send_limit.max(initial);
            if before == 0 && state.sendable() > 0 {
                sink(Event::Writable { stream });
            }
        }
        Ok(())
    }

    fn on_open(
        &mut self,
        now: Instant,
        stream: u32,
        payload: &[u8],
        sink: Sink<'_>,
    ) -> Result<(), Violation> {
        let unexpected = Violation::Unexpected {
            kind: FrameType::Open,
            stream,
        };
        if !self.is_theirs(stream) {
            return Err(Violation::StreamNotOpened(stream));
        }
        if stream <= self.highest_there {
            let live = self.streams.get(stream).is_some();
            return if live { Err(unexpected) } else { Ok(()) };
        }
        if !self.opens.take(now) {
            return Err(Violation::OpenRate);
        }
        if self.writer.is_flooded(self.limits.streams) {
            return Err(Violation::AnswersUnread);
        }
        let open: wire::Open = decode(FrameType::Open, payload)?;
        let (workload, relayed) = self.incoming.workload(open.workload)?;
        let export = self.incoming.export(open.export)?;
        let count = self.streams.opened_there();
        if count.live >= self.limits.streams {
            return Err(Violation::StreamLimit);
        }
        if count.pending >= self.limits.pending_opens {
            return Err(Violation::PendingLimit);
        }
        self.highest_there = stream;
        // The peer cannot know of dials that outlive its RESET, so they cost it no session.
        let abandoned = self.streams.abandoned();
        if self.going_away_here {
            self.writer
                .reject(stream, RejectCode::GoingAway, "the gateway is going away");
        } else if open.hops > MAX_HOPS {
            self.writer.reject(
                stream,
                RejectCode::Loop,
                "the connection passed too many gateways",
            );
        } else if count.live + abandoned >= self.limits.streams
            || count.pending + abandoned >= self.limits.pending_opens
        {
            self.writer.reject(
                stream,
                RejectCode::Overloaded,
                "too many dials are under way",
            );
        } else {
            let window = Window::new(self.limits.initial_window, now);
            let state = Stream::new(false, self.remote_limits.initial_window, window);
            self.streams.insert(stream, state);
            sink(Event::Opened {
                stream,
                workload,
                workload_id: open.workload,
                relayed,
                export,
                export_id: open.export,
                hops: open.hops,
                probe: open.probe,
            });
        }
        Ok(())
    }

    fn on_fin(&mut self, stream: u32, payload: &[u8], sink: Sink<'_>) -> Result<(), Violation> {
        let kind = FrameType::Fin;
        let total = leading_u64(payload).ok_or(Violation::Malformed(kind))?;
        let Some(state) = self.streams.get_mut(stream) else {
            return Ok(());
        };
        if state.fin_received || state.opened_here && !state.accepted {
            return Err(Violation::Unexpected { kind, stream });
        }
        if total != state.received {
            let code = ResetCode::CountMismatch;
            self.streams.abandon(stream);
            self.writer
                .answer(stream, FrameType::Reset, &code.to_wire().to_be_bytes());
            sink(Event::Reset { stream, code });
            return Ok(());
        }
        state.fin_received = true;
        if state.ended() {
            self.streams.remove(stream);
        }
        sink(Event::Finished { stream });
        Ok(())
    }

    /// Whether ACCEPT or REJECT answers a live stream, which must be ours and without an answer.
    fn is_unanswered(&self, stream: u32, kind: FrameType) -> Result<bool, Violation> {
        match self.streams.get(stream) {
            Some(state) if state.opened_here && !state.accepted => Ok(true),
            Some(_) => Err(Violation::Unexpected { kind, stream }),
            // It was reset between the frame's header and its end.
            None => Ok(false),
        }
    }
}
