//! Signs of life: pings, suspicion, keepalive.

use std::time::Duration;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A dialler whose first ping was answered after `rtt`, and the time of the answer.
fn measured(rtt: Duration) -> (Session, Instant) {
    let now = Instant::now();
    let (mut dialler, mut acceptor) = (session(Side::Dialler, now), session(Side::Acceptor, now));
    feed(&mut acceptor, now, &drain(&mut dialler)).expect("in order");
    let answer = drain(&mut acceptor);
    let events = feed(&mut dialler, now + rtt, &answer).expect("in order");
    assert_eq!(events, ["hello", "pong"]);
    drain(&mut dialler);
    assert_eq!(dialler.srtt(), Some(rtt));
    (dialler, now + rtt)
}

/// Runs the timer until the session is suspect, and gives the time of that.
fn until_suspect(session: &mut Session, deadline: Instant) -> Option<Instant> {
    while session.next_timeout() <= deadline {
        let now = session.next_timeout();
        if session.handle_timeout(now) {
            assert!(session.is_suspect());
            return Some(now);
        }
    }
    None
}

#[test]
fn an_unanswered_ping_makes_the_session_suspect_and_any_byte_clears_it() {
    for (rtt, patience) in [
        (MILLISECOND, 250 * MILLISECOND),
        (100 * MILLISECOND, 400 * MILLISECOND),
    ] {
        let (mut dialler, start) = measured(rtt);
        let asked = start + 5 * MILLISECOND;
        dialler.ping(asked);
        let suspect = until_suspect(&mut dialler, asked + Duration::from_secs(20));
        assert_eq!(suspect, Some(asked + patience));
        feed(&mut dialler, asked + patience, &[0]).expect("a part of a frame");
        assert!(!dialler.is_suspect());
    }
}

#[test]
fn a_silent_peer_is_probed_at_once_when_a_stream_is_opened() {
    let (mut dialler, start) = measured(MILLISECOND);
    let opened = start + Duration::from_secs(3);
    dialler
        .open(opened, None, &export(), 0, false)
        .expect("room");
    assert!(kinds(&drain(&mut dialler)).contains(&FrameType::Ping));
    let suspect = until_suspect(&mut dialler, opened + Duration::from_secs(1));
    assert_eq!(suspect, Some(opened + 250 * MILLISECOND));
}

#[test]
fn a_slow_answer_is_no_suspicion_while_the_peer_lives() {
    let (mut dialler, start) = measured(MILLISECOND);
    let mut acceptor = acceptor(start);
    dialler
        .open(start, None, &export(), 0, false)
        .expect("room");
    let mut pings = 0;
    while dialler.next_timeout() < start + Duration::from_secs(2) {
        let now = dialler.next_timeout();
        assert!(!dialler.handle_timeout(now));
        pings += usize::from(dialler.has_output());
        feed(&mut acceptor, now, &drain(&mut dialler)).expect("in order");
        let answer = drain(&mut acceptor);
        feed(&mut dialler, now + MILLISECOND, &answer).expect("in order");
    }
    assert!(pings > 10, "{pings} probes in two seconds");
    // The peer dies: two questions' worth of silence tell.
    let died = dialler.last_heard();
    let suspect = until_suspect(&mut dialler, died + Duration::from_secs(1));
    assert_eq!(suspect, Some(died + 300 * MILLISECOND));
}

#[test]
fn an_idle_session_is_pinged_every_25_seconds_more_or_less() {
    let (mut dialler, start) = measured(MILLISECOND);
    let mut acceptor = acceptor(start);
    let mut last = start;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let now = dialler.next_timeout();
        waits.push(now - last);
        last = now;
        assert!(!dialler.handle_timeout(now));
        assert_eq!(kinds(dialler.output()), [FrameType::Ping]);
        feed(&mut acceptor, now, &drain(&mut dialler)).expect("in order");
        let answer = drain(&mut acceptor);
        assert_eq!(
            feed(&mut dialler, now, &answer),
            Ok(vec!["pong".to_owned()])
        );
    }
    let (least, most) = (waits.iter().min(), waits.iter().max());
    assert!(least >= Some(&Duration::from_secs(20 - 1)), "{waits:?}");
    assert!(most <= Some(&Duration::from_secs(30)), "{waits:?}");
    assert!(least < most, "the interval has jitter");
}

#[test]
fn a_pong_for_another_question_measures_nothing() {
    let (mut dialler, start) = measured(MILLISECOND);
    dialler.ping(start);
    let forged = frame(0, FrameType::Pong, &[0; 8]);
    assert_eq!(feed(&mut dialler, start, &forged), Ok(vec![]));
    assert_eq!(dialler.srtt(), Some(MILLISECOND));
}
