//! The compiled policies agree with a plain reading of the rules over texts.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{arbitrary::any, collection::vec, option, prelude::*, sample::select};

use super::scene::*;
use crate::{
    Action, Labels, ObjectName, Operator, PeerName, Policy, PolicyName, Requirement, Selector,
    WorkloadAttributes,
    policy::{Decision, DestinationAttributes, PolicySet, SourceAttributes},
};

/// A source or destination that owns what it refers to.
#[derive(Clone, Debug)]
struct Party {
    peer: PeerName,
    peer_labels: Labels,
    workload: Option<WorkloadAttributes>,
    export: ObjectName,
    export_labels: Labels,
}

impl Party {
    fn source(&self) -> SourceAttributes<'_> {
        SourceAttributes {
            peer: &self.peer,
            peer_labels: &self.peer_labels,
            workload: self.workload.as_ref(),
        }
    }

    fn destination(&self) -> DestinationAttributes<'_> {
        DestinationAttributes {
            export: &self.export,
            export_labels: &self.export_labels,
            peer: &self.peer,
            peer_labels: &self.peer_labels,
        }
    }

    fn peer_attributes(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        all.insert(
            "peer.clusterlink.net/name".to_owned(),
            self.peer.to_string(),
        );
        all.extend(prefixed("peer.clusterlink.net/labels.", &self.peer_labels));
        all
    }

    fn source_attributes(&self) -> BTreeMap<String, String> {
        let mut all = self.peer_attributes();
        if let Some(workload) = &self.workload {
            for (key, value) in [
                ("namespace", &workload.namespace),
                ("service-account", &workload.service_account),
            ] {
                all.insert(format!("client.clusterlink.net/{key}"), value.to_string());
            }
            all.extend(prefixed("client.clusterlink.net/labels.", &workload.labels));
        }
        all
    }

    fn destination_attributes(&self) -> BTreeMap<String, String> {
        let mut all = self.peer_attributes();
        all.insert(
            "export.clusterlink.net/name".to_owned(),
            self.export.name.to_string(),
        );
        all.insert(
            "export.clusterlink.net/namespace".to_owned(),
            self.export.namespace.to_string(),
        );
        all.extend(prefixed(
            "export.clusterlink.net/labels.",
            &self.export_labels,
        ));
        all
    }
}

fn prefixed(prefix: &str, labels: &Labels) -> Vec<(String, String)> {
    labels
        .iter()
        .map(|(k, v)| (format!("{prefix}{k}"), v.clone()))
        .collect()
}

/// The rules of access policy, word for word.
fn plain_decision(
    policies: &[Arc<Policy>],
    namespace: &str,
    source: &BTreeMap<String, String>,
    destination: &BTreeMap<String, String>,
) -> Decision {
    let any_matches = |selectors: &[Selector], attributes: &BTreeMap<String, String>| {
        selectors
            .iter()
            .any(|s| s.matches(|key| attributes.get(key).map(String::as_str)))
    };
    for privileged in [true, false] {
        for action in [Action::Deny, Action::Allow] {
            let tier = policies.iter().filter(|policy| {
                policy.action == action
                    && match &policy.name {
                        PolicyName::Privileged(_) => privileged,
                        PolicyName::Namespaced(name) => {
                            !privileged && &*name.namespace == namespace
                        }
                    }
            });
            let matching = tier.filter(|policy| {
                any_matches(&policy.from, source) && any_matches(&policy.to, destination)
            });
            if let Some(policy) = matching.min_by_key(|policy| &policy.name) {
                return Decision {
                    allowed: action == Action::Allow,
                    policy: Some(policy.name.clone()),
                };
            }
        }
    }
    Decision {
        allowed: false,
        policy: None,
    }
}

const VALUES: [&str; 3] = ["a", "b", "c"];
const LABELS: [&str; 3] = ["app", "app.kubernetes.io/name", "x"];

fn value() -> impl Strategy<Value = String> {
    select(&VALUES[..]).prop_map(str::to_owned)
}

fn some_labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map(select(&LABELS[..]).prop_map(str::to_owned), value(), 0..3)
}

fn key() -> impl Strategy<Value = String> {
    let fixed = select(
        &[
            "peer.clusterlink.net/name",
            "client.clusterlink.net/namespace",
            "client.clusterlink.net/service-account",
            "export.clusterlink.net/name",
            "export.clusterlink.net/namespace",
            "app",
        ][..],
    );
    let prefix = select(
        &[
            "peer.clusterlink.net/labels.",
            "client.clusterlink.net/labels.",
            "export.clusterlink.net/labels.",
        ][..],
    );
    prop_oneof![
        fixed.prop_map(str::to_owned),
        (prefix, select(&LABELS[..])).prop_map(|(prefix, label)| format!("{prefix}{label}")),
    ]
}

fn operator() -> impl Strategy<Value = Operator> {
    prop_oneof![
        3 => vec(value(), 1..3).prop_map(Operator::In),
        1 => vec(value(), 1..3).prop_map(Operator::NotIn),
        1 => Just(Operator::Exists),
        1 => Just(Operator::DoesNotExist),
    ]
}

fn selectors() -> impl Strategy<Value = Vec<Selector>> {
    let requirement = (key(), operator()).prop_map(|(key, operator)| Requirement { key, operator });
    let selector = vec(requirement, 0..3).prop_map(|requirements| Selector { requirements });
    vec(selector, 1..3)
}

fn policies() -> impl Strategy<Value = Vec<Arc<Policy>>> {
    let name = (option::of(select(&VALUES[..])), 0..200_u32).prop_map(|(namespace, n)| {
        namespace.map_or_else(
            || privileged(&format!("p{n}")),
            |namespace| namespaced(namespace, &format!("p{n}")),
        )
    });
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    // Names are unique, as they are in an API server.
    proptest::collection::btree_map(name, (action, selectors(), selectors()), 0..160).prop_map(
        |all| {
            all.into_iter()
                .map(|(name, (action, from, to))| {
                    Arc::new(Policy {
                        name,
                        action,
                        from,
                        to,
                    })
                })
                .collect()
        },
    )
}

fn party() -> impl Strategy<Value = Party> {
    let workload = (value(), value(), some_labels())
        .prop_map(|(namespace, account, labels)| workload(&namespace, &account, labels));
    (
        value(),
        some_labels(),
        option::of(workload),
        value(),
        value(),
        some_labels(),
    )
        .prop_map(
            |(name, peer_labels, workload, namespace, export, export_labels)| Party {
                peer: peer(&name),
                peer_labels,
                workload,
                export: ObjectName::new(namespace, export),
                export_labels,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn decisions_agree_with_a_plain_reading_of_the_rules(
        policies in policies(),
        parties in vec((party(), party(), value()), 1..8),
        order in any::<prop::sample::Index>(),
    ) {
        let mut shuffled = policies.clone();
        if !shuffled.is_empty() {
            shuffled.rotate_left(order.index(policies.len()));
        }
        let set = PolicySet::new(shuffled);
        for (from, to, namespace) in &parties {
            let expected = plain_decision(
                &policies,
                namespace,
                &from.source_attributes(),
                &to.destination_attributes(),
            );
            let decision = set.decide(namespace, from.source(), to.destination());
            prop_assert_eq!(&decision, &expected);
            let source = set.source_bits(&from.source());
            let destination = set.destination_bits(namespace, &to.destination());
            prop_assert_eq!(&set.decide_bits(&source, &destination), &expected);
            prop_assert_eq!(set.allows_bits(&source, &destination), expected.allowed);
        }
    }
}
