//! Limits against a hostile peer: nothing that it sends makes us remember, queue or do more than
//! was announced.

use std::time::Duration;

use super::*;
use crate::tunnel::{OpenError, RejectCode, StreamError, frame::MAX_CONTROL};

/// Opens as many streams as the smallest limits allow.
fn filled(now: Instant) -> (Session, u32) {
    let mut acceptor = acceptor(now);
    feed(&mut acceptor, now, &define_export(1)).expect("in order");
    for n in 0..Limits::MINIMUM.streams {
        feed(&mut acceptor, now, &open_frame(2 * n + 1, 1)).expect("within the limit");
    }
    (acceptor, 2 * Limits::MINIMUM.streams + 1)
}

#[test]
fn more_streams_than_announced_end_the_session() {
    let now = Instant::now();
    let (mut acceptor, next) = filled(now);
    assert_eq!(
        feed(&mut acceptor, now, &open_frame(next, 1)),
        Err(Violation::StreamLimit)
    );
    let (mut acceptor, next) = filled(now);
    acceptor
        .reject(1, RejectCode::NoBackend, "none is ready")
        .expect("not answered yet");
    assert!(feed(&mut acceptor, now, &open_frame(next, 1)).is_ok());
}

#[test]
fn a_reset_stream_keeps_its_slot_until_its_dial_has_ended() {
    let now = Instant::now();
    let (mut acceptor, next) = filled(now);
    drain(&mut acceptor);
    let reset = frame(1, FrameType::Reset, &1_u32.to_be_bytes());
    assert_eq!(
        feed(&mut acceptor, now, &reset),
        Ok(vec!["reset 1 application".to_owned()])
    );
    assert_eq!(feed(&mut acceptor, now, &open_frame(next, 1)), Ok(vec![]));
    assert_eq!(kinds(&drain(&mut acceptor)), [FrameType::Reject]);
    assert_eq!(acceptor.accept(1), Err(StreamError::Gone(1)));
    let opened = feed(&mut acceptor, now, &open_frame(next + 2, 1)).expect("a slot is free");
    assert_eq!(opened, [format!("opened {} shop/export-1", next + 2)]);
}

#[test]
fn more_unanswered_streams_than_announced_end_the_session() {
    let now = Instant::now();
    let mut config = SessionConfig {
        side: Side::Acceptor,
        hello: Hello::default(),
        bounds: Bounds::default(),
        first_stream: 0,
        seed: 1,
    };
    config.hello.limits.pending_opens = 128;
    let mut acceptor = Session::new(config, now);
    feed(&mut acceptor, now, &drain(&mut session(Side::Dialler, now))).expect("in order");
    feed(&mut acceptor, now, &define_export(1)).expect("in order");
    for n in 0..128 {
        feed(&mut acceptor, now, &open_frame(2 * n + 1, 1)).expect("within the limit");
    }
    acceptor.accept(1).expect("not answered yet");
    assert!(feed(&mut acceptor, now, &open_frame(257, 1)).is_ok());
    assert_eq!(
        feed(&mut acceptor, now, &open_frame(259, 1)),
        Err(Violation::PendingLimit)
    );
}

#[test]
fn the_dictionary_is_bounded_in_entries_and_in_bytes() {
    let now = Instant::now();
    let mut many = acceptor(now);
    for id in 1..=Limits::MINIMUM.dictionary_entries {
        feed(&mut many, now, &define_export(id)).expect("within the limit");
    }
    assert_eq!(
        feed(&mut many, now, &define_export(100)),
        Err(Violation::DictionaryLimit)
    );
    let mut large = acceptor(now);
    let mut attributes = WorkloadAttributes::clone(&workload(1));
    attributes
        .labels
        .insert("filler".into(), "x".repeat(MAX_CONTROL - 200));
    for id in 1..=3 {
        let define = wire::Define::workload(id, &attributes, false);
        feed(&mut large, now, &message(0, FrameType::Define, &define)).expect("within the limit");
    }
    let labels = (0..4000).map(|n| (n.to_string(), String::new())).collect();
    let define = wire::Define::workload(
        4,
        &WorkloadAttributes {
            labels,
            ..attributes
        },
        false,
    );
    let define = message(0, FrameType::Define, &define);
    assert_eq!(
        feed(&mut large, now, &define),
        Err(Violation::DictionaryLimit)
    );
}

#[test]
fn dictionary_numbers_are_never_used_again() {
    let now = Instant::now();
    let forget = message(0, FrameType::Forget, &wire::Forget { id: 5 });
    let mut acceptor = acceptor(now);
    feed(&mut acceptor, now, &[define_export(5), forget].concat()).expect("in order");
    for id in [5, 4, 0] {
        let mut acceptor = super::acceptor(now);
        feed(&mut acceptor, now, &define_export(5)).expect("in order");
        let reuse = Err(Violation::DictionaryReuse(id));
        assert_eq!(feed(&mut acceptor, now, &define_export(id)), reuse);
    }
    let missing = Err(Violation::DictionaryMissing(5));
    assert_eq!(feed(&mut acceptor, now, &open_frame(1, 5)), missing);
}

#[test]
fn the_entry_used_longest_ago_makes_room() {
    let now = Instant::now();
    let (mut dialler, mut acceptor) = (dialler(now), acceptor(now));
    let mut ids = std::collections::HashMap::new();
    for round in 0..1000_usize {
        // Workload 0 is used in every other round and therefore never forgotten.
        let client = workload(if round % 2 == 0 { 0 } else { round });
        let export = ObjectName::new("shop", format!("export-{}", round % 90));
        let stream = dialler
            .open(now, Some(&client), &export, 0, false)
            .expect("room");
        let wire = drain(&mut dialler);
        let took = acceptor.receive(now, &wire, &mut |event| {
            let Event::Opened {
                workload,
                workload_id,
                export: named,
                ..
            } = event
            else {
                return;
            };
            let attributes = workload.expect("a workload was named");
            assert_eq!(named, export);
            assert_eq!(attributes, client);
            assert_eq!(
                *ids.entry(workload_id).or_insert(attributes.clone()),
                attributes
            );
        });
        assert_eq!(took, Ok(()));
        acceptor
            .reject(stream, RejectCode::Denied, "")
            .expect("not answered yet");
        let wire = drain(&mut acceptor);
        feed(&mut dialler, now, &wire).expect("in order");
    }
    assert_eq!(
        ids.values()
            .filter(|client| **client == workload(0))
            .count(),
        1
    );
    assert_eq!(ids.len(), 501);
}

#[test]
fn attributes_larger_than_the_dictionary_are_not_sent() {
    let now = Instant::now();
    let mut dialler = dialler(now);
    let mut attributes = WorkloadAttributes::clone(&workload(1));
    attributes
        .labels
        .insert("filler".into(), "x".repeat(MAX_CONTROL));
    let opened = dialler.open(now, Some(&Arc::new(attributes)), &export(), 0, false);
    assert_eq!(opened, Err(OpenError::TooLarge));
    assert!(drain(&mut dialler).is_empty());
}

#[test]
fn before_the_hello_of_the_peer_the_minimum_holds() {
    let now = Instant::now();
    let mut dialler = session(Side::Dialler, now);
    for _ in 0..Limits::MINIMUM.streams {
        dialler
            .open(now, None, &export(), 0, false)
            .expect("the minimum is granted");
    }
    let limit = OpenError::Streams(Limits::MINIMUM.streams);
    assert_eq!(dialler.open(now, None, &export(), 0, false), Err(limit));
    let hello = Hello::default().to_wire();
    feed(&mut dialler, now, &message(0, FrameType::Hello, &hello)).expect("in order");
    assert!(dialler.open(now, None, &export(), 0, false).is_ok());
}

#[test]
fn control_frames_and_opens_are_limited_per_second() {
    let now = Instant::now();
    let limited = |bounds| {
        let config = SessionConfig {
            side: Side::Acceptor,
            hello: Hello::default(),
            bounds,
            first_stream: 0,
            seed: 1,
        };
        let mut acceptor = Session::new(config, now);
        feed(&mut acceptor, now, &drain(&mut session(Side::Dialler, now))).expect("in order");
        feed(&mut acceptor, now, &define_export(1)).expect("in order");
        acceptor
    };
    // HELLO, PING and DEFINE count, too.
    let mut few = limited(Bounds {
        control_frames_per_second: 5,
        ..Bounds::default()
    });
    let ping = frame(0, FrameType::Ping, &[0; 8]);
    feed(&mut few, now, &[ping.clone(), ping.clone()].concat()).expect("within the limit");
    let later = now + Duration::from_millis(200);
    assert!(feed(&mut few, later, &ping).is_ok());
    assert_eq!(feed(&mut few, later, &ping), Err(Violation::ControlRate));
    let mut few = limited(Bounds {
        opens_per_second: 3,
        ..Bounds::default()
    });
    for stream in [1, 3, 5] {
        let reset = frame(stream, FrameType::Reset, &1_u32.to_be_bytes());
        feed(&mut few, now, &[open_frame(stream, 1), reset].concat()).expect("within the limit");
        assert_eq!(few.accept(stream), Err(StreamError::Gone(stream)));
    }
    assert_eq!(
        feed(&mut few, now, &open_frame(7, 1)),
        Err(Violation::OpenRate)
    );
}

#[test]
fn many_pings_get_one_pong() {
    let now = Instant::now();
    let mut acceptor = acceptor(now);
    for n in 0..1000_u64 {
        feed(
            &mut acceptor,
            now,
            &frame(0, FrameType::Ping, &n.to_be_bytes()),
        )
        .expect("in order");
    }
    assert_eq!(
        drain(&mut acceptor),
        frame(0, FrameType::Pong, &999_u64.to_be_bytes())
    );
    for length in [7, 33] {
        let mut acceptor = super::acceptor(now);
        let ping = frame(0, FrameType::Ping, &vec![0; length]);
        let malformed = Err(Violation::Malformed(FrameType::Ping));
        assert_eq!(feed(&mut acceptor, now, &ping), malformed);
    }
}

#[test]
fn credit_of_a_stream_waits_as_one_frame() {
    let now = Instant::now();
    let mut acceptor = acceptor_with_stream(now);
    acceptor.accept(1).expect("not answered yet");
    drain(&mut acceptor);
    feed(&mut acceptor, now, &frame(1, FrameType::Data, &[0; 60_000])).expect("within credit");
    for _ in 0..60 {
        acceptor.consumed(now, 1, 1000);
    }
    let credit = (60_000_u64 + 64 * 1024).to_be_bytes();
    assert_eq!(drain(&mut acceptor), frame(1, FrameType::Credit, &credit));
    assert!(!acceptor.has_output());
}

#[test]
fn a_peer_that_does_not_read_its_answers_is_ended() {
    let now = Instant::now();
    let mut acceptor = acceptor(now);
    feed(&mut acceptor, now, &define_export(1)).expect("in order");
    let refused = (0..1_000_000).find_map(|n| {
        let mismatch = frame(2 * n + 1, FrameType::Fin, &9_u64.to_be_bytes());
        let bytes = [open_frame(2 * n + 1, 1), mismatch].concat();
        let result = feed(&mut acceptor, now + Duration::from_millis(n.into()), &bytes);
        // The dial ends at once; nothing is ever written to the peer.
        assert_eq!(
            acceptor.accept(2 * n + 1),
            Err(StreamError::Gone(2 * n + 1))
        );
        result.err()
    });
    assert_eq!(refused, Some(Violation::AnswersUnread));
    assert!(acceptor.output().len() < 64 * 1024);
}
