use super::*;

fn wanted(import: &ObjectName) -> Wanted<'_> {
    Wanted {
        import,
        uid: "u1",
        port: 80,
        target_port: NonZeroU16::new(9000),
    }
}

/// The Service as the API server gives it back.
fn made(import: &ObjectName) -> Value {
    let mut service = wanted(import).create(&[]);
    service["metadata"]["uid"] = "s1".into();
    service["metadata"]["resourceVersion"] = "7".into();
    service["spec"]["clusterIP"] = "10.96.0.7".into();
    service["spec"]["clusterIPs"] = json!(["10.96.0.7", "fd00::7"]);
    service
}

fn service(value: Value) -> Service {
    serde_json::from_value(value).unwrap()
}

#[test]
fn what_was_made_needs_no_correction_and_neither_does_what_users_add() {
    let import = ObjectName::new("ns", "web");
    let mut value = made(&import);
    assert_eq!(wanted(&import).correct(&service(value.clone())), None);
    value["metadata"]["labels"]["team"] = "a".into();
    value["metadata"]["annotations"] = json!({"note": "b"});
    value["metadata"]["finalizers"] = json!(["their/own", "clusterlink.net/steering"]);
    assert_eq!(wanted(&import).correct(&service(value.clone())), None);
    let addresses: Vec<String> = addresses(&service(value))
        .iter()
        .map(IpAddr::to_string)
        .collect();
    assert_eq!(addresses, ["10.96.0.7", "fd00::7"]);
}

#[test]
fn each_drift_is_corrected_by_a_patch_of_what_differs_alone() {
    let import = ObjectName::new("ns", "web");
    let right_spec = json!({
        "type": "ClusterIP", "externalName": null, "ipFamilyPolicy": "PreferDualStack", "selector": null,
        "ports": [{"port": 80, "targetPort": 9000, "protocol": "TCP"}],
    });
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str, Value); 10] = [
        (
            "selector",
            |s| s["spec"]["selector"] = json!({"a": "b"}),
            "/spec",
            right_spec.clone(),
        ),
        (
            "port",
            |s| s["spec"]["ports"][0]["port"] = 81.into(),
            "/spec",
            right_spec.clone(),
        ),
        (
            "target port",
            |s| s["spec"]["ports"][0]["targetPort"] = "web".into(),
            "/spec",
            right_spec.clone(),
        ),
        (
            "port name",
            |s| s["spec"]["ports"][0]["name"] = "web".into(),
            "/spec",
            right_spec.clone(),
        ),
        (
            "protocol",
            |s| s["spec"]["ports"][0]["protocol"] = "UDP".into(),
            "/spec",
            right_spec.clone(),
        ),
        (
            "families",
            |s| s["spec"]["ipFamilyPolicy"] = "SingleStack".into(),
            "/spec",
            right_spec.clone(),
        ),
        (
            "type",
            |s| s["spec"]["type"] = "NodePort".into(),
            "/spec",
            right_spec.clone(),
        ),
        (
            "label",
            |s| s["metadata"]["labels"]["clusterlink.net/import-name"] = "x".into(),
            "/metadata/labels",
            json!({"clusterlink.net/import-name": "web"}),
        ),
        (
            "finalizer",
            |s| s["metadata"]["finalizers"] = json!(["their/own"]),
            "/metadata/finalizers",
            json!(["their/own", "clusterlink.net/steering"]),
        ),
        (
            "owner",
            |s| s["metadata"]["ownerReferences"][0]["uid"] = "u0".into(),
            "/metadata/ownerReferences/0/uid",
            "u1".into(),
        ),
    ];
    for (what, change, at, wanted_value) in cases {
        let mut value = made(&import);
        change(&mut value);
        let patch = wanted(&import).correct(&service(value)).unwrap();
        assert_eq!(patch.pointer(at), Some(&wanted_value), "{what}");
        assert_eq!(patch["metadata"]["resourceVersion"], "7", "{what}");
        let parts = patch.as_object().unwrap().len() + patch["metadata"].as_object().unwrap().len();
        assert_eq!(parts, 4, "{what}: nothing else is patched: {patch}");
    }
}

#[test]
fn a_controller_that_an_adopted_service_has_stays_its_only_one() {
    let import = ObjectName::new("ns", "web");
    let mut value = made(&import);
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c1", "controller": true});
    value["metadata"]["ownerReferences"] = json!([theirs]);
    let patch = wanted(&import).correct(&service(value)).unwrap();
    let owners = patch["metadata"]["ownerReferences"].as_array().unwrap();
    assert_eq!((owners.len(), &owners[0]), (2, &theirs));
    assert_eq!(owners[1]["controller"], false);
}

#[test]
fn addresses_of_before_are_asked_for_again() {
    let import = ObjectName::new("ns", "web");
    let addresses = ["10.96.0.7".to_owned(), "fd00::7".to_owned()];
    let created = wanted(&import).create(&addresses);
    assert_eq!(created["spec"]["clusterIP"], "10.96.0.7");
    assert_eq!(created["spec"]["clusterIPs"], json!(addresses));
    assert!(
        wanted(&import).create(&[])["spec"]
            .get("clusterIPs")
            .is_none()
    );
}

#[test]
fn who_is_let_go_loses_the_reference_at_once_and_the_finalizer_when_the_address_is_free() {
    let import = ObjectName::new("ns", "web");
    let mut value = made(&import);
    let first = let_go(&service(value.clone()), false).unwrap();
    assert_eq!(first["metadata"]["ownerReferences"], json!([]));
    assert!(first["metadata"].get("finalizers").is_none());
    value["metadata"]["ownerReferences"] = json!([]);
    assert_eq!(let_go(&service(value.clone()), false), None);
    let last = let_go(&service(value.clone()), true).unwrap();
    assert_eq!(last["metadata"]["finalizers"], json!([]));
    assert_eq!(finalize(&service(value.clone())), Some(last));
    value["metadata"]["finalizers"] = json!([]);
    assert_eq!(let_go(&service(value), true), None);
}
