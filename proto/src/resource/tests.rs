//! Resources of every kind, and that they survive the wire.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16, sync::Arc};

use clusterlink_model::{
    Action, Backend, Endpoint, Export, HostPort, Import, Labels, LbScheme, Node, ObjectName,
    Operator, Peer, PeerName, Policy, PolicyName, Requirement, Resource, ResourceKey, Selector,
    Source, Workload, WorkloadAttributes,
};
use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;

use crate::{
    Encoded, encoded,
    wire::{self, resource::Resource as Kind},
};

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-z\u{e9}]{0,6}".prop_map(Into::into)
}

fn name() -> impl Strategy<Value = ObjectName> {
    (0u8..3, 0u8..4).prop_map(|(ns, name)| ObjectName::new(format!("ns{ns}"), format!("o{name}")))
}

fn peer_name() -> impl Strategy<Value = PeerName> {
    (0u8..6).prop_map(|number| PeerName::new(&format!("peer{number}")).unwrap())
}

pub(crate) fn labels() -> impl Strategy<Value = Labels> {
    vec(("[a-c]{1,2}", "[x-z]{0,2}"), 0..4).prop_map(BTreeMap::from_iter)
}

fn port() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|port| NonZeroU16::new(port).unwrap())
}

fn host_port() -> impl Strategy<Value = HostPort> {
    (text(), port()).prop_map(|(host, port)| HostPort { host, port })
}

fn source() -> impl Strategy<Value = Source> {
    (peer_name(), name()).prop_map(|(peer, export)| Source { peer, export })
}

fn import() -> impl Strategy<Value = Import> {
    let scheme = prop_oneof![
        Just(LbScheme::Random),
        Just(LbScheme::RoundRobin),
        Just(LbScheme::Static)
    ];
    (
        name(),
        labels(),
        vec(any::<IpAddr>(), 0..3),
        port(),
        option::of(port()),
        vec(source(), 0..3),
        scheme,
    )
        .prop_map(
            |(name, labels, addresses, port, target_port, sources, scheme)| Import {
                name,
                labels,
                addresses,
                port,
                target_port,
                sources,
                scheme,
            },
        )
}

fn export() -> impl Strategy<Value = Export> {
    let endpoint = (
        any::<(IpAddr, u16)>(),
        option::of(text()),
        option::of(text()),
    )
        .prop_map(|(address, node, zone)| Endpoint {
            address: address.into(),
            node,
            zone,
        });
    let backend = prop_oneof![
        vec(endpoint, 0..4).prop_map(Backend::Endpoints),
        host_port().prop_map(Backend::Name),
        name().prop_map(Backend::Import),
        text().prop_map(Backend::Unavailable),
    ];
    (name(), labels(), backend).prop_map(|(name, labels, backend)| Export {
        name,
        labels,
        backend,
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    let gateways = vec(host_port(), 0..3);
    (
        peer_name(),
        gateways,
        option::of(labels()),
        any::<Option<i64>>(),
    )
        .prop_map(|(name, gateways, labels, not_issued_before)| Peer {
            name,
            gateways,
            labels,
            not_issued_before,
        })
}

fn selectors() -> impl Strategy<Value = Vec<Selector>> {
    let values = || vec("[a-z]{0,3}", 0..3);
    let operator = prop_oneof![
        values().prop_map(Operator::In),
        values().prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist),
    ];
    let requirement =
        ("[a-z/.]{0,8}", operator).prop_map(|(key, operator)| Requirement { key, operator });
    let selector = vec(requirement, 0..3).prop_map(|requirements| Selector { requirements });
    vec(selector, 0..3)
}

fn policy() -> impl Strategy<Value = Policy> {
    let name = prop_oneof![
        "[a-z]{1,3}".prop_map(|name| PolicyName::Privileged(name.into())),
        name().prop_map(PolicyName::Namespaced),
    ];
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    (name, action, selectors(), selectors()).prop_map(|(name, action, from, to)| Policy {
        name,
        action,
        from,
        to,
    })
}

fn workload() -> impl Strategy<Value = Workload> {
    let attributes = (text(), text(), labels()).prop_map(|(namespace, service_account, labels)| {
        Arc::new(WorkloadAttributes {
            namespace,
            service_account,
            labels,
        })
    });
    (
        name(),
        attributes,
        option::of(text()),
        vec(any::<IpAddr>(), 0..3),
        vec(text(), 0..3),
        option::of("n[12]".prop_map(Into::into)),
        any::<bool>(),
    )
        .prop_map(
            |(name, attributes, cgroup, addresses, uids, node, host_network)| Workload {
                name,
                attributes,
                cgroup,
                addresses,
                uids,
                node,
                host_network,
            },
        )
}

fn node() -> impl Strategy<Value = Node> {
    let range = any::<(IpAddr, u8)>().prop_map(|(address, prefix)| {
        let longest = if address.is_ipv4() { 33 } else { 129 };
        IpNet::new(address, prefix % longest).unwrap()
    });
    let addresses = vec(any::<IpAddr>(), 0..3);
    let name = "n[0-9]".prop_map(Into::into);
    (name, addresses, vec(range, 0..3), option::of(text())).prop_map(
        |(name, addresses, pod_ranges, zone)| Node {
            name,
            addresses,
            pod_ranges,
            zone,
        },
    )
}

pub(crate) fn any_resource() -> BoxedStrategy<Resource> {
    prop_oneof![
        import().prop_map(|import| Resource::Import(Arc::new(import))),
        export().prop_map(|export| Resource::Export(Arc::new(export))),
        peer().prop_map(|peer| Resource::Peer(Arc::new(peer))),
        policy().prop_map(|policy| Resource::Policy(Arc::new(policy))),
        workload().prop_map(|workload| Resource::Workload(Arc::new(workload))),
        node().prop_map(|node| Resource::Node(Arc::new(node))),
    ]
    .boxed()
}

proptest! {
    #[test]
    fn every_resource_survives_the_wire(resource in any_resource()) {
        let encoded = Encoded::new(&resource);
        let upsert = wire::Upsert::decode(encoded.upsert().clone()).unwrap();
        prop_assert_eq!(&upsert.version, &encoded.version().to_bytes());
        let key = ResourceKey::try_from(&upsert.name.unwrap()).unwrap();
        prop_assert_eq!(&key, &resource.key());
        prop_assert_eq!(encoded::decode(&key, upsert.resource).unwrap(), resource);
    }

    #[test]
    fn what_differs_has_another_version(one in any_resource(), other in any_resource()) {
        let same = Encoded::new(&one).version() == Encoded::new(&other).version();
        prop_assert_eq!(same, one == other);
    }
}

fn valid_import() -> wire::Import {
    wire::Import {
        name: Some((&ObjectName::new("shop", "web")).into()),
        port: 80,
        scheme: wire::LbScheme::Random.into(),
        ..wire::Import::default()
    }
}

fn valid_policy() -> wire::Policy {
    wire::Policy {
        name: Some(wire::policy::Name::Privileged("p".to_owned())),
        action: wire::Action::Allow.into(),
        from: vec![wire::Selector::default()],
        to: Vec::new(),
    }
}

fn requirement(operator: i32, values: &[&str]) -> wire::Policy {
    let requirement = wire::Requirement {
        key: "k".to_owned(),
        operator,
        values: values.iter().map(ToString::to_string).collect(),
    };
    let mut policy = valid_policy();
    policy.to = vec![wire::Selector {
        requirements: vec![requirement],
    }];
    policy
}

#[test]
fn what_cannot_be_used_is_refused_with_its_field() {
    let import = |change: fn(&mut wire::Import)| {
        let mut import = valid_import();
        change(&mut import);
        Some(Kind::Import(import))
    };
    for (resource, expected) in [
        (
            None,
            "resource: its kind is not known to this version; update it",
        ),
        (import(|i| i.name = None), "name: missing"),
        (import(|i| i.port = 0), "port: 0 is not between 1 and 65535"),
        (
            import(|i| i.port = 65_536),
            "port: 65536 is not between 1 and 65535",
        ),
        (
            import(|i| i.target_port = 70_000),
            "target port: 70000 is not between 1 and 65535",
        ),
        (import(|i| i.scheme = 0), "scheme: missing"),
        (
            import(|i| i.scheme = 17),
            "scheme: 17 is not known to this version; update it",
        ),
        (
            import(|i| i.addresses = vec![vec![1, 2, 3].into()]),
            "addresses: an address has 4 or 16 bytes, not 3",
        ),
        (
            import(|i| {
                i.sources = vec![wire::Source {
                    peer: "a_b".to_owned(),
                    export: None,
                }];
            }),
            "peer of a source: \"a_b\" is not a DNS name",
        ),
        (
            Some(Kind::Policy(wire::Policy {
                action: 3,
                ..valid_policy()
            })),
            "action: 3 is not known to this version; update it",
        ),
        (
            Some(Kind::Policy(wire::Policy {
                name: None,
                ..valid_policy()
            })),
            "name: missing",
        ),
        (
            Some(Kind::Policy(requirement(5, &[]))),
            "operator: 5 is not known to this version; update it",
        ),
        (
            Some(Kind::Policy(requirement(
                wire::Operator::Exists.into(),
                &["v"],
            ))),
            "values: only In and NotIn have values",
        ),
        (
            Some(Kind::Export(wire::Export {
                name: Some((&ObjectName::new("shop", "web")).into()),
                ..wire::Export::default()
            })),
            "backend: missing",
        ),
        (
            Some(Kind::Node(wire::Node {
                pod_ranges: vec![wire::Range {
                    address: vec![10, 0, 0, 0].into(),
                    prefix: 33,
                }],
                ..wire::Node::default()
            })),
            "pod ranges: 33 is too long a prefix for 10.0.0.0",
        ),
    ] {
        let error = Resource::try_from(wire::Resource { resource }).unwrap_err();
        assert!(
            error.to_string().starts_with(expected),
            "{error} <> {expected}"
        );
    }
}

#[test]
fn fields_of_a_newer_sender_are_skipped() {
    let good = wire::Resource {
        resource: Some(Kind::Import(valid_import())),
    };
    let mut newer = valid_import().encode_to_vec();
    newer.extend([0xba, 0x3e, 2, b'h', b'i']); // field 999, two bytes
    let mut bytes = vec![0x0a, u8::try_from(newer.len()).unwrap()];
    bytes.extend(newer);
    let decoded = wire::Resource::decode(&bytes[..]).unwrap();
    assert_eq!(Resource::try_from(decoded), Resource::try_from(good));
}
