use clusterlink_model::PeerName;
use clusterlink_proto::PeerReport;
use serde_json::{Value, json};

use super::*;

fn import(annotation: Option<&str>) -> Import {
    let mut import = json!({
        "apiVersion": "clusterlink.net/v1alpha1", "kind": "Import",
        "metadata": {"name": "web", "namespace": "ns"},
        "spec": {"port": 80, "sources": []},
    });
    if let Some(text) = annotation {
        import["metadata"]["annotations"] = json!({"import.clusterlink.net/merge-endpoints": text});
    }
    serde_json::from_value(import).unwrap()
}

fn service(spec: &Value) -> Service {
    serde_json::from_value(json!({"spec": spec})).unwrap()
}

fn endpoints(family: &str, count: usize) -> Arc<EndpointSlice> {
    let endpoints: Vec<_> = (0..count)
        .map(|n| json!({"addresses": [n.to_string()], "conditions": {"ready": n != 0}}))
        .collect();
    let slice = json!({"addressType": family, "endpoints": endpoints});
    Arc::new(serde_json::from_value(slice).unwrap())
}

#[test]
fn the_service_decides_whether_and_under_which_port_name_an_import_joins() {
    let name = ObjectName::new("ns", "web");
    let address = "10.96.0.7";
    let dual = ["IPv4", "IPv6"];
    let cases = [
        ("missing", None, Err(reasons::MERGE_SERVICE_NOT_FOUND)),
        (
            "headless",
            Some(json!({"clusterIP": "None", "ports": [{"port": 80}]})),
            Err(reasons::MERGE_SERVICE_HEADLESS),
        ),
        (
            "ExternalName",
            Some(json!({"type": "ExternalName", "externalName": "a.b", "ports": [{"port": 80}]})),
            Err(reasons::MERGE_SERVICE_HEADLESS),
        ),
        (
            "another port",
            Some(json!({"clusterIP": address, "ports": [{"port": 81}]})),
            Err(reasons::PORT_NOT_FOUND),
        ),
        (
            "UDP",
            Some(json!({"clusterIP": address, "ports": [{"port": 80, "protocol": "UDP"}]})),
            Err(reasons::PORT_NOT_FOUND),
        ),
        (
            "no name",
            Some(json!({"clusterIP": address, "ports": [{"port": 80}]})),
            Ok(("", vec![true])),
        ),
        (
            "named, dual stack",
            Some(
                json!({"clusterIP": address, "ipFamilies": dual, "ports": [{"port": 81}, {"port": 80, "name": "http"}]}),
            ),
            Ok(("http", vec![true, false])),
        ),
        (
            "NodePort, IPv6",
            Some(json!({"type": "NodePort", "clusterIP": "fd00::7", "ports": [{"port": 80}]})),
            Ok(("", vec![false])),
        ),
    ];
    for (what, spec, wanted) in cases {
        let service = spec.as_ref().map(service);
        let found = join(&name, &import(None), service.as_ref(), &[]);
        let found = found
            .as_ref()
            .map(|joined| (joined.port_name.as_str(), joined.families.clone()));
        assert_eq!(found.map_err(|(reason, _)| *reason), wanted, "{what}");
    }
}

#[test]
fn about_half_of_the_endpoints_are_agents() {
    // The first endpoint of each slice is not ready.
    for (annotation, ipv4, ipv6, wanted, remarks) in [
        (None, 0, 0, 2, false),
        (None, 2, 0, 2, false),
        (None, 6, 6, 5, false),
        (None, 3, 9, 8, false),
        (None, 40, 0, 16, false),
        (Some("1"), 6, 0, 1, false),
        (Some("40"), 6, 0, 40, false),
        (Some("0"), 6, 0, 5, true),
        (Some("many"), 6, 0, 5, true),
    ] {
        let others = [endpoints("IPv4", ipv4), endpoints("IPv6", ipv6)];
        let (count, remark) = count(&import(annotation), &others);
        assert_eq!(
            (count, !remark.is_empty()),
            (wanted, remarks),
            "{annotation:?} {ipv4} {ipv6}"
        );
    }
}

#[test]
fn a_source_is_usable_where_its_peer_is_reached() {
    let [east, west] = ["east", "west"].map(|name| PeerName::new(name).unwrap());
    let report = NodeReport {
        peers: [(&east, true), (&west, false)]
            .map(|(name, reachable)| PeerReport {
                name: name.clone(),
                reachable,
                rtt: None,
                last_seen_ms: None,
                software: None,
                labels: Default::default(),
                error: None,
            })
            .into(),
        ..NodeReport::default()
    };
    let from = |peer: &PeerName| Source {
        peer: peer.clone(),
        export: ObjectName::new("ns", "web"),
    };
    for (sources, wanted) in [
        (vec![], false),
        (vec![from(&west)], false),
        (vec![from(&west), from(&east)], true),
    ] {
        assert_eq!(is_usable(&sources, &report), wanted, "{sources:?}");
    }
}
