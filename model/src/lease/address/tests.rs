use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn ranges(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn restarted(leases: &AddressLeases) -> AddressLeases {
    let text = serde_json::to_string(&leases.state()).unwrap();
    AddressLeases::restore(leases.ranges.clone(), serde_json::from_str(&text).unwrap())
}

#[test]
fn an_import_gets_one_address_of_each_family_and_keeps_it() {
    let mut leases = AddressLeases::new(ranges(&["fd77:636d::/112", "10.114.0.0/16"]));
    let first = leases.lease(&name("web")).unwrap().to_vec();
    assert!(
        matches!(first[..], [IpAddr::V4(_), IpAddr::V6(_)]),
        "{first:?}"
    );
    assert_eq!(leases.lease(&name("web")).unwrap(), first);
    assert_ne!(
        leases.lease(&ObjectName::new("other", "web")).unwrap(),
        first
    );
    let mut leases = restarted(&leases);
    assert_eq!(leases.addresses(&name("web")), first);
    assert_eq!(leases.lease(&name("web")).unwrap(), first);
}

#[test]
fn a_lost_state_gives_the_same_addresses_again() {
    let leases_of = |imports: Vec<u32>| {
        let mut leases = AddressLeases::new(ranges(&["10.114.0.0/16"]));
        for import in imports {
            leases.lease(&name(&format!("import-{import}"))).unwrap();
        }
        leases
            .state()
            .held
            .into_iter()
            .map(|l| (l.import, l.addresses))
            .collect::<BTreeMap<_, _>>()
    };
    let (one, other) = (
        leases_of((0..500).collect()),
        leases_of((0..500).rev().collect()),
    );
    let same = one
        .iter()
        .filter(|(import, addresses)| other[*import] == **addresses)
        .count();
    assert!(
        same > 490,
        "only {same} of 500 are the same in another order"
    );
}

#[test]
fn the_ends_of_a_range_are_never_given() {
    for (range, count) in [
        ("10.0.0.0/29", 5),
        ("10.0.0.0/30", 1),
        ("10.0.0.0/31", 0),
        ("10.0.0.0/32", 0),
        ("fd00::/125", 5),
        ("fd00::/128", 0),
        ("10.0.0.5/29", 5),
        ("255.255.255.248/29", 5),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff8/125", 5),
    ] {
        let ranges = ranges(&[range]);
        let mut leases = AddressLeases::new(ranges.clone());
        let given: Vec<_> = (0..count)
            .map(|n| leases.lease(&name(&format!("import-{n}"))).unwrap()[0])
            .collect();
        let network = to_number(ranges[0].network());
        let expected: HashSet<_> = (network + 2..network + 2 + count).collect();
        assert_eq!(
            given.into_iter().map(to_number).collect::<HashSet<_>>(),
            expected,
            "{range}"
        );
        let error = leases.lease(&name("one-too-many")).unwrap_err().to_string();
        assert!(
            error.contains("shop/one-too-many") && error.contains('/'),
            "{error}"
        );
    }
}

#[test]
fn a_range_without_end_is_searched_in_no_time() {
    let mut leases = AddressLeases::new(ranges(&["fd00::/8", "::/0", "0.0.0.0/0"]));
    for n in 0..1000 {
        assert_eq!(
            leases.lease(&name(&format!("import-{n}"))).unwrap().len(),
            2
        );
    }
}

#[test]
fn a_full_range_is_followed_by_the_next_one_of_its_family() {
    let mut leases = AddressLeases::new(ranges(&["10.0.0.0/30", "10.1.0.0/30", "fd00::/64"]));
    assert_eq!(
        leases.lease(&name("a")).unwrap()[0],
        "10.0.0.2".parse::<IpAddr>().unwrap()
    );
    assert_eq!(
        leases.lease(&name("b")).unwrap()[0],
        "10.1.0.2".parse::<IpAddr>().unwrap()
    );
    let error = leases.lease(&name("c")).unwrap_err();
    assert_eq!(
        error.ranges,
        ranges(&["10.0.0.0/30", "10.1.0.0/30"]),
        "the full family is named"
    );
    assert_eq!(
        leases.addresses(&name("c")),
        [] as [IpAddr; 0],
        "half an import is none"
    );
    leases.release(&name("a"));
    leases.lease(&name("c")).unwrap();
}

#[test]
fn a_freed_address_is_given_to_another_only_when_there_is_no_other() {
    let mut leases = AddressLeases::new(ranges(&["10.0.0.0/29"]));
    let address = |leases: &mut AddressLeases, import| leases.lease(&name(import)).unwrap()[0];
    let [a, b] = ["a", "b"].map(|import| address(&mut leases, import));
    assert_eq!(leases.release(&name("b")), [b]);
    assert_eq!(leases.release(&name("a")), [a]);
    assert_eq!(leases.release(&name("a")), [] as [IpAddr; 0]);
    let mut leases = restarted(&leases);
    for import in ["c", "d", "e"] {
        let given = address(&mut leases, import);
        assert!(given != a && given != b, "{import} got a freed address");
    }
    assert_eq!(
        address(&mut leases, "f"),
        b,
        "the least recently freed comes first"
    );
    assert_eq!(address(&mut leases, "g"), a);
    leases.lease(&name("h")).unwrap_err();
}

#[test]
fn an_import_that_comes_back_finds_its_address() {
    let mut leases = AddressLeases::new(ranges(&["10.0.0.0/28", "fd00::/120"]));
    let before = leases.lease(&name("a")).unwrap().to_vec();
    assert_eq!(leases.retain(|_| false), [name("a")]);
    leases.lease(&name("b")).unwrap();
    assert_eq!(leases.lease(&name("a")).unwrap(), before);
    assert_eq!(leases.state().freed, []);
}

#[test]
fn what_was_written_down_is_checked_against_the_ranges() {
    let lease = |import, addresses: &[&str]| AddressLease {
        import: name(import),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    let state = AddressLeaseState {
        held: vec![
            lease("a", &["10.0.0.7", "fd00::7"]),
            lease("b", &["10.0.0.7", "fd00::8"]),
            lease("c", &["10.9.9.9"]),
            lease("d", &["10.0.0.0", "10.0.0.1", "10.0.0.255"]),
            lease("e", &["10.0.0.9", "10.0.0.10"]),
            lease("e", &["10.0.0.11"]),
        ],
        freed: vec![lease("f", &["10.0.0.7", "10.0.0.12", "10.9.9.9"])],
    };
    let mut leases = AddressLeases::restore(ranges(&["10.0.0.0/24", "fd00::/120"]), state);
    let expected = vec![
        lease("a", &["10.0.0.7", "fd00::7"]),
        lease("b", &["fd00::8"]),
        lease("e", &["10.0.0.9"]),
    ];
    assert_eq!(leases.state().held, expected);
    assert_eq!(leases.state().freed, [lease("f", &["10.0.0.12"])]);
    let completed = leases.lease(&name("b")).unwrap();
    assert_eq!(completed.len(), 2, "the missing family is added");
    assert_eq!(completed[1], "fd00::8".parse::<IpAddr>().unwrap());
}

#[test]
fn only_so_many_former_leases_are_remembered() {
    let mut leases = AddressLeases::new(ranges(&["10.0.0.0/8"]));
    for n in 0..REMEMBERED + 10 {
        let import = name(&format!("import-{n}"));
        leases.lease(&import).unwrap();
        leases.release(&import);
    }
    assert_eq!(leases.state().freed.len(), REMEMBERED);
    assert_eq!(leases.known.len(), REMEMBERED);
}

proptest! {
    #[test]
    fn no_address_is_held_twice_and_nothing_is_lost(
        steps in vec((0..8_u8, 0..5_u8), 1..120),
    ) {
        // Five IPv4 addresses for up to eight imports.
        let mut leases = AddressLeases::new(ranges(&["10.0.0.0/29", "fd00::/122"]));
        let mut expected: BTreeMap<ObjectName, Vec<IpAddr>> = BTreeMap::new();
        for (import, act) in steps {
            let import = name(&import.to_string());
            match act {
                0 | 1 => {
                    let freed = leases.release(&import);
                    prop_assert_eq!(freed, expected.remove(&import).unwrap_or_default());
                }
                2 => leases = restarted(&leases),
                _ => match leases.lease(&import) {
                    Ok(addresses) => {
                        let addresses = addresses.to_vec();
                        prop_assert_eq!(addresses.len(), 2);
                        if let Some(before) = expected.insert(import, addresses.clone()) {
                            prop_assert_eq!(before, addresses);
                        }
                    }
                    Err(_) => prop_assert_eq!(expected.len(), 5),
                },
            }
            let held: Vec<_> = leases.iter().map(|(n, a)| (n.clone(), a.to_vec())).collect();
            prop_assert_eq!(held, expected.clone().into_iter().collect::<Vec<_>>());
            let all: HashSet<_> = expected.values().flatten().collect();
            prop_assert_eq!(all.len(), expected.len() * 2, "an address is held twice");
            let known: usize = expected.len() * 2
                + leases.freed.iter().map(|lease| lease.addresses.len()).sum::<usize>();
            prop_assert_eq!(leases.known.len(), known);
        }
    }
}
