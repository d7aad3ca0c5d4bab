//! The rules of streams, each against frames made by hand.

use super::*;
use crate::tunnel::{
    EARLY_DATA, OpenError, RejectCode, ResetCode, StreamError,
    frame::{MAX_CONTROL, MAX_DATA},
};

fn fin(stream: u32, total: u64) -> Vec<u8> {
    frame(stream, FrameType::Fin, &total.to_be_bytes())
}

fn data(stream: u32, length: usize) -> Vec<u8> {
    frame(stream, FrameType::Data, &vec![0; length])
}

fn credit(stream: u32, offset: u64) -> Vec<u8> {
    frame(stream, FrameType::Credit, &offset.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(stream, FrameType::Reset, &1_u32.to_be_bytes())
}

#[test]
fn the_first_frame_is_hello_and_comes_once() {
    let now = Instant::now();
    let mut early = session(Side::Acceptor, now);
    let ping = frame(0, FrameType::Ping, &[0; 8]);
    assert_eq!(feed(&mut early, now, &ping), Err(Violation::HelloMissing));
    let mut early = session(Side::Acceptor, now);
    assert_eq!(
        feed(&mut early, now, &raw_frame(0, 0x42, &[])),
        Err(Violation::HelloMissing)
    );
    let mut greeted = acceptor(now);
    let again = drain(&mut session(Side::Dialler, now));
    assert_eq!(feed(&mut greeted, now, &again), Err(Violation::HelloTwice));
}

#[test]
fn a_hello_without_our_version_or_with_too_low_limits_is_refused() {
    let now = Instant::now();
    let refuse = |change: fn(&mut wire::Hello)| {
        let mut hello = Hello::default().to_wire();
        change(&mut hello);
        let hello = message(0, FrameType::Hello, &hello);
        feed(&mut session(Side::Acceptor, now), now, &hello).expect_err("must be refused")
    };
    assert_eq!(
        refuse(|hello| hello.versions = vec![2, 3]),
        Violation::NoCommonVersion
    );
    let low = |hello: &mut wire::Hello| hello.limits.as_mut().expect("set").streams = 1;
    assert_eq!(refuse(low), Violation::LimitsTooLow);
    let malformed = Violation::Malformed(FrameType::Hello);
    assert_eq!(refuse(|hello| hello.association.truncate(15)), malformed);
}

#[test]
fn a_violation_is_final() {
    let now = Instant::now();
    let mut acceptor = acceptor(now);
    let move_frame = frame(1, FrameType::Move, &[0; 16]);
    assert_eq!(
        feed(&mut acceptor, now, &move_frame),
        Err(Violation::UnknownFrame(0x80))
    );
    assert_eq!(
        feed(&mut acceptor, now, &define_export(1)),
        Err(Violation::UnknownFrame(0x80))
    );
    assert_eq!(
        acceptor.open(now, None, &export(), 0, false),
        Err(OpenError::GoingAway)
    );
}

#[test]
fn unknown_frames_are_ignored_below_0x80_and_refused_above() {
    let now = Instant::now();
    let mut acceptor = acceptor(now);
    let unknown = [
        raw_frame(9, 0x7f, &[1; 5000]),
        raw_frame(0, 0x10, &[]),
        define_export(1),
    ];
    assert_eq!(feed(&mut acceptor, now, &unknown.concat()), Ok(vec![]));
    let opened = feed(&mut acceptor, now, &open_frame(1, 1));
    assert_eq!(opened, Ok(vec!["opened 1 shop/export-1".to_owned()]));
    assert_eq!(
        feed(&mut acceptor, now, &raw_frame(0, 0xff, &[])),
        Err(Violation::UnknownFrame(255))
    );
}

#[test]
fn frames_may_not_be_longer_than_their_type_allows() {
    let now = Instant::now();
    for (kind, length) in [
        (FrameType::Data, MAX_DATA),
        (FrameType::Define, MAX_CONTROL),
    ] {
        let stream = u32::from(kind.of_stream());
        let mut acceptor = acceptor_with_stream(now);
        let header = Header {
            stream,
            kind: kind as u8,
            length: length as u32 + 1,
        }
        .encode();
        let too_long = Violation::FrameTooLong {
            kind: kind as u8,
            length: length as u32 + 1,
        };
        assert_eq!(feed(&mut acceptor, now, &header), Err(too_long));
    }
}

#[test]
fn data_beyond_credit_or_early_data_ends_the_session() {
    let now = Instant::now();
    let mut early = acceptor_with_stream(now);
    assert!(feed(&mut early, now, &data(1, EARLY_DATA as usize)).is_ok());
    assert_eq!(
        feed(&mut early, now, &data(1, 1)),
        Err(Violation::EarlyDataExceeded(1))
    );
    let mut accepted = acceptor_with_stream(now);
    accepted.accept(1).expect("not answered yet");
    assert!(feed(&mut accepted, now, &data(1, 64 * 1024)).is_ok());
    assert_eq!(
        feed(&mut accepted, now, &data(1, 1)),
        Err(Violation::CreditExceeded(1))
    );
}

#[test]
fn data_is_delivered_as_it_arrives() {
    let now = Instant::now();
    let mut acceptor = acceptor_with_stream(now);
    let bytes = data(1, 1000);
    assert_eq!(
        feed(&mut acceptor, now, &bytes[..108]),
        Ok(vec!["data 1 100".to_owned()])
    );
    assert_eq!(
        feed(&mut acceptor, now, &bytes[108..]),
        Ok(vec!["data 1 900".to_owned()])
    );
    assert_eq!(acceptor.unread(1), 1000);
}

#[test]
fn nothing_may_follow_fin() {
    let now = Instant::now();
    let mut acceptor = acceptor_with_stream(now);
    let finished = feed(&mut acceptor, now, &[data(1, 10), fin(1, 10)].concat());
    assert_eq!(
        finished,
        Ok(vec!["data 1 10".to_owned(), "finished 1".to_owned()])
    );
    assert_eq!(
        feed(&mut acceptor, now, &data(1, 1)),
        Err(Violation::DataAfterFin(1))
    );
}

#[test]
fn a_fin_that_does_not_match_resets_the_stream_both_ways() {
    let now = Instant::now();
    let mut acceptor = acceptor_with_stream(now);
    acceptor.accept(1).expect("not answered yet");
    drain(&mut acceptor);
    let events = feed(&mut acceptor, now, &[data(1, 10), fin(1, 11)].concat());
    assert_eq!(
        events,
        Ok(vec![
            "data 1 10".to_owned(),
            "reset 1 count-mismatch".to_owned()
        ])
    );
    assert_eq!(kinds(&drain(&mut acceptor)), [FrameType::Reset]);
    assert_eq!(acceptor.live_streams(), 0);
    assert_eq!(acceptor.fin(1), Err(StreamError::Gone(1)));
}

#[test]
fn a_slot_is_free_when_both_directions_ended() {
    let now = Instant::now();
    let mut acceptor = acceptor_with_stream(now);
    acceptor.accept(1).expect("not answered yet");
    acceptor.fin(1).expect("accepted");
    assert_eq!(acceptor.live_streams(), 1);
    assert_eq!(
        feed(&mut acceptor, now, &fin(1, 0)),
        Ok(vec!["finished 1".to_owned()])
    );
    assert_eq!(acceptor.live_streams(), 0);
}

#[test]
fn frames_for_streams_that_ended_are_dropped() {
    let now = Instant::now();
    let mut acceptor = acceptor_with_stream(now);
    acceptor.reset(1, ResetCode::Application).expect("live");
    let crossed = [
        data(1, 100_000),
        fin(1, 100_000),
        reset(1),
        credit(1, 5),
        open_frame(1, 1),
    ];
    assert_eq!(feed(&mut acceptor, now, &crossed.concat()), Ok(vec![]));
}

#[test]
fn a_stream_reset_within_a_frame_gets_nothing_more_of_it() {
    let now = Instant::now();
    let mut acceptor = acceptor_with_stream(now);
    let bytes = [data(1, 1000), fin(1, 1000)].concat();
    feed(&mut acceptor, now, &bytes[..500]).expect("in order");
    acceptor.reset(1, ResetCode::Denied).expect("live");
    assert_eq!(feed(&mut acceptor, now, &bytes[500..]), Ok(vec![]));
    let mut dialler = dialler(now);
    let stream = dialler
        .open(now, None, &export(), 0, false)
        .expect("there is room");
    let reject = message(
        stream,
        FrameType::Reject,
        &wire::Reject {
            code: 1,
            text: "no".into(),
        },
    );
    feed(&mut dialler, now, &reject[..9]).expect("in order");
    dialler.reset(stream, ResetCode::Application).expect("live");
    assert_eq!(feed(&mut dialler, now, &reject[9..]), Ok(vec![]));
}

#[test]
fn frames_for_streams_that_never_were_end_the_session() {
    let now = Instant::now();
    for bytes in [data(3, 1), reset(2), fin(5, 0), open_frame(2, 1)] {
        let mut acceptor = acceptor_with_stream(now);
        let stream = Header::decode(*bytes.first_chunk().expect("a header")).stream;
        assert_eq!(
            feed(&mut acceptor, now, &bytes),
            Err(Violation::StreamNotOpened(stream))
        );
    }
}

#[test]
fn an_answer_comes_once_and_from_the_right_side() {
    let now = Instant::now();
    let reject = wire::Reject {
        code: 1,
        text: String::new(),
    };
    let accept = |stream| frame(stream, FrameType::Accept, &[]);
    let reject = |stream| message(stream, FrameType::Reject, &reject);
    for kind in [FrameType::Accept, FrameType::Reject] {
        let answer = if kind == FrameType::Accept {
            accept(1)
        } else {
            reject(1)
        };
        let unexpected = Err(Violation::Unexpected { kind, stream: 1 });
        let mut acceptor = acceptor_with_stream(now);
        assert_eq!(feed(&mut acceptor, now, &answer), unexpected);
        let mut dialler = dialler(now);
        assert_eq!(dialler.open(now, None, &export(), 0, false), Ok(1));
        assert_eq!(
            feed(&mut dialler, now, &accept(1)),
            Ok(vec!["accepted 1".to_owned()])
        );
        assert_eq!(feed(&mut dialler, now, &answer), unexpected);
    }
    let mut acceptor = acceptor_with_stream(now);
    assert_eq!(acceptor.fin(1), Err(StreamError::State(1)));
    assert_eq!(acceptor.sendable(1), 0);
    acceptor.accept(1).expect("not answered yet");
    assert_eq!(
        acceptor.reject(1, RejectCode::Denied, ""),
        Err(StreamError::State(1))
    );
}

#[test]
fn the_accepting_side_sends_nothing_before_it_accepts() {
    let now = Instant::now();
    for (bytes, kind) in [(data(1, 1), FrameType::Data), (fin(1, 0), FrameType::Fin)] {
        let mut dialler = dialler(now);
        assert_eq!(dialler.open(now, None, &export(), 0, false), Ok(1));
        let unexpected = Violation::Unexpected { kind, stream: 1 };
        assert_eq!(feed(&mut dialler, now, &bytes), Err(unexpected));
    }
}

#[test]
fn smaller_credits_are_ignored_and_writable_is_told_once() {
    let now = Instant::now();
    let mut dialler = dialler(now);
    assert_eq!(dialler.open(now, None, &export(), 0, false), Ok(1));
    assert_eq!(dialler.sendable(1), EARLY_DATA);
    feed(&mut dialler, now, &frame(1, FrameType::Accept, &[])).expect("in order");
    assert_eq!(dialler.sendable(1), 64 * 1024);
    dialler.data(1, &vec![0; 64 * 1024]).expect("within credit");
    let none = StreamError::NoCredit {
        stream: 1,
        length: 1,
    };
    assert_eq!(dialler.data_header(1, 1), Err(none));
    assert_eq!(feed(&mut dialler, now, &credit(1, 100)), Ok(vec![]));
    let more = feed(
        &mut dialler,
        now,
        &[credit(1, 70_000), credit(1, 60_000)].concat(),
    );
    assert_eq!(more, Ok(vec!["writable 1".to_owned()]));
    assert_eq!(dialler.sendable(1), 70_000 - 64 * 1024);
}

#[test]
fn payload_written_by_the_caller_is_what_arrives() {
    let now = Instant::now();
    let (mut dialler, mut acceptor) = (dialler(now), acceptor(now));
    let stream = dialler
        .open(now, None, &export(), 0, false)
        .expect("there is room");
    let mut wire = drain(&mut dialler);
    wire.extend_from_slice(&dialler.data_header(stream, 5).expect("early data"));
    wire.extend_from_slice(b"hello");
    dialler.fin(stream).expect("live");
    wire.append(dialler.output());
    let events = feed(&mut acceptor, now, &wire).expect("in order");
    assert_eq!(events, ["opened 1 shop/checkout", "data 1 5", "finished 1"]);
}

#[test]
fn a_changed_identity_is_attested_by_the_client_side_only() {
    let now = Instant::now();
    let (mut dialler, mut acceptor) = (dialler(now), acceptor(now));
    let stream = dialler
        .open(now, Some(&workload(1)), &export(), 0, false)
        .expect("room");
    dialler.attest(stream, Some(&workload(2))).expect("live");
    dialler.attest(stream, None).expect("live");
    let mut seen = Vec::new();
    let wire = drain(&mut dialler);
    let took = acceptor.receive(now, &wire, &mut |event| match event {
        Event::Opened { workload, .. } | Event::Attested { workload, .. } => seen.push(workload),
        other => panic!("{other:?} was not sent"),
    });
    assert_eq!(took, Ok(()));
    assert_eq!(seen, [Some(workload(1)), Some(workload(2)), None]);
    assert_eq!(
        acceptor.attest(stream, None),
        Err(StreamError::State(stream))
    );
    let attest = message(stream, FrameType::Attest, &wire::Attest { workload: 0 });
    let unexpected = Violation::Unexpected {
        kind: FrameType::Attest,
        stream,
    };
    assert_eq!(feed(&mut dialler, now, &attest), Err(unexpected));
}

#[test]
fn a_session_going_away_rejects_new_streams_and_keeps_old_ones() {
    let now = Instant::now();
    let mut acceptor = acceptor_with_stream(now);
    acceptor.go_away(std::time::Duration::from_secs(5), "upgrade");
    let sent = drain(&mut acceptor);
    assert_eq!(kinds(&sent), [FrameType::GoAway]);
    let events = feed(
        &mut acceptor,
        now,
        &[open_frame(3, 1), data(3, 9), data(1, 9)].concat(),
    );
    assert_eq!(events, Ok(vec!["data 1 9".to_owned()]));
    assert_eq!(kinds(&drain(&mut acceptor)), [FrameType::Reject]);
    let mut dialler = dialler(now);
    assert_eq!(
        feed(&mut dialler, now, &sent),
        Ok(vec!["go-away upgrade".to_owned()])
    );
    assert_eq!(
        dialler.open(now, None, &export(), 0, false),
        Err(OpenError::GoingAway)
    );
}

#[test]
fn names_that_no_peer_would_take_are_refused_before_they_are_sent() {
    let now = Instant::now();
    let mut dialler = dialler(now);
    for name in ["", "a/b", "a b", &"x".repeat(254)] {
        let export = ObjectName::new("shop", name);
        assert_eq!(
            dialler.open(now, None, &export, 0, false),
            Err(OpenError::InvalidName)
        );
    }
    assert!(drain(&mut dialler).is_empty());
    assert_eq!(
        dialler.open(now, None, &export(), 5, false),
        Err(OpenError::Hops(5))
    );
}

#[test]
fn stream_ids_go_on_where_the_association_left_off() {
    let now = Instant::now();
    for (side, first, ids) in [
        (Side::Dialler, 0, [1, 3]),
        (Side::Acceptor, 0, [2, 4]),
        (Side::Acceptor, 101, [102, 104]),
    ] {
        let hello = Hello::default();
        let bounds = Bounds::default();
        let config = SessionConfig {
            side,
            hello,
            bounds,
            first_stream: first,
            seed: 1,
        };
        let mut session = Session::new(config, now);
        for id in ids {
            assert_eq!(session.open(now, None, &export(), 0, false), Ok(id));
        }
    }
    let hello = Hello::default();
    let side = Side::Dialler;
    let bounds = Bounds::default();
    let config = SessionConfig {
        side,
        hello,
        bounds,
        first_stream: u32::MAX,
        seed: 1,
    };
    let mut last = Session::new(config, now);
    assert_eq!(last.open(now, None, &export(), 0, false), Ok(u32::MAX));
    assert_eq!(
        last.open(now, None, &export(), 0, false),
        Err(OpenError::IdsExhausted)
    );
}
