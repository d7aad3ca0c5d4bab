use std::collections::BTreeSet;

use proptest::{collection::vec, option, prelude::*};

use super::*;

fn own(ports: &[u16]) -> BTreeMap<u16, String> {
    let name = |port: &u16| (*port, "other peers".to_owned());
    ports.iter().map(name).collect()
}

fn rules() -> PortRules {
    PortRules {
        allocation: 20000..=20003,
        node_ports: PortRules::DEFAULT_NODE_PORTS,
        agent_ports: own(&[4443, 20001]),
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn port(port: u16) -> NonZeroU16 {
    NonZeroU16::new(port).unwrap()
}

fn request(import: &str, created: u64, requested: u16) -> PortClaim {
    PortClaim {
        import: name(import),
        created,
        requested: NonZeroU16::new(requested),
    }
}

/// Claims while nothing listens on any node and nobody is promoted.
fn claim(leases: &mut PortLeases, claim: &PortClaim) -> Result<u16, PortRefused> {
    let mut promoted = Vec::new();
    let result = leases
        .claim(claim, 0, |_| false, &mut promoted)
        .map(NonZeroU16::get);
    assert_eq!(promoted, []);
    result
}

#[test]
fn an_explicit_port_is_honoured_or_refused_with_the_reason() {
    for (requested, expected) in [
        (1024, None),
        (8080, None),
        (29999, None),
        (32768, None),
        (65535, None),
        (
            1,
            Some("target port 1 is below 1024; choose a higher one, or 0 to have one chosen"),
        ),
        (1023, Some("target port 1023 is below 1024")),
        (
            30000,
            Some("target port 30000 is in the NodePort range 30000-32767"),
        ),
        (
            32767,
            Some("target port 32767 is in the NodePort range 30000-32767"),
        ),
        (
            4443,
            Some("target port 4443 is the agent's own, for other peers"),
        ),
        (9100, Some("target port 9100 has a listener on a node")),
    ] {
        let mut leases = PortLeases::new(rules());
        let request = request("a", 0, requested);
        let result = leases.claim(&request, 0, |port| port == 9100, &mut Vec::new());
        match expected {
            None => assert_eq!(result, Ok(port(requested))),
            Some(text) => {
                let error = result.unwrap_err().to_string();
                assert!(error.starts_with(text), "{error}");
                assert_eq!(leases.port(&name("a")), None);
            }
        }
    }
}

#[test]
fn a_held_port_is_refused_naming_the_holder_and_goes_to_the_loser_when_it_is_freed() {
    let mut leases = PortLeases::new(rules());
    assert_eq!(claim(&mut leases, &request("holder", 5, 8080)), Ok(8080));
    let refused = PortRefused::Held {
        port: 8080,
        holder: name("holder"),
    };
    let text = refused.to_string();
    assert!(
        text.contains("held by import shop/holder; delete"),
        "{text}"
    );
    let held = Err(refused);
    assert_eq!(claim(&mut leases, &request("younger", 9, 8080)), held);
    assert_eq!(claim(&mut leases, &request("older", 7, 8080)), held);
    assert_eq!(
        claim(&mut leases, &request("oldest", 1, 8080)),
        held,
        "who holds it keeps it"
    );
    assert_eq!(
        leases.release(&name("oldest")),
        None,
        "a waiting one may go"
    );
    let lease = PortLease {
        import: name("older"),
        created: 7,
        port: port(8080),
    };
    assert_eq!(leases.release(&name("holder")), Some(lease));
    assert_eq!(leases.holder(port(8080)), Some(&name("older")));
    assert_eq!(
        leases.retain(|import| *import == name("younger"))[0].import,
        name("younger")
    );
    assert_eq!(leases.release(&name("younger")), None);
    assert_eq!(leases.state(), []);
}

#[test]
fn asking_for_another_port_frees_the_one_before() {
    let mut leases = PortLeases::new(rules());
    claim(&mut leases, &request("a", 0, 8080)).unwrap();
    claim(&mut leases, &request("b", 1, 8080)).unwrap_err();
    let mut promoted = Vec::new();
    let moved = leases.claim(&request("a", 0, 9090), 0, |_| false, &mut promoted);
    assert_eq!(moved, Ok(port(9090)));
    assert_eq!(
        promoted,
        [PortLease {
            import: name("b"),
            created: 1,
            port: port(8080)
        }]
    );
    assert_eq!(leases.port(&name("b")), Some(port(8080)));
    claim(&mut leases, &request("c", 2, 9090)).unwrap_err();
    assert_eq!(
        claim(&mut leases, &request("c", 2, 7070)),
        Ok(7070),
        "and no longer waits"
    );
    assert_eq!(leases.release(&name("a")), None);
}

#[test]
fn a_port_is_chosen_from_the_range_where_randomness_says() {
    let mut leases = PortLeases::new(rules());
    let mut chosen = |import: &str, random| {
        leases.claim(
            &request(import, 0, 0),
            random,
            |port| port == 20003,
            &mut Vec::new(),
        )
    };
    assert_eq!(chosen("a", 2), Ok(port(20002)));
    assert_eq!(chosen("a", 0), Ok(port(20002)), "it is kept");
    assert_eq!(
        chosen("b", u64::MAX),
        Ok(port(20000)),
        "20003 has a listener"
    );
    let exhausted = Err(PortRefused::Exhausted {
        range: 20000..=20003,
    });
    assert_eq!(chosen("c", 1), exhausted, "20001 is the agent's");
    leases.release(&name("a"));
    assert_eq!(claim(&mut leases, &request("c", 0, 0)), Ok(20002));
    assert_eq!(
        claim(&mut leases, &request("d", 0, 0)),
        Ok(20003),
        "its listener is gone"
    );
}

#[test]
fn odd_ranges_neither_panic_nor_give_port_zero() {
    for (allocation, expected) in [
        (0..=u16::MAX, Some(1024)),
        (65535..=65535, Some(65535)),
        (RangeInclusive::new(5, 4), None),
        (0..=0, None),
        (30000..=32767, None),
    ] {
        let mut leases = PortLeases::new(PortRules {
            allocation,
            ..rules()
        });
        assert_eq!(claim(&mut leases, &request("a", 0, 0)).ok(), expected);
    }
}

#[test]
fn a_chosen_port_stays_over_restarts_and_when_the_request_is_withdrawn() {
    let mut leases = PortLeases::new(rules());
    claim(&mut leases, &request("a", 0, 8080)).unwrap();
    claim(&mut leases, &request("b", 0, 0)).unwrap();
    let text = serde_json::to_string(&leases.state()).unwrap();
    let mut leases = PortLeases::restore(rules(), serde_json::from_str::<Vec<_>>(&text).unwrap());
    assert_eq!(claim(&mut leases, &request("a", 0, 0)), Ok(8080));
    let again = leases.claim(&request("b", 0, 0), 3, |_| true, &mut Vec::new());
    assert_eq!(
        again,
        Ok(port(20000)),
        "what is held is not searched for again"
    );
}

#[test]
fn of_two_written_holders_the_older_import_keeps_the_port() {
    let lease = |import, created, number| PortLease {
        import: name(import),
        created,
        port: port(number),
    };
    let state = [
        lease("young", 9, 8080),
        lease("old", 3, 8080),
        lease("equal", 3, 8080),
        lease("low", 1, 80),
    ];
    let mut leases = PortLeases::restore(rules(), state);
    assert_eq!(
        leases.state(),
        [lease("equal", 3, 8080)],
        "of equals the least name"
    );
    claim(&mut leases, &request("young", 9, 8080)).unwrap_err();
    claim(&mut leases, &request("old", 3, 8080)).unwrap_err();
    assert_eq!(leases.release(&name("equal")).unwrap().import, name("old"));
}

#[test]
fn a_lease_that_the_rules_no_longer_allow_is_replaced() {
    let mut leases = PortLeases::new(rules());
    claim(&mut leases, &request("a", 0, 0)).unwrap();
    claim(&mut leases, &request("b", 0, 8080)).unwrap();
    let refused = leases.set_agent_ports(own(&[4443, 20001, 20000, 8080]));
    assert_eq!(refused, [name("b"), name("a")]);
    assert_eq!(claim(&mut leases, &request("a", 0, 0)), Ok(20002));
    claim(&mut leases, &request("b", 0, 8080)).unwrap_err();
    assert_eq!(leases.port(&name("b")), None);
}

#[test]
fn what_is_written_down_takes_a_port_from_whoever_was_only_granted_it() {
    let mut leases = PortLeases::new(rules());
    let lease = |import: &str, number| PortLease {
        import: name(import),
        created: 9,
        port: port(number),
    };
    claim(&mut leases, &request("a", 1, 8080)).unwrap();
    claim(&mut leases, &request("b", 2, 8081)).unwrap();
    claim(&mut leases, &request("c", 3, 8081)).unwrap_err();
    let mut promoted = Vec::new();
    let loser = leases.seize(lease("b", 8080), &mut promoted);
    assert_eq!(loser, Ok(Some(name("a"))));
    assert_eq!(leases.holder(port(8080)), Some(&name("b")));
    assert_eq!(leases.port(&name("a")), None);
    let names: Vec<_> = promoted.drain(..).map(|lease| lease.import).collect();
    assert_eq!(names, [name("c")], "it waited for the other port");
    assert_eq!(leases.seize(lease("b", 8080), &mut promoted), Ok(None));
    assert!(matches!(
        leases.seize(lease("a", 30_000), &mut promoted),
        Err(PortRefused::NodePort { .. })
    ));
    assert_eq!(promoted, []);
}

proptest! {
    #[test]
    fn every_port_has_one_holder_and_no_one_waits_for_a_free_port(
        steps in vec((0..6_u8, option::of(8080..8083_u16), any::<u64>()), 1..120),
    ) {
        let mut leases = PortLeases::new(rules());
        for (import, requested, random) in steps {
            let claim = PortClaim {
                import: name(&import.to_string()),
                created: u64::from(import / 2),
                requested: requested.and_then(NonZeroU16::new),
            };
            let before = leases.state();
            let mut promoted = Vec::new();
            if random % 3 == 0 {
                promoted.extend(leases.release(&claim.import));
                prop_assert_eq!(leases.port(&claim.import), None);
            } else {
                match leases.claim(&claim, random, |_| false, &mut promoted) {
                    Ok(port) => {
                        prop_assert!(claim.requested.is_none_or(|requested| requested == port));
                        prop_assert_eq!(leases.port(&claim.import), Some(port));
                    }
                    Err(PortRefused::Held { port, holder }) => {
                        prop_assert_eq!(leases.port(&holder).map(NonZeroU16::get), Some(port));
                        prop_assert!(leases.waiting.contains_key(&claim.import));
                    }
                    Err(PortRefused::Exhausted { .. }) => prop_assert!(claim.requested.is_none()),
                    Err(other) => prop_assert!(false, "{}", other),
                }
            }
            for lease in before.iter().filter(|lease| lease.import != claim.import) {
                prop_assert_eq!(leases.port(&lease.import), Some(lease.port), "a holder lost it");
            }
            for lease in &promoted {
                prop_assert_eq!(leases.port(&lease.import), Some(lease.port));
            }
            let state = leases.state();
            let ports: BTreeSet<_> = state.iter().map(|lease| lease.port).collect();
            prop_assert_eq!(ports.len(), state.len(), "a port is held twice");
            prop_assert_eq!(leases.holders.len(), state.len());
            for lease in leases.waiting.values() {
                prop_assert!(leases.holder(lease.port).is_some_and(|h| *h != lease.import));
                prop_assert!(!leases.held.contains_key(&lease.import));
            }
        }
    }
}
