//! What each attribute, tier and kind of client means: one row for each promise.

use super::scene::*;
use crate::{
    Client, Labels, Operator, Peer, Policy, PolicyName, Selector,
    policy::{Decision, PolicySet, peer_labels},
};
use std::sync::Arc;

const OWN: &str = "here.example";
const REMOTE: &str = "there.example";

fn own_labels() -> Labels {
    labels([("region", "eu"), ("topology.kubernetes.io/zone", "a")])
}

fn remote_labels() -> Labels {
    labels([("region", "us"), ("tier", "gold")])
}

fn client_pod() -> Client {
    pod(workload(
        "shop",
        "cart",
        labels([("app", "cart"), ("app.kubernetes.io/name", "cart-server")]),
    ))
}

/// A client of this peer connects to `data/db` at the remote peer, through an import of
/// namespace `shop` with the label `class: gold`.
fn egress(policies: Vec<Arc<Policy>>, client: &Client) -> Decision {
    let import = import(
        "shop",
        labels([("class", "gold")]),
        vec![source(REMOTE, "data", "db")],
    );
    PolicySet::new(policies).decide_egress(
        (&peer(OWN), &own_labels()),
        client,
        &import,
        &import.sources[0],
        &remote_labels(),
    )
}

/// A pod of the remote peer connects to the local export `data/db` with the label `class: gold`.
fn ingress(policies: Vec<Arc<Policy>>) -> Decision {
    let attested = workload(
        "shop",
        "cart",
        labels([("app.kubernetes.io/name", "cart-server")]),
    );
    PolicySet::new(policies).decide_ingress(
        (&peer(OWN), &own_labels()),
        (&peer(REMOTE), &remote_labels()),
        Some(&attested),
        &export("data", "db", labels([("class", "gold")])),
    )
}

fn decided(allowed: bool, policy: PolicyName) -> Decision {
    Decision {
        allowed,
        policy: Some(policy),
    }
}

#[test]
fn every_source_attribute_has_its_egress_value() {
    for (key, value) in [
        ("peer.clusterlink.net/name", OWN),
        ("peer.clusterlink.net/labels.region", "eu"),
        (
            "peer.clusterlink.net/labels.topology.kubernetes.io/zone",
            "a",
        ),
        ("client.clusterlink.net/namespace", "shop"),
        ("client.clusterlink.net/service-account", "cart"),
        ("client.clusterlink.net/labels.app", "cart"),
        (
            "client.clusterlink.net/labels.app.kubernetes.io/name",
            "cart-server",
        ),
    ] {
        let with = |from| {
            egress(
                vec![allow(privileged("p"), from, anything())],
                &client_pod(),
            )
            .allowed
        };
        assert!(
            with(where_in(key, &["other", value])),
            "{key} should be {value}"
        );
        assert!(
            !with(where_in(key, &["other"])),
            "{key} should not be other"
        );
        assert!(
            !with(where_not_in(key, &[value])),
            "{key} should be {value}, not anything else"
        );
        assert!(with(selector(key, Operator::Exists)), "{key} should exist");
        assert!(
            !with(selector(key, Operator::DoesNotExist)),
            "{key} should exist"
        );
    }
}

#[test]
fn every_destination_attribute_has_its_egress_value() {
    for (key, value) in [
        ("export.clusterlink.net/name", "db"),
        ("export.clusterlink.net/namespace", "data"),
        ("export.clusterlink.net/labels.class", "gold"),
        ("peer.clusterlink.net/name", REMOTE),
        ("peer.clusterlink.net/labels.region", "us"),
        ("peer.clusterlink.net/labels.tier", "gold"),
    ] {
        let with = |to| egress(vec![allow(privileged("p"), anything(), to)], &client_pod()).allowed;
        assert!(
            with(where_in(key, &["other", value])),
            "{key} should be {value}"
        );
        assert!(
            !with(where_in(key, &["other"])),
            "{key} should not be other"
        );
        assert!(
            !with(where_not_in(key, &[value])),
            "{key} should be {value}, not anything else"
        );
    }
}

#[test]
fn every_source_attribute_has_its_ingress_value() {
    for (key, value) in [
        ("peer.clusterlink.net/name", REMOTE),
        ("peer.clusterlink.net/labels.region", "us"),
        ("client.clusterlink.net/namespace", "shop"),
        ("client.clusterlink.net/service-account", "cart"),
        (
            "client.clusterlink.net/labels.app.kubernetes.io/name",
            "cart-server",
        ),
    ] {
        let with = |from| ingress(vec![allow(privileged("p"), from, anything())]).allowed;
        assert!(with(where_in(key, &[value])), "{key} should be {value}");
        assert!(
            !with(where_not_in(key, &[value])),
            "{key} should be {value}"
        );
    }
}

#[test]
fn every_destination_attribute_has_its_ingress_value() {
    for (key, value) in [
        ("export.clusterlink.net/name", "db"),
        ("export.clusterlink.net/namespace", "data"),
        ("export.clusterlink.net/labels.class", "gold"),
        ("peer.clusterlink.net/name", OWN),
        ("peer.clusterlink.net/labels.region", "eu"),
    ] {
        let with = |to| ingress(vec![allow(privileged("p"), anything(), to)]).allowed;
        assert!(with(where_in(key, &[value])), "{key} should be {value}");
        assert!(
            !with(where_not_in(key, &[value])),
            "{key} should be {value}"
        );
    }
}

#[test]
fn an_attribute_of_the_other_side_or_of_nobody_is_absent() {
    for key in [
        "export.clusterlink.net/name",
        "export.clusterlink.net/labels.class",
        "client.clusterlink.net/labels.absent",
        "client.clusterlink.net/labels.",
        "client.clusterlink.net/name",
        "app",
        "",
    ] {
        let with = |from| {
            egress(
                vec![allow(privileged("p"), from, anything())],
                &client_pod(),
            )
            .allowed
        };
        assert!(
            !with(selector(key, Operator::Exists)),
            "{key:?} should be absent in from"
        );
        assert!(
            with(selector(key, Operator::DoesNotExist)),
            "{key:?} should be absent in from"
        );
    }
    for key in [
        "client.clusterlink.net/namespace",
        "client.clusterlink.net/labels.app",
    ] {
        let with = |to| egress(vec![allow(privileged("p"), anything(), to)], &client_pod()).allowed;
        assert!(
            !with(selector(key, Operator::Exists)),
            "{key:?} should be absent in to"
        );
    }
}

#[test]
fn each_tier_overrules_those_after_it() {
    let tiers = || {
        vec![
            deny(privileged("pd"), anything(), anything()),
            allow(privileged("pa"), anything(), anything()),
            deny(namespaced("shop", "nd"), anything(), anything()),
            allow(namespaced("shop", "na"), anything(), anything()),
        ]
    };
    for (without, expected) in [
        (0, decided(false, privileged("pd"))),
        (1, decided(true, privileged("pa"))),
        (2, decided(false, namespaced("shop", "nd"))),
        (3, decided(true, namespaced("shop", "na"))),
        (4, Decision::DEFAULT_DENY),
    ] {
        let mut policies = tiers().split_off(without);
        assert_eq!(
            egress(policies.clone(), &client_pod()),
            expected,
            "tiers from {without}"
        );
        policies.reverse();
        assert_eq!(
            egress(policies, &client_pod()),
            expected,
            "reversed, tiers from {without}"
        );
    }
}

#[test]
fn the_least_name_of_the_deciding_tier_is_named() {
    let names = ["m", "z", "a", "b"];
    let policies = |p: fn(&str) -> PolicyName| -> Vec<Arc<Policy>> {
        names
            .map(|name| allow(p(name), anything(), anything()))
            .into()
    };
    assert_eq!(
        egress(policies(privileged), &client_pod()),
        decided(true, privileged("a"))
    );
    let in_shop = policies(|name| namespaced("shop", name));
    assert_eq!(
        egress(in_shop, &client_pod()),
        decided(true, namespaced("shop", "a"))
    );
    let many = (0..200)
        .rev()
        .map(|n| allow(privileged(&format!("p{n:03}")), anything(), anything()));
    assert_eq!(
        egress(many.collect(), &client_pod()),
        decided(true, privileged("p000"))
    );
}

#[test]
fn namespaced_policies_count_only_in_the_namespace_of_the_import_or_export() {
    let in_namespace = |ns| vec![allow(namespaced(ns, "p"), anything(), anything())];
    for (namespace, on_egress, on_ingress) in [
        ("shop", true, false),
        ("data", false, true),
        ("other", false, false),
    ] {
        assert_eq!(
            egress(in_namespace(namespace), &client_pod()).allowed,
            on_egress
        );
        assert_eq!(ingress(in_namespace(namespace)).allowed, on_ingress);
    }
}

#[test]
fn a_policy_needs_one_from_item_and_one_to_item() {
    let shop = where_in("client.clusterlink.net/namespace", &["shop"]);
    let nobody = where_in("client.clusterlink.net/namespace", &["nobody"]);
    let db = where_in("export.clusterlink.net/name", &["db"]);
    let nothing = where_in("export.clusterlink.net/name", &["nothing"]);
    let either = |a: &Vec<Selector>, b: &Vec<Selector>| [a.clone(), b.clone()].concat();
    for (from, to, allowed) in [
        (shop.clone(), db.clone(), true),
        (either(&nobody, &shop), either(&nothing, &db), true),
        (nobody.clone(), db.clone(), false),
        (shop, nothing.clone(), false),
        (nobody, nothing, false),
    ] {
        let policies = vec![allow(namespaced("shop", "p"), from, to)];
        assert_eq!(egress(policies, &client_pod()).allowed, allowed);
    }
}

#[test]
fn all_requirements_of_one_item_must_hold() {
    let mut both = where_in("client.clusterlink.net/namespace", &["shop"]);
    both[0].requirements.extend(
        where_in("peer.clusterlink.net/name", &[REMOTE])[0]
            .requirements
            .clone(),
    );
    let policies = vec![allow(privileged("p"), both, anything())];
    assert!(
        !egress(policies.clone(), &client_pod()).allowed,
        "our peer's name is another"
    );
    assert!(ingress(policies).allowed);
}

#[test]
fn a_host_or_outside_client_has_only_the_attributes_of_its_peer() {
    const NAMESPACE: &str = "client.clusterlink.net/namespace";
    const LABEL: &str = "client.clusterlink.net/labels.app";
    for client in [Client::Host, Client::Outside] {
        for (row, from, allowed) in [
            ("matches everything", anything(), true),
            (
                "own peer",
                where_in("peer.clusterlink.net/name", &[OWN]),
                true,
            ),
            (
                "own peer's label",
                where_in("peer.clusterlink.net/labels.region", &["eu"]),
                true,
            ),
            (
                "not in a namespace",
                where_not_in(NAMESPACE, &["shop"]),
                true,
            ),
            (
                "no such label",
                selector(LABEL, Operator::DoesNotExist),
                true,
            ),
            ("in a namespace", where_in(NAMESPACE, &["shop", ""]), false),
            ("has a label", selector(LABEL, Operator::Exists), false),
            (
                "has an account",
                selector("client.clusterlink.net/service-account", Operator::Exists),
                false,
            ),
        ] {
            let allows = vec![allow(privileged("p"), from.clone(), anything())];
            assert_eq!(
                egress(allows, &client).allowed,
                allowed,
                "{client:?}: {row}"
            );
            let denies = vec![
                deny(privileged("d"), from, anything()),
                allow(privileged("a"), anything(), anything()),
            ];
            assert_eq!(
                egress(denies, &client).allowed,
                !allowed,
                "{client:?} denied: {row}"
            );
        }
    }
}

#[test]
fn an_unknown_client_is_refused_by_no_policy() {
    let policies = vec![allow(privileged("p"), anything(), anything())];
    assert_eq!(egress(policies, &Client::Unknown), Decision::DEFAULT_DENY);
}

#[test]
fn without_policies_everything_is_denied() {
    assert_eq!(egress(Vec::new(), &client_pod()), Decision::DEFAULT_DENY);
    assert_eq!(ingress(Vec::new()), Decision::DEFAULT_DENY);
    assert_eq!(
        PolicySet::default().decide_ingress(
            (&peer(OWN), &own_labels()),
            (&peer(REMOTE), &remote_labels()),
            None,
            &export("data", "db", Labels::new()),
        ),
        Decision::DEFAULT_DENY
    );
}

#[test]
fn a_caller_without_an_attested_workload_is_judged_as_its_peer() {
    let set = |from| PolicySet::new([allow(namespaced("data", "p"), from, anything())]);
    let judge = |from| {
        set(from).decide_ingress(
            (&peer(OWN), &own_labels()),
            (&peer(REMOTE), &remote_labels()),
            None,
            &export("data", "db", Labels::new()),
        )
    };
    assert!(judge(where_in("peer.clusterlink.net/name", &[REMOTE])).allowed);
    assert!(!judge(where_in("client.clusterlink.net/namespace", &["shop"])).allowed);
}

#[test]
fn labels_of_the_peer_object_override_what_the_peer_says() {
    let object = |labels| Peer {
        name: peer(REMOTE),
        gateways: Vec::new(),
        labels,
        not_issued_before: None,
    };
    let (ours, theirs) = (labels([("region", "eu")]), labels([("region", "us")]));
    for (row, in_object, said, expected) in [
        (
            "both",
            Some(object(Some(ours.clone()))),
            Some(&theirs),
            &ours,
        ),
        (
            "object without labels",
            Some(object(None)),
            Some(&theirs),
            &theirs,
        ),
        (
            "object empties them",
            Some(object(Some(Labels::new()))),
            Some(&theirs),
            &Labels::new(),
        ),
        ("no object", None, Some(&theirs), &theirs),
        ("nothing known", None, None, &Labels::new()),
    ] {
        assert_eq!(peer_labels(in_object.as_ref(), said), expected, "{row}");
    }
}

#[test]
fn a_caller_that_no_policy_could_allow_is_recognised() {
    let caller = where_in("peer.clusterlink.net/name", &[REMOTE]);
    let other = where_in("peer.clusterlink.net/name", &["other.example"]);
    let pods = where_in("client.clusterlink.net/namespace", &["shop"]);
    let db = where_in("export.clusterlink.net/name", &["db"]);
    let in_data = || namespaced("data", "n");
    for (row, policies, expected) in [
        ("no policy", vec![], false),
        (
            "allowed by name",
            vec![allow(in_data(), caller.clone(), db.clone())],
            true,
        ),
        (
            "another is allowed",
            vec![allow(in_data(), other.clone(), anything())],
            false,
        ),
        (
            "some of its pods are",
            vec![allow(privileged("a"), pods.clone(), db.clone())],
            true,
        ),
        (
            "denied altogether",
            vec![
                deny(privileged("d"), caller.clone(), anything()),
                allow(in_data(), anything(), anything()),
            ],
            false,
        ),
        (
            "some of its pods are denied",
            vec![
                deny(privileged("d"), pods, anything()),
                allow(in_data(), anything(), anything()),
            ],
            true,
        ),
        (
            "one export is denied",
            vec![
                deny(privileged("d"), anything(), db),
                allow(in_data(), anything(), anything()),
            ],
            true,
        ),
        (
            "denied in the only namespace that allows",
            vec![
                deny(in_data(), caller.clone(), anything()),
                allow(in_data(), anything(), anything()),
            ],
            false,
        ),
        (
            "denied in another namespace",
            vec![
                deny(namespaced("else", "d"), caller, anything()),
                allow(in_data(), anything(), anything()),
            ],
            true,
        ),
    ] {
        let set = PolicySet::new(policies);
        assert_eq!(
            set.could_allow((&peer(REMOTE), &remote_labels())),
            expected,
            "{row}"
        );
    }
}
