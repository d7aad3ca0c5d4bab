//! What each attribute is on either side.

use super::scene::*;
use crate::{Labels, Operator, Peer, policy::peer_labels};

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
