//! The two sessions, the pipes between them, and the reference that they are compared with.

use std::{collections::BTreeMap, time::Duration};

use super::Step;
use crate::tunnel::{
    OpenError, RejectCode, ResetCode, StreamError,
    frame::MAX_DATA,
    tests::{
        Arc, Event, Instant, ObjectName, Session, Side, WorkloadAttributes, drain, session,
        workload,
    },
};

/// The byte at an offset of a direction: each stream and side has its own sequence.
fn byte(stream: u32, side: usize, offset: u64) -> u8 {
    (offset ^ (offset >> 8) ^ (u64::from(stream) * 31) ^ (side as u64 * 101)) as u8
}

/// What the reference knows of one side of a stream.
#[derive(Debug, Default)]
pub(super) struct Half {
    answered: bool,
    accepted: bool,
    pub(super) sent: u64,
    pub(super) fin_sent: bool,
    pub(super) received: u64,
    taken: u64,
    pub(super) finished: bool,
    /// This side reset or rejected it, or was told so.
    pub(super) gone: bool,
}

pub(super) struct World {
    now: Instant,
    pub(super) sessions: [Session; 2],
    /// Plaintext on its way to each side.
    pipes: [Vec<u8>; 2],
    pub(super) halves: [BTreeMap<u32, Half>; 2],
    asked: BTreeMap<u32, (Arc<WorkloadAttributes>, ObjectName)>,
    opened: usize,
}

impl World {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let sessions = [session(Side::Dialler, now), session(Side::Acceptor, now)];
        Self {
            now,
            sessions,
            pipes: Default::default(),
            halves: Default::default(),
            asked: BTreeMap::new(),
            opened: 0,
        }
    }

    /// A stream that the side has not seen the end of.
    fn pick(&self, side: usize, number: u8) -> Option<u32> {
        let live: Vec<u32> = self.halves[side]
            .iter()
            .filter(|(_, half)| !half.gone)
            .map(|(&id, _)| id)
            .collect();
        (!live.is_empty()).then(|| live[number as usize % live.len()])
    }

    pub(super) fn step(&mut self, side: usize, step: Step) {
        match step {
            Step::Open(client) => self.open(side, client),
            Step::Answer(number, yes) => {
                if let Some(stream) = self.pick(side, number) {
                    self.answer(side, stream, yes);
                }
            }
            Step::Send(number, length, copied) => {
                if let Some(stream) = self.pick(side, number) {
                    self.send(side, stream, length, copied);
                }
            }
            Step::Fin(number) => {
                if let Some(stream) = self.pick(side, number) {
                    self.fin(side, stream);
                }
            }
            Step::Reset(number) => {
                if let Some(stream) = self.pick(side, number) {
                    let half = self.halves[side].get_mut(&stream).expect("picked");
                    let reset = self.sessions[side].reset(stream, ResetCode::Application);
                    let ended = half.fin_sent && half.finished;
                    assert_eq!(reset.is_err(), ended);
                    half.gone = !ended;
                }
            }
            Step::Attest(number, client) => {
                if let Some(stream) = self.pick(side, number) {
                    let client = workload(client.into());
                    // Refused where this side did not open it, or it has ended in order.
                    let _ = self.sessions[side].attest(stream, Some(&client));
                }
            }
            Step::Take(number, length) => {
                if let Some(stream) = self.pick(side, number) {
                    self.take(side, stream, length.into());
                }
            }
            Step::Ping => self.sessions[side].ping(self.now),
            Step::Flush => self.flush(side),
            Step::Deliver(length) => self.deliver(side, length as usize),
            Step::Wait(microseconds) => {
                self.now += Duration::from_micros(microseconds.into());
                self.sessions[side].handle_timeout(self.now);
            }
        }
    }

    fn open(&mut self, side: usize, client: u8) {
        let client = workload(client.into());
        let export = ObjectName::new("shop", format!("export-{}", self.opened % 100));
        match self.sessions[side].open(self.now, Some(&client), &export, 0, false) {
            Ok(stream) => {
                self.opened += 1;
                self.asked.insert(stream, (client, export));
                let half = Half {
                    answered: true,
                    ..Half::default()
                };
                assert!(
                    self.halves[side].insert(stream, half).is_none(),
                    "ids are never reused"
                );
            }
            Err(error) => assert!(matches!(
                error,
                OpenError::Streams(_) | OpenError::Pending(_)
            )),
        }
    }

    fn answer(&mut self, side: usize, stream: u32, yes: bool) {
        let half = self.halves[side].get_mut(&stream).expect("picked");
        if half.answered {
            return;
        }
        half.answered = true;
        let session = &mut self.sessions[side];
        if yes {
            session.accept(stream).expect("not answered, not reset");
            half.accepted = true;
        } else {
            session
                .reject(stream, RejectCode::Denied, "no")
                .expect("not answered, not reset");
            half.gone = true;
        }
    }

    fn send(&mut self, side: usize, stream: u32, length: u32, copied: bool) {
        let half = self.halves[side].get_mut(&stream).expect("picked");
        let session = &mut self.sessions[side];
        let room = session.sendable(stream).min(MAX_DATA as u64);
        if half.fin_sent {
            assert_eq!(room, 0, "nothing may follow FIN");
            return;
        }
        let length = u64::from(length).min(room);
        let bytes: Vec<u8> = (half.sent..half.sent + length)
            .map(|offset| byte(stream, side, offset))
            .collect();
        if copied {
            session.data(stream, &bytes).expect("within credit");
        } else if length > 0 {
            let header = session
                .data_header(stream, bytes.len())
                .expect("within credit");
            self.pipes[1 - side].append(&mut drain(session));
            self.pipes[1 - side].extend_from_slice(&header);
            self.pipes[1 - side].extend_from_slice(&bytes);
        }
        half.sent += length;
    }

    pub(super) fn fin(&mut self, side: usize, stream: u32) {
        let half = self.halves[side].get_mut(&stream).expect("picked");
        let opened_here = stream % 2 == 1 - side as u32;
        if self.sessions[side].fin(stream).is_ok() {
            assert!(!half.fin_sent && (half.accepted || opened_here));
            half.fin_sent = true;
        } else {
            assert!(half.fin_sent || !half.accepted);
        }
    }

    fn take(&mut self, side: usize, stream: u32, length: u64) {
        let half = self.halves[side].get_mut(&stream).expect("picked");
        let length = length.min(half.received - half.taken);
        half.taken += length;
        self.sessions[side].consumed(self.now, stream, length);
    }

    fn flush(&mut self, side: usize) {
        let mut bytes = drain(&mut self.sessions[side]);
        self.pipes[1 - side].append(&mut bytes);
    }

    /// Delivers a chunk to one side and compares what it is told with what the other did.
    fn deliver(&mut self, side: usize, length: usize) {
        let length = length.min(self.pipes[side].len());
        let bytes: Vec<u8> = self.pipes[side].drain(..length).collect();
        let [first, second] = &mut self.halves;
        let (ours, theirs) = if side == 0 {
            (first, second)
        } else {
            (second, first)
        };
        let asked = &self.asked;
        let mut abandoned = Vec::new();
        let result = self.sessions[side].receive(self.now, &bytes, &mut |event| {
            // Only OPEN names a stream that this side has not seen.
            let half = |stream| ours.get(&stream).filter(|half| !half.gone);
            match event {
                Event::Opened {
                    stream,
                    workload,
                    export,
                    ..
                } => {
                    let (client, name) = &asked[&stream];
                    assert_eq!((workload.as_ref(), &export), (Some(client), name));
                    assert!(ours.insert(stream, Half::default()).is_none());
                }
                Event::Accepted { stream } => {
                    assert!(half(stream).is_some_and(|half| !half.accepted));
                    ours.entry(stream).or_default().accepted = true;
                }
                Event::Rejected { stream, .. } => {
                    assert!(half(stream).is_some_and(|half| !half.accepted));
                    assert!(theirs[&stream].gone);
                    ours.entry(stream).or_default().gone = true;
                }
                Event::Reset { stream, .. } => {
                    assert!(half(stream).is_some() && theirs[&stream].gone);
                    let half = ours.entry(stream).or_default();
                    half.gone = true;
                    if !half.answered {
                        abandoned.push(stream);
                    }
                }
                Event::Data { stream, bytes } => {
                    let half = ours.get_mut(&stream).expect("opened before");
                    assert!(!half.gone && !half.finished);
                    for (offset, &got) in (half.received..).zip(bytes) {
                        assert_eq!(got, byte(stream, 1 - side, offset), "order or content");
                    }
                    half.received += bytes.len() as u64;
                    assert!(half.received <= theirs[&stream].sent);
                    assert!(
                        half.received - half.taken <= 16 << 20,
                        "credit bounds what waits"
                    );
                }
                Event::Finished { stream } => {
                    let half = ours.get_mut(&stream).expect("opened before");
                    let theirs = &theirs[&stream];
                    assert!(!half.gone && !half.finished && theirs.fin_sent);
                    assert_eq!(half.received, theirs.sent, "an end without all bytes");
                    half.finished = true;
                }
                Event::Writable { stream } => assert!(half(stream).is_some()),
                Event::Attested { stream, .. } => assert!(half(stream).is_some()),
                Event::Hello(_) | Event::Pong { .. } => {}
                other => panic!("{other:?} was not sent"),
            }
        });
        assert_eq!(result, Ok(()), "no honest peer violates the protocol");
        let session = &mut self.sessions[side];
        for stream in abandoned {
            assert_eq!(session.accept(stream), Err(StreamError::Gone(stream)));
        }
        for (&stream, half) in ours.iter() {
            let waiting = if half.gone { 0 } else { session.unread(stream) };
            // A frame is counted when its header arrives, so the session may be ahead.
            assert!(half.gone || half.finished || waiting >= half.received - half.taken);
        }
    }

    /// Answers, takes, flushes and delivers until nothing moves.
    pub(super) fn settle(&mut self) {
        loop {
            for side in [0, 1] {
                let live: Vec<u32> = self.halves[side].keys().copied().collect();
                for stream in live {
                    if !self.halves[side][&stream].gone {
                        self.answer(side, stream, true);
                    }
                    self.take(side, stream, u64::MAX);
                }
                self.flush(side);
            }
            if self.pipes.iter().all(Vec::is_empty) {
                return;
            }
            for side in [0, 1] {
                self.deliver(side, usize::MAX);
            }
        }
    }
}
