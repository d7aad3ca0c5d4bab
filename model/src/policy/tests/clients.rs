//! What policy says to clients that are no pods.

use super::scene::*;
use crate::{
    Client, Labels, Operator,
    policy::{Decision, PolicySet},
};

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
