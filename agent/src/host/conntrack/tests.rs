use super::*;

/// What a kernel answered of masqueraded connections, of ends that it has no entry for, and to somebody
/// who may not ask.
const ENTRY_V4: &[u8] = include_bytes!("../../../../fuzz/corpus/netlink/entry-v4.seed");
const ENTRY_V6: &[u8] = include_bytes!("../../../../fuzz/corpus/netlink/entry-v6.seed");
const NO_ENTRY: &[u8] = include_bytes!("../../../../fuzz/corpus/netlink/no-entry-v4.seed");
const NOT_PERMITTED: &[u8] =
    include_bytes!("../../../../fuzz/corpus/netlink/not-permitted-v4.seed");

fn ends(source: &str, destination: &str) -> Ends {
    Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// Answers, the replies that were asked for, and what the client sees.
fn entries() -> [(&'static [u8], Ends, Ends); 2] {
    [
        (
            ENTRY_V4,
            ends("10.77.0.1:30001", "169.254.77.1:55912"),
            ends("10.77.0.1:45252", "10.96.0.9:80"),
        ),
        (
            ENTRY_V6,
            ends("[fd00:77::1]:30001", "[fd00:77::1]:1210"),
            ends("[fd00:77::1]:42972", "[fd00:96::9]:80"),
        ),
    ]
}

#[test]
fn a_question_is_what_the_kernel_understands() {
    let v4 = "48000000010101000000000000000000020000003400028014000180080001000a4d0001\
              08000200a9fe4d011c0002800500010006000000060002007531000006000300da680000";
    let v6 = "600000000101010000000000000000000a0000004c0002802c00018014000300fd000077000000\
              00000000000000000114000400fd0000770000000000000000000000011c000280050001000600\
              000006000200753100000600030004ba0000";
    for ((_, replies, _), captured) in entries().into_iter().zip([v4, v6]) {
        let bytes: String = (request(replies).iter())
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(bytes, captured, "{replies:?}");
    }
}

#[test]
fn an_entry_says_what_its_client_sees() {
    for (answer, replies, original) in entries() {
        assert_eq!(parse(answer, replies).unwrap(), Some(original));
    }
}

#[test]
fn an_entry_of_other_ends_says_nothing() {
    for (answer, replies, original) in entries() {
        let port_off = |at: SocketAddr| SocketAddr::new(at.ip(), at.port() ^ 1);
        for other in [
            // The kernel finds it by this, too: it is a connection in the other direction.
            original,
            Ends {
                source: replies.destination,
                destination: replies.source,
            },
            Ends {
                source: port_off(replies.source),
                ..replies
            },
            Ends {
                destination: port_off(replies.destination),
                ..replies
            },
            Ends {
                destination: SocketAddr::new(
                    "192.0.2.77".parse().unwrap(),
                    replies.destination.port(),
                ),
                ..replies
            },
        ] {
            assert_eq!(parse(answer, other).unwrap(), None, "{other:?}");
        }
    }
}

#[test]
fn no_entry_is_not_an_error_and_what_the_kernel_refuses_is() {
    let (_, replies, _) = entries()[0];
    assert_eq!(parse(NO_ENTRY, replies).unwrap(), None);
    let error = parse(NOT_PERMITTED, replies).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn an_entry_of_another_protocol_is_an_error() {
    let (answer, replies, _) = entries()[0];
    let mut answer = answer.to_vec();
    let tcp = [5, 0, CTA_PROTO_NUM as u8, 0, libc::IPPROTO_TCP as u8];
    let places = (0..answer.len()).filter(|&at| answer[at..].starts_with(&tcp));
    let places: Vec<_> = places.collect();
    assert_eq!(places.len(), 2, "one for each direction");
    for at in places {
        answer[at + 4] = libc::IPPROTO_UDP as u8;
        let error = parse(&answer, replies).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

#[test]
fn answers_that_are_cut_short_are_errors() {
    for (answer, replies, original) in entries() {
        for length in 0..answer.len() {
            assert!(parse(&answer[..length], replies).is_err(), "{length}");
            // A length that claims less than there is leaves what was whole before its end.
            let mut lying = answer.to_vec();
            lying[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
            if let Ok(found) = parse(&lying, replies) {
                assert_eq!(found, Some(original), "{length}");
                assert!(length >= HEADER + FAMILY + 2 * 0x34, "{length}");
            }
        }
    }
}

#[test]
fn a_connection_that_nobody_translates_is_what_it_shows_or_has_no_entry() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, source) = listener.accept().unwrap();
    let destination = accepted.local_addr().unwrap();
    match original_of(source, destination) {
        Ok(Some(original)) => assert_eq!(
            original,
            Ends {
                source: client.local_addr().unwrap(),
                destination
            }
        ),
        Ok(None) => {}
        // Without privileges, or on a kernel without it.
        Err(error) => assert!(
            [libc::EPERM, libc::EINVAL, libc::EPROTONOSUPPORT]
                .map(Some)
                .contains(&error.raw_os_error()),
            "{error}"
        ),
    }
}
