//! Which policy decides.

use std::sync::Arc;

use super::scene::*;
use crate::{
    Labels, Policy, PolicyName, Selector,
    policy::{Decision, PolicySet},
};

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
