//! Tests of the protocol as a whole: hand-made frames, two sessions on a pipe, arbitrary bytes.

mod arbitrary;
mod bounds;
mod liveness;
mod pipe;
mod rules;

use std::{sync::Arc, time::Instant};

use clusterlink_model::{Labels, ObjectName, WorkloadAttributes};
use prost::Message;

use crate::tunnel::{
    Bounds, Event, Hello, Limits, Session, SessionConfig, Side, Violation,
    frame::{FrameType, Header},
    message::wire,
};

/// A session of one side, with the smallest limits.
fn session(side: Side, now: Instant) -> Session {
    let hello = Hello {
        limits: Limits::MINIMUM,
        software: "test/1".to_owned(),
        ..Hello::default()
    };
    let seed = 7;
    Session::new(
        SessionConfig {
            side,
            hello,
            bounds: Bounds::default(),
            first_stream: 0,
            seed,
        },
        now,
    )
}

/// Everything that a session has to send.
fn drain(session: &mut Session) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let output = session.output();
        if output.is_empty() {
            return all;
        }
        all.append(output);
    }
}

/// A frame made by hand.
fn frame(stream: u32, kind: FrameType, payload: &[u8]) -> Vec<u8> {
    raw_frame(stream, kind as u8, payload)
}

fn raw_frame(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        stream,
        kind,
        length: payload.len() as u32,
    };
    [&header.encode()[..], payload].concat()
}

fn message(stream: u32, kind: FrameType, message: &impl Message) -> Vec<u8> {
    frame(stream, kind, &message.encode_to_vec())
}

fn define_export(id: u32) -> Vec<u8> {
    let export = ObjectName::new("shop", format!("export-{id}"));
    message(0, FrameType::Define, &wire::Define::export(id, &export))
}

fn open_frame(stream: u32, export: u32) -> Vec<u8> {
    let open = wire::Open {
        workload: 0,
        export,
        hops: 0,
        probe: false,
    };
    message(stream, FrameType::Open, &open)
}

/// Feeds bytes and gives the events as text, for comparison.
fn feed(session: &mut Session, now: Instant, bytes: &[u8]) -> Result<Vec<String>, Violation> {
    let mut events = Vec::new();
    session.receive(now, bytes, &mut |event| events.push(describe(&event)))?;
    Ok(events)
}

fn describe(event: &Event<'_>) -> String {
    match event {
        Event::Hello(_) => "hello".to_owned(),
        Event::Labels(labels) => format!("labels {labels:?}"),
        Event::Opened { stream, export, .. } => format!("opened {stream} {export}"),
        Event::Attested {
            stream,
            workload_id,
            ..
        } => format!("attested {stream} {workload_id}"),
        Event::Accepted { stream } => format!("accepted {stream}"),
        Event::Rejected { stream, code, text } => {
            format!("rejected {stream} {} {text}", code.as_str())
        }
        Event::Data { stream, bytes } => format!("data {stream} {}", bytes.len()),
        Event::Finished { stream } => format!("finished {stream}"),
        Event::Reset { stream, code } => format!("reset {stream} {}", code.as_str()),
        Event::Writable { stream } => format!("writable {stream}"),
        Event::GoAway { reason, .. } => format!("go-away {reason}"),
        Event::Pong { .. } => "pong".to_owned(),
    }
}

/// An acceptor that has heard its dialler's HELLO and has sent its own.
fn acceptor(now: Instant) -> Session {
    let mut acceptor = session(Side::Acceptor, now);
    drain(&mut acceptor);
    let hello = drain(&mut session(Side::Dialler, now));
    feed(&mut acceptor, now, &hello).expect("a HELLO and a PING are in order");
    drain(&mut acceptor);
    acceptor
}

/// The same with stream 1 open, not answered yet.
fn acceptor_with_stream(now: Instant) -> Session {
    let mut acceptor = acceptor(now);
    let opening = [define_export(1), open_frame(1, 1)].concat();
    let events = feed(&mut acceptor, now, &opening).expect("an OPEN is in order");
    assert_eq!(events, ["opened 1 shop/export-1"]);
    acceptor
}

/// A dialler that has heard its acceptor's HELLO.
fn dialler(now: Instant) -> Session {
    let mut dialler = session(Side::Dialler, now);
    drain(&mut dialler);
    let hello = drain(&mut session(Side::Acceptor, now));
    feed(&mut dialler, now, &hello).expect("a HELLO and a PING are in order");
    drain(&mut dialler);
    dialler
}

fn export() -> ObjectName {
    ObjectName::new("shop", "checkout")
}

fn workload(number: usize) -> Arc<WorkloadAttributes> {
    Arc::new(WorkloadAttributes {
        namespace: "web".into(),
        service_account: "default".into(),
        labels: Labels::from([("app".to_owned(), format!("front-{number}"))]),
    })
}

/// The types of the frames in a piece of output.
fn kinds(mut bytes: &[u8]) -> Vec<FrameType> {
    let mut kinds = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let header = Header::decode(*header);
        kinds.push(FrameType::from_wire(header.kind).expect("a session sends known frames"));
        bytes = &rest[header.length as usize..];
    }
    kinds
}
