use serde_json::{Value, json};

use super::*;

fn import(metadata: &Value, spec: &Value) -> clusterlink_crds::Import {
    serde_json::from_value(json!({
        "apiVersion": "clusterlink.net/v1alpha1",
        "kind": "Import",
        "metadata": metadata,
        "spec": spec,
    }))
    .unwrap()
}

fn source_of(peer: &str, name: &str, namespace: &str) -> Value {
    json!({"peer": peer, "exportName": name, "exportNamespace": namespace})
}

#[test]
fn an_import_that_cannot_have_an_address_says_why() {
    let plain = json!({"port": 80, "sources": []});
    let long = "x".repeat(64);
    for (name, metadata, spec, foreign, told) in [
        ("web", json!({}), &plain, false, None),
        (
            "9web",
            json!({}),
            &plain,
            false,
            Some("\"9web\" is no Service name"),
        ),
        (&long, json!({}), &plain, false, Some("at most 63")),
        ("we.b", json!({}), &plain, false, Some("is no Service name")),
        (
            "web",
            json!({}),
            &json!({"port": 0, "sources": []}),
            false,
            Some("spec.port is 0"),
        ),
        (
            "web",
            json!({"labels": {"import.clusterlink.net/merge": "true"}}),
            &plain,
            false,
            Some("import.clusterlink.net/merge"),
        ),
        (
            "web",
            json!({"labels": {"import.clusterlink.net/merge": "false"}}),
            &plain,
            false,
            None,
        ),
        (
            "web",
            json!({}),
            &plain,
            true,
            Some("a Service ns/web exists"),
        ),
    ] {
        let finding = unfit(
            &ObjectName::new("ns", name),
            &import(&metadata, spec),
            foreign,
        );
        assert_eq!(
            finding.is_some(),
            told.is_some(),
            "{name} {metadata} {spec}"
        );
        if let (Some(finding), Some(told)) = (finding, told) {
            assert!(finding.message.contains(told), "{}", finding.message);
            assert!(
                finding.message.contains(&format!("Import ns/{name}")),
                "{}",
                finding.message
            );
        }
    }
}

#[test]
fn invalid_sources_are_left_out_and_named() {
    let spec = json!({"port": 80, "lbScheme": "round-robin", "sources": [
        source_of("", "web", "ns"),
        source_of("east", "", "ns"),
        source_of("east", "web", ""),
        source_of("not a peer", "web", "ns"),
        source_of("east", "Web", "ns"),
        source_of("east", "web", "n.s"),
        source_of("East", "web", "shop"),
    ]});
    let object = import(&json!({"labels": {"tier": "gold"}}), &spec);
    let reasons: Vec<Option<String>> = sources(&object).into_iter().map(|s| s.invalid).collect();
    for (reason, told) in reasons.iter().zip([
        "peer is empty",
        "exportName is empty",
        "exportNamespace is empty",
        "\"not a peer\" is not a DNS name",
        "exportName is \"Web\"",
        "exportNamespace is \"n.s\"",
    ]) {
        assert!(
            reason.as_ref().is_some_and(|reason| reason.contains(told)),
            "{reason:?}: {told}"
        );
    }
    assert_eq!(reasons[6], None);
    let name = ObjectName::new("ns", "web");
    let translated = translate(&name, &object, vec![], None).unwrap();
    assert_eq!(translated.sources.len(), 1);
    assert_eq!(translated.sources[0].peer.as_str(), "east");
    assert_eq!(translated.sources[0].export.to_string(), "shop/web");
    assert_eq!(translated.labels["tier"], "gold");
    assert_eq!(translated.scheme, LbScheme::RoundRobin);
}

#[test]
fn an_import_that_leads_nowhere_says_so() {
    let name = ObjectName::new("ns", "web");
    let wrong = source_of("", "web", "ns");
    let right = source_of("east", "web", "ns");
    for (row, sources, remark, told) in [
        ("no sources", vec![], "", "spec.sources is empty"),
        (
            "none that is valid",
            vec![wrong.clone()],
            "",
            "no source is valid",
        ),
        ("one that is valid", vec![wrong, right], "", ""),
        ("something else to say", vec![], "ignored", "ignored"),
    ] {
        let import = import(&json!({}), &json!({"port": 80, "sources": sources}));
        let finding = addressable(&name, &import, remark.to_owned());
        assert!(finding.holds, "{row}");
        assert!(finding.message.contains(told), "{row}: {finding:?}");
        assert_eq!(finding.message.is_empty(), told.is_empty(), "{row}");
    }
}
