use serde_json::{Value, json};

use super::*;

fn translated(pod: Value) -> Option<(Workload, Finding)> {
    let pod: Pod = serde_json::from_value(pod).unwrap();
    translate(&ObjectName::new("ns", "web"), &pod)
}

fn annotated(path: &str) -> Value {
    json!({"metadata": {"annotations": {"clusterlink.net/cgroup": path}}})
}

#[test]
fn a_pod_gives_its_labels_account_and_addresses() {
    let (workload, finding) = translated(json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"serviceAccountName": "robot", "containers": []},
        "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    }))
    .unwrap();
    assert!(finding.holds);
    assert_eq!(&*workload.attributes.namespace, "ns");
    assert_eq!(&*workload.attributes.service_account, "robot");
    assert_eq!(workload.attributes.labels["app"], "web");
    let shown: Vec<String> = workload.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.1", "fd00::1"]);
}

#[test]
fn the_service_account_is_default_when_absent_or_empty() {
    for spec in [
        json!(null),
        json!({"containers": []}),
        json!({"containers": [], "serviceAccountName": ""}),
    ] {
        let (workload, _) = translated(json!({"metadata": {}, "spec": spec})).unwrap();
        assert_eq!(&*workload.attributes.service_account, "default");
    }
}

#[test]
fn a_finished_pod_is_no_workload() {
    for (phase, present) in [
        ("Pending", true),
        ("Running", true),
        ("Unknown", true),
        ("Succeeded", false),
        ("Failed", false),
    ] {
        let pod = json!({"metadata": {}, "status": {"phase": phase}});
        assert_eq!(translated(pod).is_some(), present, "{phase}");
    }
}

#[test]
fn a_cgroup_stays_below_the_root() {
    for (written, used) in [
        ("system.slice/web.service", "system.slice/web.service"),
        ("/system.slice/web.service/", "system.slice/web.service"),
        ("a//./b", "a/b"),
        ("..a/b", "..a/b"),
    ] {
        let (workload, finding) = translated(annotated(written)).unwrap();
        assert_eq!(workload.cgroup.as_deref(), Some(used));
        assert!(finding.holds, "{}", finding.message);
    }
    for written in ["", "/", ".", "..", "a/../..", "/../x", "a\nb", "a\0b"] {
        let (workload, finding) = translated(annotated(written)).unwrap();
        assert_eq!(workload.cgroup, None, "{written:?}");
        assert!(
            !finding.holds && finding.message.contains(&format!("{written:?}")),
            "{written:?}"
        );
    }
}

#[test]
fn an_address_that_is_none_is_named_and_the_others_stay() {
    let (workload, finding) = translated(
        json!({"metadata": {}, "status": {"podIPs": [{"ip": "10.0.0.300"}, {"ip": "10.0.0.1"}]}}),
    )
    .unwrap();
    assert_eq!(workload.addresses.len(), 1);
    assert!(
        !finding.holds && finding.message.contains("10.0.0.300"),
        "{}",
        finding.message
    );
}

#[test]
fn a_pod_on_the_host_network_has_no_address_of_its_own() {
    let (workload, _) = translated(json!({
        "metadata": {},
        "spec": {"hostNetwork": true, "containers": []},
        "status": {"podIPs": [{"ip": "192.0.2.1"}]},
    }))
    .unwrap();
    assert!(workload.addresses.is_empty());
}
