//! What bulk decisions rely on.

use super::scene::*;
use crate::{
    Labels,
    policy::{Decision, DestinationAttributes, PolicySet, SourceAttributes},
};

#[test]
fn bits_of_another_policy_set_are_denied() {
    let (name, none) = (peer("a"), Labels::new());
    let source = SourceAttributes {
        peer: &name,
        peer_labels: &none,
        workload: None,
    };
    let import = import("shop", Labels::new(), vec![source_of_b()]);
    let destination = DestinationAttributes::egress(&import, &import.sources[0], &none);
    let policies = || [allow(privileged("p"), anything(), anything())];
    let (old, new) = (PolicySet::new(policies()), PolicySet::new(policies()));
    let (from, to) = (
        new.source_bits(&source),
        new.destination_bits("shop", &destination),
    );
    assert!(new.decide_bits(&from, &to).allowed);
    assert!(
        new.clone().allows_bits(&from, &to),
        "a clone is the same set"
    );
    assert_eq!(
        new.decide_bits(&old.source_bits(&source), &to),
        Decision::DEFAULT_DENY
    );
    assert!(!new.allows_bits(&from, &old.destination_bits("shop", &destination)));
    assert!(!old.allows_bits(&from, &to));
}

fn source_of_b() -> crate::Source {
    source("b", "data", "db")
}
