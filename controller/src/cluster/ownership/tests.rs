use serde_json::{Value, json};

use super::*;

fn service(change: impl FnOnce(&mut Value)) -> Service {
    let mut service = json!({
        "metadata": {
            "name": "web", "namespace": "ns",
            "labels": {
                "app.kubernetes.io/managed-by": "clusterlink.net",
                "clusterlink.net/import-name": "web",
                "clusterlink.net/import-namespace": "ns",
            },
            "finalizers": ["clusterlink.net/steering"],
            "ownerReferences": [{
                "apiVersion": "clusterlink.net/v1alpha1", "kind": "Import", "name": "web", "uid": "u1",
            }],
        },
        "spec": {"clusterIP": "10.96.0.7"},
    });
    change(&mut service);
    serde_json::from_value(service).unwrap()
}

fn unclaimed(service: &mut Value) {
    service["metadata"]["finalizers"] = Value::Null;
    service["metadata"]["ownerReferences"] = Value::Null;
}

fn managed_by(manager: &str) -> impl FnOnce(&mut Value) {
    move |service| service["metadata"]["labels"]["app.kubernetes.io/managed-by"] = manager.into()
}

#[test]
fn labels_reference_and_finalizer_say_whose_a_service_is() {
    let import = ObjectName::new("ns", "web");
    let cases: [(&str, Service, Option<&str>, &str); 15] = [
        ("as we made it", service(|_| {}), None, "Ours"),
        (
            "with a foreign slice since",
            service(|_| {}),
            Some("s"),
            "Ours",
        ),
        (
            "with a selector since",
            service(|s| s["spec"]["selector"] = json!({"a": "b"})),
            None,
            "Ours",
        ),
        (
            "its Import was made anew",
            service(|s| s["metadata"]["ownerReferences"][0]["uid"] = "u2".into()),
            None,
            "Ours",
        ),
        (
            "the finalizer was taken off",
            service(|s| s["metadata"]["finalizers"] = Value::Null),
            None,
            "Ours",
        ),
        (
            "being deleted",
            service(|s| s["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()),
            None,
            "Leaving",
        ),
        (
            "managed-by changed",
            service(managed_by("helm")),
            None,
            "HandedAway",
        ),
        (
            "managed-by removed",
            service(|s| s["metadata"]["labels"] = json!({})),
            None,
            "HandedAway",
        ),
        (
            "labelled by its owner",
            service(unclaimed),
            None,
            "Adoptable",
        ),
        (
            "labelled, with a selector",
            service(|s| {
                unclaimed(s);
                s["spec"]["selector"] = json!({"a": "b"});
            }),
            None,
            reasons::SERVICE_HAS_SELECTOR,
        ),
        (
            "labelled, with a foreign slice",
            service(unclaimed),
            Some("s"),
            reasons::SERVICE_HAS_FOREIGN_SLICES,
        ),
        (
            "labelled, headless",
            service(|s| {
                unclaimed(s);
                s["spec"]["clusterIP"] = "None".into();
            }),
            None,
            reasons::SERVICE_HEADLESS,
        ),
        (
            "labelled for another Import",
            service(|s| {
                unclaimed(s);
                s["metadata"]["labels"]["clusterlink.net/import-name"] = "api".into();
            }),
            None,
            "Foreign",
        ),
        (
            "somebody else's",
            service(|s| {
                unclaimed(s);
                s["metadata"]["labels"] = json!({"app": "web"});
            }),
            None,
            "Foreign",
        ),
        (
            "somebody else's, managed by helm",
            service(|s| {
                unclaimed(s);
                managed_by("helm")(s);
            }),
            Some("s"),
            "Foreign",
        ),
    ];
    for (what, service, slice, wanted) in cases {
        let found = match standing(&import, &service, slice) {
            Standing::NotAdoptable { reason, message } => {
                assert!(message.contains("Service ns/web"), "{message}");
                reason.to_owned()
            }
            other => format!("{other:?}"),
        };
        assert_eq!(found, wanted, "{what}");
    }
}

#[test]
fn a_slice_names_its_import_only_within_its_namespace() {
    let slice = |namespace: &str| {
        let metadata = json!({"namespace": "ns", "labels": {
            "endpointslice.kubernetes.io/managed-by": "clusterlink.net",
            "clusterlink.net/import-name": "web",
            "clusterlink.net/import-namespace": namespace,
        }});
        import_of_slice(&serde_json::from_value(metadata).unwrap())
    };
    assert_eq!(slice("ns"), Some(ObjectName::new("ns", "web")));
    assert_eq!(slice("other"), None);
}
