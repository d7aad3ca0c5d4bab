use clusterlink_crds::conditions::{
    EXPORT_VALID, IMPORT_SERVICE_VALID, IMPORT_TARGET_PORT_VALID, POLICY_VALID, reasons,
};
use clusterlink_model::{Action, Backend};

use super::*;

/// Which condition of which object a row is about.
enum On {
    Export,
    Import(&'static str, &'static str),
    Policy,
    Peer(&'static str),
    Workload,
}

impl On {
    fn find(&self, status: &ControllerStatus) -> Option<Condition> {
        let (conditions, kind) = match self {
            Self::Export => (status.exports.first()?.conditions.clone(), EXPORT_VALID),
            Self::Import(at, kind) => {
                let import = status
                    .imports
                    .iter()
                    .find(|import| import.name == name(at))?;
                (import.conditions.clone(), *kind)
            }
            Self::Policy => (status.policies.first()?.conditions.clone(), POLICY_VALID),
            Self::Peer(at) => {
                let peer = status.peers.iter().find(|peer| peer.name == name(at))?;
                (peer.conditions.clone(), "PeerValid")
            }
            Self::Workload => (
                status.workloads.first()?.conditions.clone(),
                "WorkloadValid",
            ),
        };
        conditions
            .into_iter()
            .find(|condition| condition.kind == kind)
    }
}

/// What is wrong at first, and the one document that puts it right.
struct Row {
    on: On,
    wrong: Vec<Value>,
    reason: &'static str,
    message: &'static str,
    cure: Cure,
}

enum Cure {
    Apply(Value),
    Delete(Value),
}

fn merge_import(merge: &str) -> Value {
    let mut document = import("ns/web", 80, 0);
    document["metadata"]["labels"] = json!({"import.clusterlink.net/merge": merge});
    document
}

fn rows() -> Vec<Row> {
    let row = |on, wrong, reason, message, cure| Row {
        on,
        wrong,
        reason,
        message,
        cure,
    };
    vec![
        row(
            On::Export,
            vec![export("ns/web", "", 80), service("other/web", 80)],
            reasons::SERVICE_NOT_FOUND,
            "Export ns/web: no Service and no Import is named ns/web: create it",
            Cure::Apply(service("ns/web", 80)),
        ),
        row(
            On::Export,
            vec![export("ns/web", "api", 80), service("ns/api", 81)],
            reasons::PORT_NOT_FOUND,
            "Service ns/api has no port 80 (it has 81/TCP)",
            Cure::Apply(service("ns/api", 80)),
        ),
        row(
            On::Export,
            vec![export("ns/web", "api.other", 80)],
            reasons::SERVICE_NOT_FOUND,
            "set spec.host to one in namespace ns",
            Cure::Apply(service("ns/api.other", 80)),
        ),
        row(
            On::Export,
            vec![export("ns/web", "other/api", 80), service("ns/api", 80)],
            reasons::HOST_INVALID,
            "\"other/api\", which cannot be the name of a Service",
            Cure::Apply(export("ns/web", "api", 80)),
        ),
        row(
            On::Export,
            vec![export("ns/web", "far", 80)],
            reasons::SERVICE_NOT_FOUND,
            "no Import is named ns/far",
            Cure::Apply(import("ns/far", 80, 0)),
        ),
        row(
            On::Export,
            vec![export("ns/web", "far", 80), import("ns/far", 81, 0)],
            reasons::PORT_NOT_FOUND,
            "Import ns/far has port 81, not 80",
            Cure::Apply(import("ns/far", 80, 0)),
        ),
        row(
            On::Export,
            vec![export("ns/x", "web", 80), merge_import("true")],
            reasons::IMPORT_INVALID,
            "Import ns/web is not valid itself",
            Cure::Apply(merge_import("false")),
        ),
        row(
            On::Import("ns/web", IMPORT_SERVICE_VALID),
            vec![import("ns/web", 80, 0), service("ns/web", 80)],
            reasons::SERVICE_NOT_OWNED,
            "Import ns/web: a Service ns/web exists that was not made for this Import",
            Cure::Delete(service("ns/web", 80)),
        ),
        row(
            On::Import("ns/web", IMPORT_SERVICE_VALID),
            vec![merge_import("true")],
            reasons::MERGE_UNSUPPORTED,
            "remove the label",
            Cure::Apply(import("ns/web", 80, 0)),
        ),
        row(
            On::Import("ns/b", IMPORT_TARGET_PORT_VALID),
            vec![import("ns/a", 80, 20_000), import("ns/b", 80, 20_000)],
            reasons::TARGET_PORT_CONFLICT,
            "Import ns/b: target port 20000 is held by import ns/a",
            Cure::Delete(import("ns/a", 80, 20_000)),
        ),
        row(
            On::Import("ns/b", IMPORT_TARGET_PORT_VALID),
            vec![import("ns/a", 80, 20_000), import("ns/b", 80, 20_000)],
            reasons::TARGET_PORT_CONFLICT,
            "held by import ns/a",
            Cure::Apply(import("ns/a", 80, 20_001)),
        ),
        row(
            On::Import("ns/a", IMPORT_TARGET_PORT_VALID),
            vec![import("ns/a", 80, 80)],
            reasons::TARGET_PORT_RESERVED,
            "target port 80 is below 1024",
            Cure::Apply(import("ns/a", 80, 1024)),
        ),
        row(
            On::Import("ns/a", IMPORT_TARGET_PORT_VALID),
            vec![import("ns/a", 80, 30_000)],
            reasons::TARGET_PORT_RESERVED,
            "target port 30000 is in the NodePort range 30000-32767",
            Cure::Apply(import("ns/a", 80, 0)),
        ),
        row(
            On::Import("ns/a", IMPORT_TARGET_PORT_VALID),
            vec![import("ns/a", 80, 4443)],
            reasons::TARGET_PORT_RESERVED,
            "target port 4443 is the agent's own",
            Cure::Apply(import("ns/a", 80, 0)),
        ),
        row(
            On::Policy,
            vec![policy("AccessPolicy", "ns/rule", "allow", false)],
            reasons::WORKLOAD_SET_UNKNOWN,
            "AccessPolicy ns/rule: spec.to[0].workloadSets names \"gold\"",
            Cure::Apply(policy("AccessPolicy", "ns/rule", "allow", true)),
        ),
        row(
            On::Policy,
            vec![policy("PrivilegedAccessPolicy", "/rule", "deny", false)],
            reasons::WORKLOAD_SET_UNKNOWN,
            "PrivilegedAccessPolicy rule: ",
            Cure::Apply(policy("PrivilegedAccessPolicy", "/rule", "deny", true)),
        ),
        row(
            On::Peer("b/east"),
            vec![
                document("Peer", "a/east", json!({"spec": {"gateways": []}})),
                document("Peer", "b/east", json!({"spec": {"gateways": []}})),
            ],
            reasons::DUPLICATE,
            "Peer b/east: a/east describes the same peer and counts",
            Cure::Delete(document(
                "Peer",
                "a/east",
                json!({"spec": {"gateways": []}}),
            )),
        ),
        row(
            On::Peer("a/east"),
            vec![document(
                "Peer",
                "a/east",
                json!({"spec": {"gateways": [{"host": "a b", "port": 1}]}}),
            )],
            reasons::GATEWAY_INVALID,
            "spec.gateways[0].host is \"a b\"",
            Cure::Apply(document(
                "Peer",
                "a/east",
                json!({"spec": {"gateways": []}}),
            )),
        ),
        row(
            On::Workload,
            vec![document(
                "Pod",
                "ns/web",
                json!({"metadata": {"annotations": {"clusterlink.net/cgroup": "../x"}}}),
            )],
            "InvalidField",
            "Pod ns/web: annotation clusterlink.net/cgroup is \"../x\"",
            Cure::Apply(document(
                "Pod",
                "ns/web",
                json!({"metadata": {"annotations": {"clusterlink.net/cgroup": "x"}}}),
            )),
        ),
    ]
}

#[test]
fn every_condition_is_false_with_the_cure_and_turns_true_by_itself() {
    for row in rows() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(&directory);
        config.own_ports.insert(4443, "other peers".to_owned());
        let mut harness = Harness::empty(&config);
        for document in &row.wrong {
            harness.apply(document);
        }
        let wrong = row.on.find(&harness.status()).expect(row.message);
        assert_eq!(wrong.status, ConditionStatus::False, "{}", row.message);
        assert_eq!(wrong.reason, row.reason, "{}", wrong.message);
        assert!(
            wrong.message.contains(row.message),
            "{} / {}",
            wrong.message,
            row.message
        );

        match &row.cure {
            Cure::Apply(document) => harness.apply(document),
            Cure::Delete(document) => harness.delete(document),
        }
        let right = row.on.find(&harness.status()).expect(row.message);
        assert_eq!(
            right.status,
            ConditionStatus::True,
            "{} / {}",
            row.message,
            right.message
        );
        assert!(right.last_transition_time >= wrong.last_transition_time);
    }
}

#[test]
fn an_invalid_object_is_not_handed_out_or_says_that_nothing_backs_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::empty(&config(&directory));
    harness.apply(&export("ns/web", "", 80));
    let backend = &harness.seen.exports[&name("ns/web")].backend;
    assert!(
        matches!(backend, Backend::Unavailable(why) if why.contains("ns/web")),
        "{backend:?}"
    );
    harness.apply(&merge_import("true"));
    assert!(harness.seen.imports.is_empty());
    assert!(harness.status().imports[0].addresses.is_empty());
}

#[test]
fn an_export_follows_its_service_and_slices() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::empty(&config(&directory));
    let endpoints = |harness: &Harness| match &harness.seen.exports[&name("ns/web")].backend {
        Backend::Endpoints(endpoints) => endpoints
            .iter()
            .map(|endpoint| endpoint.address.to_string())
            .collect(),
        other => vec![format!("{other:?}")],
    };
    harness.apply(&export("ns/web", "api", 80));
    harness.apply(&service("ns/api", 80));
    assert!(endpoints(&harness).is_empty());
    harness.apply(&slice("ns/s1", "api", &["10.0.0.1"]));
    assert_eq!(endpoints(&harness), ["10.0.0.1:8080"]);
    // A slice may move to another Service.
    harness.apply(&slice("ns/s1", "other", &["10.0.0.1"]));
    assert!(endpoints(&harness).is_empty());
    harness.apply(&slice("ns/s2", "api", &["10.0.0.2"]));
    assert_eq!(endpoints(&harness), ["10.0.0.2:8080"]);
    harness.delete(&slice("ns/s2", "api", &[]));
    assert!(endpoints(&harness).is_empty());
    harness.apply(&slice("elsewhere/s1", "api", &["10.0.0.3"]));
    assert!(endpoints(&harness).is_empty());
    harness.delete(&export("ns/web", "api", 80));
    assert!(harness.seen.exports.is_empty());
    assert!(harness.status().exports.is_empty());
}

#[test]
fn an_invalid_policy_is_never_wider_than_the_last_valid_one() {
    for (kind, at) in [
        ("AccessPolicy", "ns/rule"),
        ("PrivilegedAccessPolicy", "/rule"),
    ] {
        let in_force = |harness: &Harness| harness.seen.policies.values().next().map(|p| p.action);
        let directory = tempfile::tempdir().unwrap();
        let mut harness = Harness::empty(&config(&directory));
        harness.apply(&policy(kind, at, "allow", true));
        assert_eq!(in_force(&harness), Some(Action::Allow));
        harness.apply(&policy(kind, at, "allow", false));
        assert_eq!(in_force(&harness), None, "an allow is withdrawn");

        harness.apply(&policy(kind, at, "deny", true));
        harness.apply(&policy(kind, at, "deny", false));
        assert_eq!(
            in_force(&harness),
            Some(Action::Deny),
            "a deny stays in force"
        );
        harness.apply(&policy(kind, at, "allow", false));
        assert_eq!(
            in_force(&harness),
            Some(Action::Deny),
            "whatever the invalid one says"
        );
        let status = harness.status();
        assert_eq!(status.policies[0].in_force, Some(Action::Deny));
        assert!(status.policies[0].stale);
        assert_eq!(
            condition(&status.policies[0].conditions, POLICY_VALID).reason,
            reasons::DENY_KEPT
        );

        harness.apply(&policy(kind, at, "allow", true));
        assert_eq!(in_force(&harness), Some(Action::Allow));
        harness.apply(&policy(kind, at, "deny", true));
        harness.delete(&policy(kind, at, "deny", true));
        assert_eq!(in_force(&harness), None, "a deleted deny is gone");
        harness.apply(&policy(kind, at, "deny", false));
        assert_eq!(in_force(&harness), None);
    }
}

#[test]
fn imports_in_two_namespaces_are_independent() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::empty(&config(&directory));
    harness.apply(&import("a/web", 80, 0));
    harness.apply(&import("b/web", 80, 0));
    let [a, b] = ["a/web", "b/web"].map(|at| harness.seen.imports[&name(at)].clone());
    assert_ne!(a.addresses, b.addresses);
    assert_ne!(a.target_port, b.target_port);
    harness.delete(&import("a/web", 80, 0));
    assert_eq!(harness.seen.imports[&name("b/web")], b);
}

#[test]
fn an_import_gets_an_address_once_another_gives_one_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(&directory);
    // One of the four can be given: not the network's, nor the gateway's, nor the last.
    config.service_cidrs = vec!["10.1.0.0/30".parse().unwrap()];
    let mut harness = Harness::empty(&config);
    harness.apply(&import("ns/a", 80, 0));
    harness.apply(&import("ns/b", 80, 0));
    let status = harness.status();
    let starved = status
        .imports
        .iter()
        .find(|import| import.addresses.is_empty())
        .unwrap();
    let why = condition(&starved.conditions, IMPORT_SERVICE_VALID);
    assert_eq!(why.reason, reasons::ADDRESSES_EXHAUSTED);
    assert!(why.message.contains("10.1.0.0/30"), "{}", why.message);
    assert_eq!(harness.seen.imports.len(), 1);
    harness.delete(&import("ns/a", 80, 0));
    assert!(harness.seen.imports.contains_key(&name("ns/b")));
    let status = harness.status();
    let why = condition(&status.imports[0].conditions, IMPORT_SERVICE_VALID);
    assert_eq!(why.status, ConditionStatus::True);
}

#[test]
fn a_problem_of_the_source_marks_the_object_stale() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::empty(&config(&directory));
    harness.apply(&import("ns/web", 80, 0));
    let before = harness.status();
    assert!(!before.imports[0].stale);
    harness.problems(vec![problem(Some("Import"), Some("ns/web"))]);
    let after = harness.status();
    assert!(after.imports[0].stale && after.generation > before.generation);
    harness.problems(vec![]);
    assert!(!harness.status().imports[0].stale);
}

#[test]
fn the_status_is_shared_until_something_changes() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::empty(&config(&directory));
    harness.apply(&import("ns/web", 80, 0));
    let before = harness.status();
    harness.apply(&import("ns/web", 80, 0));
    assert!(Arc::ptr_eq(&before, &harness.status()));
    harness.apply(&import("ns/web", 81, 0));
    let after = harness.status();
    assert!(after.generation > before.generation);
    // The condition did not change, so neither did its time.
    assert_eq!(before.imports[0].conditions, after.imports[0].conditions);
}
