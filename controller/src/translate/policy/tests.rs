use clusterlink_model::{ObjectName, Operator, Requirement};
use serde_json::{Value, json};

use super::*;

fn name() -> PolicyName {
    PolicyName::Namespaced(ObjectName::new("ns", "rule"))
}

fn translated(action: &str, from: &Value, to: &Value) -> Result<Valid, Invalid> {
    let spec = json!({"action": action, "from": from, "to": to});
    translate(&name(), &serde_json::from_value(spec).unwrap())
}

fn everything() -> Value {
    json!([{"workloadSelector": {}}])
}

fn expression(key: &str, operator: &str, values: &Value) -> Value {
    json!([{"workloadSelector": {"matchExpressions": [
        {"key": key, "operator": operator, "values": values},
    ]}}])
}

#[test]
fn every_operator_is_translated_and_an_empty_selector_selects_everything() {
    let from = json!([{"workloadSelector": {
        "matchLabels": {"peer.clusterlink.net/name": "East"},
        "matchExpressions": [
            {"key": "client.clusterlink.net/labels.app.kubernetes.io/name", "operator": "In", "values": ["a", "b"]},
            {"key": "client.clusterlink.net/namespace", "operator": "NotIn", "values": ["c"]},
            {"key": "client.clusterlink.net/labels.x", "operator": "Exists"},
            {"key": "client.clusterlink.net/labels.y", "operator": "DoesNotExist", "values": []},
        ],
    }}]);
    let valid = translated("deny", &from, &everything()).unwrap();
    assert!(valid.warnings.is_empty(), "{:?}", valid.warnings);
    assert_eq!(valid.policy.action, Action::Deny);
    assert_eq!(valid.policy.to, [Selector::default()]);
    let requirement = |key: &str, operator| Requirement {
        key: key.to_owned(),
        operator,
    };
    assert_eq!(
        valid.policy.from[0].requirements,
        [
            // Certificates are compared in lower case, so names of peers are too.
            requirement(
                "peer.clusterlink.net/name",
                Operator::In(vec!["east".into()])
            ),
            requirement(
                "client.clusterlink.net/labels.app.kubernetes.io/name",
                Operator::In(vec!["a".into(), "b".into()])
            ),
            requirement(
                "client.clusterlink.net/namespace",
                Operator::NotIn(vec!["c".into()])
            ),
            requirement("client.clusterlink.net/labels.x", Operator::Exists),
            requirement("client.clusterlink.net/labels.y", Operator::DoesNotExist),
        ]
    );
}

#[test]
fn every_mistake_is_named_with_its_place_and_its_cure() {
    let key = "peer.clusterlink.net/name";
    for (from, told) in [
        (json!([]), "spec.from is empty"),
        (json!([{}]), "spec.from[0] has neither"),
        (json!([{"workloadSets": []}]), "spec.from[0] has neither"),
        (
            json!([{"workloadSelector": {}, "workloadSets": ["a"]}]),
            "spec.from[0] has both",
        ),
        (
            json!([{"workloadSelector": {}}, {"workloadSets": ["gold"]}]),
            "spec.from[1].workloadSets names \"gold\", but no workload sets are predefined",
        ),
        (
            expression(key, "In", &json!([])),
            "matchExpressions[0].values is empty",
        ),
        (
            expression(key, "NotIn", &Value::Null),
            "matchExpressions[0].values is empty",
        ),
        (expression(key, "Exists", &json!(["a"])), "takes none"),
        (expression(key, "DoesNotExist", &json!(["a"])), "takes none"),
        (
            expression(key, "Gt", &json!(["1"])),
            "operator is \"Gt\": use In, NotIn, Exists",
        ),
        (expression("", "Exists", &json!([])), "the key \"\""),
        (
            expression("a/b/c", "Exists", &json!([])),
            "the key \"a/b/c\"",
        ),
        (
            expression("client.clusterlink.net/labels./x", "Exists", &json!([])),
            "which is no label key",
        ),
        (
            expression("client.clusterlink.net/labels.x", "In", &json!(["a b"])),
            "the value \"a b\"",
        ),
        (
            json!([{"workloadSelector": {"matchLabels": {key: "-"}}}]),
            "the value \"-\"",
        ),
    ] {
        let error = translated("allow", &from, &everything()).unwrap_err();
        assert!(error.message.contains(told), "{}", error.message);
    }
    let error = translated("allow", &everything(), &json!([])).unwrap_err();
    assert!(
        error.message.contains("spec.to is empty"),
        "{}",
        error.message
    );
}

#[test]
fn names_may_be_longer_than_label_values() {
    let long = format!("{}.example.com", "a".repeat(60));
    let from = json!([{"workloadSelector": {"matchLabels": {"peer.clusterlink.net/name": long}}}]);
    assert!(translated("allow", &from, &everything()).is_ok());
    let label =
        json!([{"workloadSelector": {"matchLabels": {"peer.clusterlink.net/labels.x": long}}}]);
    assert!(translated("allow", &label, &everything()).is_err());
}

#[test]
fn client_attributes_without_a_peer_are_warned_of() {
    let client =
        json!([{"workloadSelector": {"matchLabels": {"client.clusterlink.net/namespace": "a"}}}]);
    let both = json!([{"workloadSelector": {"matchLabels": {
        "client.clusterlink.net/namespace": "a", "peer.clusterlink.net/name": "east",
    }}}]);
    for (from, warned) in [(&client, true), (&both, false), (&everything(), false)] {
        let valid = translated("allow", from, &everything()).unwrap();
        assert_eq!(
            !valid.warnings.is_empty(),
            warned,
            "{from}: {:?}",
            valid.warnings
        );
    }
}

#[test]
fn a_key_that_is_never_set_is_warned_of() {
    let wrong = expression("client.clusterlink.net/sa", "NotIn", &json!(["a"]));
    let valid = translated("allow", &everything(), &wrong).unwrap();
    assert!(
        valid.warnings[0].contains("client.clusterlink.net/sa"),
        "{:?}",
        valid.warnings
    );
    let export = expression("export.clusterlink.net/name", "In", &json!(["a"]));
    assert_eq!(
        translated("allow", &export, &everything())
            .unwrap()
            .warnings
            .len(),
        1
    );
    assert!(
        translated("allow", &everything(), &export)
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn a_finding_says_what_stays_in_force() {
    let why = translated("allow", &json!([]), &everything()).unwrap_err();
    let kept = invalid(&name(), &why, Some(Action::Deny));
    assert!(
        kept.message
            .contains("AccessPolicy ns/rule: spec.from is empty"),
        "{}",
        kept.message
    );
    assert!(kept.message.contains("stays in force"), "{}", kept.message);
    assert_eq!(kept.reason, reasons::DENY_KEPT);
    let nothing = invalid(&name(), &why, None);
    assert!(
        nothing.message.contains("nothing is in force"),
        "{}",
        nothing.message
    );
    assert_eq!(nothing.reason, reasons::POLICY_INVALID);
}
