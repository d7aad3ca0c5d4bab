use super::*;

fn ports() -> Ports {
    Ports::new(PortRules {
        allocation: 20_000..=20_001,
        node_ports: 30_000..=32_767,
        agent_ports: [(4443, "other peers".to_owned())].into(),
    })
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("ns", name)
}

fn port(port: u16) -> NonZeroU16 {
    NonZeroU16::new(port).unwrap()
}

fn wish(created: u64, requested: u16, stored: u16) -> PortWish {
    PortWish {
        created,
        requested: NonZeroU16::new(requested),
        stored: NonZeroU16::new(stored),
    }
}

fn decide(ports: &mut Ports, import: &str, wish: PortWish) -> TargetPort {
    ports.decide(&name(import), wish, &BTreeSet::from([25_000]))
}

fn woken(ports: &mut Ports) -> Vec<String> {
    let woken = ports.take_woken();
    woken.iter().map(|name| name.name.to_string()).collect()
}

#[test]
fn a_port_counts_once_the_object_says_it() {
    let mut ports = ports();
    let asked = decide(&mut ports, "a", wish(1, 9000, 0));
    assert_eq!(asked, TargetPort::Proposed(port(9000)));
    let stored = decide(&mut ports, "a", wish(1, 9000, 9000));
    assert_eq!(stored, TargetPort::Stored(port(9000)));
    let TargetPort::Proposed(chosen) = decide(&mut ports, "b", wish(1, 0, 0)) else {
        panic!("one is chosen");
    };
    assert!((20_000..=20_001).contains(&chosen.get()));
    let stored = decide(&mut ports, "b", wish(1, 0, chosen.get()));
    assert_eq!(stored, TargetPort::Stored(chosen));
}

#[test]
fn ports_that_no_import_may_have_are_refused_with_the_reason() {
    for (requested, wanted) in [
        (80, reasons::TARGET_PORT_RESERVED),
        (31_000, reasons::TARGET_PORT_RESERVED),
        (4443, reasons::TARGET_PORT_RESERVED),
        (25_000, reasons::TARGET_PORT_IN_USE),
    ] {
        let TargetPort::Refused(refused) = decide(&mut ports(), "a", wish(1, requested, 0)) else {
            panic!("{requested} is given");
        };
        assert_eq!(reason(&refused), wanted, "{requested}");
    }
}

#[test]
fn a_conflict_names_the_holder_and_heals_when_it_goes() {
    let mut ports = ports();
    decide(&mut ports, "a", wish(2, 9000, 9000));
    // Even an older Import cannot take what another one holds.
    let TargetPort::Refused(refused) = decide(&mut ports, "b", wish(1, 9000, 0)) else {
        panic!("two hold one port");
    };
    let said = finding(&name("b"), Some(port(9000)), Err(&refused));
    assert_eq!(said.reason, reasons::TARGET_PORT_CONFLICT);
    assert!(
        said.message.contains("held by import ns/a"),
        "{}",
        said.message
    );
    ports.release(&name("a"));
    assert_eq!(woken(&mut ports), ["b"]);
    let healed = decide(&mut ports, "b", wish(1, 9000, 0));
    assert_eq!(healed, TargetPort::Proposed(port(9000)));
}

#[test]
fn of_two_that_have_stored_one_port_the_older_keeps_it_in_whatever_order_they_are_read() {
    for order in [["old", "young"], ["young", "old"]] {
        let mut ports = ports();
        let created = |import: &str| if import == "old" { 1 } else { 2 };
        for import in order {
            decide(&mut ports, import, wish(created(import), 0, 9000));
        }
        for import in woken(&mut ports) {
            decide(&mut ports, &import, wish(created(&import), 0, 9000));
        }
        let old = decide(&mut ports, "old", wish(1, 0, 9000));
        assert_eq!(old, TargetPort::Stored(port(9000)), "{order:?}");
        let young = decide(&mut ports, "young", wish(2, 0, 9000));
        assert!(
            matches!(young, TargetPort::Proposed(other) if other != port(9000)),
            "{order:?}"
        );
    }
}

#[test]
fn what_another_replica_has_stored_replaces_what_was_only_proposed_here() {
    let mut ports = ports();
    decide(&mut ports, "a", wish(1, 9000, 0));
    let other = decide(&mut ports, "b", wish(2, 0, 9000));
    assert_eq!(other, TargetPort::Stored(port(9000)));
    assert_eq!(woken(&mut ports), ["a"]);
    let first = decide(&mut ports, "a", wish(1, 9000, 0));
    assert!(matches!(
        first,
        TargetPort::Refused(PortRefused::Held { .. })
    ));
}

#[test]
fn who_found_no_port_is_woken_by_a_listener_or_a_holder_that_goes() {
    let mut ports = ports();
    decide(&mut ports, "busy", wish(1, 25_000, 0));
    ports.listeners_changed();
    assert_eq!(woken(&mut ports), ["busy"]);
    for (import, stored) in [("a", 20_000), ("b", 20_001)] {
        decide(&mut ports, import, wish(1, 0, stored));
    }
    let starved = decide(&mut ports, "c", wish(1, 0, 0));
    assert!(matches!(
        starved,
        TargetPort::Refused(PortRefused::Exhausted { .. })
    ));
    ports.release(&name("a"));
    assert_eq!(woken(&mut ports), ["c"]);
    let chosen = decide(&mut ports, "c", wish(1, 0, 0));
    assert_eq!(chosen, TargetPort::Proposed(port(20_000)));
}

#[test]
fn a_new_wish_gives_the_stored_port_up() {
    let mut ports = ports();
    decide(&mut ports, "a", wish(1, 9000, 9000));
    let moved = decide(&mut ports, "a", wish(1, 9001, 9000));
    assert_eq!(moved, TargetPort::Proposed(port(9001)));
    let other = decide(&mut ports, "b", wish(2, 9000, 0));
    assert_eq!(other, TargetPort::Proposed(port(9000)));
}

#[test]
fn a_port_that_an_agent_says_is_its_own_is_given_up_and_comes_back_with_it() {
    let mut ports = ports();
    decide(&mut ports, "a", wish(1, 9000, 9000));
    decide(&mut ports, "b", wish(1, 0, 20_000));
    let own = |port| BTreeMap::from([(port, "other peers (--listen)".to_owned())]);
    ports.agents_listen(own(9000));
    assert_eq!(woken(&mut ports), ["a"]);
    let TargetPort::Refused(refused) = decide(&mut ports, "a", wish(1, 9000, 9000)) else {
        panic!("the agent listens there");
    };
    let said = finding(&name("a"), Some(port(9000)), Err(&refused));
    assert_eq!(said.reason, reasons::TARGET_PORT_RESERVED);
    let wanted = "target port 9000 is the agent's own, for other peers (--listen)";
    assert!(said.message.contains(wanted), "{}", said.message);
    let default = decide(&mut ports, "c", wish(1, 4443, 0));
    assert!(
        matches!(default, TargetPort::Refused(PortRefused::Agent { .. })),
        "what agents have by default is theirs all the same"
    );
    ports.agents_listen(own(20_000));
    assert_eq!(woken(&mut ports), ["a", "b", "c"]);
    let healed = decide(&mut ports, "a", wish(1, 9000, 0));
    assert_eq!(healed, TargetPort::Proposed(port(9000)));
    let moved = decide(&mut ports, "b", wish(1, 0, 20_000));
    assert_eq!(moved, TargetPort::Proposed(port(20_001)));
}

#[test]
fn who_still_waits_for_a_port_is_woken_when_its_holder_changes() {
    let mut ports = ports();
    decide(&mut ports, "a", wish(1, 9000, 9000));
    for later in ["b", "c"] {
        decide(&mut ports, later, wish(2, 9000, 0));
    }
    ports.take_woken();
    ports.release(&name("a"));
    assert_eq!(woken(&mut ports), ["b", "c"]);
    let refused = decide(&mut ports, "c", wish(2, 9000, 0));
    let holder = name("b");
    assert_eq!(
        refused,
        TargetPort::Refused(PortRefused::Held { port: 9000, holder })
    );
    // An object of which it is read that it has held the port for long.
    decide(&mut ports, "old", wish(0, 9000, 9000));
    assert_eq!(woken(&mut ports), ["b", "c"]);
}
