//! Bytes through two channels in memory.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::AlertDescription;

use super::{
    pki::{Ca, credentials},
    sessions::{channels, fresh_channels, name},
};
use crate::tls::{Channel, ChannelError};

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// Feeds `wire` to `to` in pieces of the given sizes, over and over; gives what came out.
fn deliver(to: &mut Channel, wire: &[u8], pieces: &[usize]) -> Vec<u8> {
    let (mut plain, mut out, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    let mut wire = wire;
    for size in pieces.iter().cycle() {
        if wire.is_empty() {
            break;
        }
        let (now, later) = wire.split_at((*size).min(wire.len()));
        wire = later;
        buffer.extend_from_slice(now);
        let step = to.decrypt(&mut buffer, &mut plain, &mut out).unwrap();
        buffer.drain(..step.consumed);
    }
    assert!(buffer.is_empty(), "whole records are consumed");
    plain
}

#[test]
fn megabytes_pass_both_ways_unchanged() {
    let (mut a, mut b, tickets) = fresh_channels();
    deliver(&mut a, &tickets, &[usize::MAX]);
    let data = pattern(5 * 1024 * 1024 + 17);
    let mut wire = Vec::new();
    a.encrypt(&data, &mut wire).unwrap();
    assert!(wire.len() <= Channel::sealed_len(data.len()));
    assert!(deliver(&mut b, &wire, &[200_000, 1, 70_000]) == data);
    wire.clear();
    b.encrypt(&data, &mut wire).unwrap();
    assert!(deliver(&mut a, &wire, &[256 * 1024]) == data);
}

#[test]
fn encrypting_appends_and_an_empty_plaintext_makes_no_record() {
    let (mut a, _, _) = fresh_channels();
    let mut wire = b"before".to_vec();
    a.encrypt(b"", &mut wire).unwrap();
    assert_eq!(wire, b"before");
    a.encrypt(b"x", &mut wire).unwrap();
    assert_eq!(&wire[..6], b"before");
    assert_eq!(wire.len(), 6 + 5 + 1 + 1 + 16);
}

#[test]
fn too_little_room_is_told_and_costs_nothing() {
    let (mut a, mut b, _) = fresh_channels();
    let data = pattern(40_000);
    let mut small = vec![0; 1000];
    let required = match a.encrypt_into(&data, &mut small) {
        Err(ChannelError::NoRoom { required }) => required,
        other => panic!("{other:?}"),
    };
    assert!(required <= Channel::sealed_len(data.len()));
    let mut room = vec![0; required];
    let written = a.encrypt_into(&data, &mut room).unwrap();
    assert!(deliver(&mut b, &room[..written], &[usize::MAX]) == data);
}

#[test]
fn the_end_is_told_once_and_nothing_after_it_counts() {
    let (mut a, mut b, tickets) = fresh_channels();
    deliver(&mut a, &tickets, &[usize::MAX]);
    let (mut wire, mut plain, mut out) = (Vec::new(), Vec::new(), Vec::new());
    a.encrypt(b"last words", &mut wire).unwrap();
    a.close_notify(&mut wire);
    let length = wire.len();
    a.close_notify(&mut wire);
    assert_eq!(wire.len(), length, "said once");
    assert_eq!(a.encrypt(b"more", &mut wire), Err(ChannelError::Closed));
    assert_eq!(wire.len(), length);
    let step = b.decrypt(&mut wire, &mut plain, &mut out).unwrap();
    assert!(step.closed);
    assert_eq!(step.consumed, length);
    assert_eq!(plain, b"last words");
    let step = b.decrypt(&mut [1, 2, 3], &mut plain, &mut out).unwrap();
    assert!(step.closed && plain == b"last words");
    // Who has said the end looks at nothing more, be it good or garbage.
    let garbage = &mut [
        23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(
        a.decrypt(garbage, &mut plain, &mut out),
        Err(ChannelError::Closed)
    );
    assert!(plain == b"last words" && out.is_empty());
}

#[test]
fn a_truncated_stream_is_no_end() {
    let (mut a, mut b, _) = fresh_channels();
    let mut wire = Vec::new();
    a.encrypt(&pattern(20_000), &mut wire).unwrap();
    wire.truncate(wire.len() - 1);
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let step = b.decrypt(&mut wire, &mut plain, &mut out).unwrap();
    assert!(!step.closed);
    assert_eq!(plain.len(), 16 * 1024, "the whole record came through");
    assert_eq!(step.consumed, 16 * 1024 + 22);
}

#[test]
fn a_changed_record_is_refused_and_the_sender_told() {
    let (mut a, mut b, tickets) = fresh_channels();
    deliver(&mut a, &tickets, &[usize::MAX]);
    let (mut wire, mut plain, mut out) = (Vec::new(), Vec::new(), Vec::new());
    a.encrypt(b"untouched", &mut wire).unwrap();
    let first = wire.len();
    a.encrypt(b"tampered", &mut wire).unwrap();
    wire[first + 7] ^= 1;
    let error = b.decrypt(&mut wire, &mut plain, &mut out).unwrap_err();
    assert_eq!(error, ChannelError::Tls(rustls::Error::DecryptError));
    assert_eq!(plain, b"untouched");
    let mut answer = Vec::new();
    let heard = a.decrypt(&mut out, &mut plain, &mut answer).unwrap_err();
    assert_eq!(heard, ChannelError::Alert(AlertDescription::BadRecordMac));
    assert!(answer.is_empty());
    assert_eq!(b.encrypt(b"x", &mut out), Err(ChannelError::Closed));
    assert_eq!(
        b.decrypt(&mut [], &mut plain, &mut out),
        Err(ChannelError::Closed)
    );
}

#[test]
fn keys_are_replaced_in_the_middle_of_a_stream() {
    let (mut a, mut b, tickets) = fresh_channels();
    deliver(&mut a, &tickets, &[usize::MAX]);
    let (mut to_b, mut to_a, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..5 {
        let data = pattern(30_000 + round);
        a.update_keys(&mut to_b).unwrap();
        a.encrypt(&data, &mut to_b).unwrap();
        plain.clear();
        let step = b.decrypt(&mut to_b, &mut plain, &mut to_a).unwrap();
        to_b.drain(..step.consumed);
        assert!(plain == data, "round {round}");
        b.encrypt(&data, &mut to_a).unwrap();
        plain.clear();
        let step = a.decrypt(&mut to_a, &mut plain, &mut to_b).unwrap();
        to_a.drain(..step.consumed);
        assert!(plain == data, "round {round}");
    }
}

/// A dialler whose acceptor cuts everything it says, its tickets too, into tiny records.
fn channels_in_tiny_records() -> (Channel, Channel, Vec<u8>) {
    let ca = Ca::new("ca");
    let (a, b) = (
        credentials(&ca.leaf("a"), &ca.pem),
        credentials(&ca.leaf("b"), &ca.pem),
    );
    let mut server = (*b.server_config()).clone();
    server.max_fragment_size = Some(64);
    channels(
        Channel::client(a.client_config(), &name("b")).unwrap(),
        Channel::server(Arc::new(server)).unwrap(),
    )
}

#[test]
fn handshake_messages_in_pieces_do_not_disturb_what_is_sent_between_them() {
    let (mut a, mut b, tickets) = channels_in_tiny_records();
    assert!(tickets.len() > 1000, "the tickets fill many records");
    let (mut plain, mut out, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for byte in tickets {
        buffer.push(byte);
        let step = a.decrypt(&mut buffer, &mut plain, &mut out).unwrap();
        buffer.drain(..step.consumed);
        if step.consumed > 0 {
            let mut wire = Vec::new();
            a.encrypt(&[byte], &mut wire).unwrap();
            sent.push(byte);
            received.extend(deliver(&mut b, &wire, &[3]));
        }
    }
    assert_eq!(received, sent);
    assert!(sent.len() > 10 && plain.is_empty() && out.is_empty());
    let mut wire = Vec::new();
    b.encrypt(b"after the tickets", &mut wire).unwrap();
    assert_eq!(deliver(&mut a, &wire, &[1]), b"after the tickets");
}

#[test]
fn a_broken_record_in_the_middle_of_a_handshake_message_is_an_error_with_an_alert() {
    let (mut a, mut b, mut tickets) = channels_in_tiny_records();
    let record = 5 + usize::from(tickets[3]) * 256 + usize::from(tickets[4]);
    tickets[record * 2 + 9] ^= 1;
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    // The first two records are fine and wait for the rest of the message.
    let step = a
        .decrypt(&mut tickets[..record * 2], &mut plain, &mut out)
        .unwrap();
    assert_eq!(step.consumed, record * 2);
    assert!(
        a.decrypt(&mut tickets[record * 2..], &mut plain, &mut out)
            .is_err()
    );
    let heard = b
        .decrypt(&mut out, &mut plain, &mut Vec::new())
        .unwrap_err();
    assert_eq!(heard, ChannelError::Alert(AlertDescription::BadRecordMac));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_cutting_of_the_stream_gives_the_same_bytes(
        messages in prop::collection::vec((any::<bool>(), 0usize..40_000), 1..12),
        pieces in prop::collection::vec(1usize..30_000, 1..8),
    ) {
        let (mut a, mut b, tickets) = fresh_channels();
        deliver(&mut a, &tickets, &pieces);
        for (from_a, length) in messages {
            let (from, to) = if from_a { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let data = pattern(length);
            let mut wire = Vec::new();
            from.encrypt(&data, &mut wire).unwrap();
            prop_assert!(deliver(to, &wire, &pieces) == data);
        }
    }

    #[test]
    fn arbitrary_bytes_after_the_handshake_fail_orderly(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        header in prop::option::of((20u8..25, 0u16..300)),
        cut in 1usize..50,
    ) {
        let (mut a, _b, tickets) = channels_in_tiny_records();
        let mut wire = tickets[..cut * tickets.len() / 50].to_vec();
        if let Some((kind, length)) = header {
            let [high, low] = length.to_be_bytes();
            wire.extend([kind, 3, 3, high, low]);
        }
        wire.extend(bytes);
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        for piece in wire.chunks_mut(cut * 7) {
            let step = a.decrypt(piece, &mut plain, &mut out);
            let _ = a.encrypt(b"x", &mut out);
            if step.is_err() {
                break;
            }
        }
        a.close_notify(&mut out);
        prop_assert!(plain.is_empty(), "nothing was ever sent");
    }
}
