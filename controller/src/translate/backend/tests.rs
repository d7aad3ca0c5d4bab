#![expect(
    clippy::needless_pass_by_value,
    reason = "literals read best as plain arguments"
)]

use serde_json::{Value, json};

use super::*;

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec}))
        .unwrap()
}

fn slice(ports: Value, endpoints: Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web-1",
            "namespace": "ns",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    }))
    .unwrap()
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn dialled(service: &Service, number: u16, slices: &[EndpointSlice]) -> Vec<String> {
    match resolve(service, port(number), slices).unwrap().backend {
        Backend::Endpoints(endpoints) => endpoints
            .iter()
            .map(|endpoint| endpoint.address.to_string())
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_port_is_found_in_the_slices_by_its_name_whatever_its_target() {
    let service = service(json!({"ports": [
        {"name": "http", "port": 80, "targetPort": "web"},
        {"name": "metrics", "port": 9090, "targetPort": 9999},
    ]}));
    let slices = [
        slice(
            json!([{"name": "http", "port": 8080}, {"name": "metrics", "port": 9999}]),
            json!([{"addresses": ["10.0.0.1"]}]),
        ),
        // A named target port may have another number on other pods.
        slice(
            json!([{"name": "http", "port": 8081}]),
            json!([{"addresses": ["10.0.0.2"]}]),
        ),
    ];
    assert_eq!(
        dialled(&service, 80, &slices),
        ["10.0.0.1:8080", "10.0.0.2:8081"]
    );
    assert_eq!(dialled(&service, 9090, &slices), ["10.0.0.1:9999"]);
}

#[test]
fn an_unnamed_port_meets_an_unnamed_port_and_an_open_number_is_the_target() {
    let with = |target: Value| service(json!({"ports": [{"port": 80, "targetPort": target}]}));
    let endpoints = json!([{"addresses": ["10.0.0.1"]}]);
    let numbered = [slice(json!([{"port": 8080}]), endpoints.clone())];
    assert_eq!(
        dialled(&with(json!(8080)), 80, &numbered),
        ["10.0.0.1:8080"]
    );
    let open = [slice(json!([{"name": ""}]), endpoints)];
    assert_eq!(dialled(&with(json!(7000)), 80, &open), ["10.0.0.1:7000"]);
    assert_eq!(dialled(&with(Value::Null), 80, &open), ["10.0.0.1:80"]);
    assert!(dialled(&with(json!("web")), 80, &open).is_empty());
}

#[test]
fn only_ready_endpoints_that_are_not_terminating_count() {
    let service = service(json!({"ports": [{"port": 80}]}));
    for (conditions, counts) in [
        (Value::Null, true),
        (json!({}), true),
        (json!({"ready": true}), true),
        (json!({"ready": false}), false),
        (json!({"ready": true, "terminating": true}), false),
        (json!({"terminating": true}), false),
        (json!({"ready": true, "terminating": false}), true),
    ] {
        let slices = [slice(
            json!([{"port": 80}]),
            json!([{"addresses": ["10.0.0.1"], "conditions": conditions}]),
        )];
        assert_eq!(
            dialled(&service, 80, &slices).len(),
            usize::from(counts),
            "{conditions}"
        );
    }
}

#[test]
fn endpoints_carry_node_and_zone_and_only_their_first_address() {
    let service = service(json!({"ports": [{"port": 80}]}));
    let slices = [slice(
        json!([{"port": 80}]),
        json!([{"addresses": ["fd00::1", "fd00::2"], "nodeName": "n1", "zone": "z1"}]),
    )];
    let resolved = resolve(&service, port(80), &slices).unwrap();
    let expected = Endpoint {
        address: "[fd00::1]:80".parse().unwrap(),
        node: Some("n1".into()),
        zone: Some("z1".into()),
    };
    assert_eq!(resolved.backend, Backend::Endpoints(vec![expected]));
}

#[test]
fn a_service_without_the_port_says_what_it_has() {
    for (ports, told) in [
        (json!([]), "has no ports: add port 80"),
        (json!([{"port": 81}]), "has no port 80 (it has 81/TCP)"),
        (
            json!([{"port": 80, "protocol": "UDP"}]),
            "has port 80 for UDP only",
        ),
        (
            json!([{"port": 80, "protocol": "SCTP"}]),
            "has port 80 for SCTP only",
        ),
    ] {
        let error = resolve(&service(json!({"ports": ports})), port(80), []).unwrap_err();
        assert!(error.message.contains(told), "{}", error.message);
        assert_eq!(error.reason, reasons::PORT_NOT_FOUND);
    }
    let both = json!({"ports": [{"port": 80, "protocol": "UDP"}, {"port": 80, "name": "tcp"}]});
    assert!(resolve(&service(both), port(80), []).is_ok());
}

#[test]
fn an_external_name_is_dialled_by_its_name() {
    let external = |name: &str, ports: Value| {
        service(json!({"type": "ExternalName", "externalName": name, "ports": ports}))
    };
    let expected = Backend::Name(HostPort {
        host: "db.example.com".into(),
        port: port(5432),
    });
    for ports in [Value::Null, json!([{"port": 5432}])] {
        let resolved = resolve(&external("db.example.com", ports), port(5432), []).unwrap();
        assert_eq!(resolved.backend, expected);
    }
    let other_port = resolve(
        &external("db.example.com", json!([{"port": 1}])),
        port(5432),
        [],
    );
    assert_eq!(other_port.unwrap_err().reason, reasons::PORT_NOT_FOUND);
    for bad in ["", "not a name", "http://x"] {
        let error = resolve(&external(bad, Value::Null), port(5432), []).unwrap_err();
        assert!(
            error.message.contains(&format!("{bad:?}")),
            "{}",
            error.message
        );
    }
}

#[test]
fn a_name_of_the_cluster_is_no_way_around_its_namespaces() {
    for (name, good) in [
        ("web.shop.svc", false),
        ("web.shop.svc.cluster.local", false),
        ("web.shop.SVC.cluster.test", false),
        ("web.shop", true),
        ("svc.example.com", true),
        ("web.svc.example.com", true),
        ("a.b.c.svc", true),
    ] {
        let external = service(json!({"type": "ExternalName", "externalName": name}));
        let resolved = resolve(&external, port(80), []);
        assert_eq!(resolved.is_ok(), good, "{name}");
        if let Err(error) = resolved {
            assert!(error.message.contains(name), "{}", error.message);
        }
    }
}

#[test]
fn our_own_slices_are_never_backends() {
    let mut slice = slice(json!([]), json!([]));
    assert_eq!(service_of(&slice), Some("web"));
    let labels = slice.metadata.labels.as_mut().unwrap();
    labels.insert(
        "endpointslice.kubernetes.io/managed-by".into(),
        "somebody.else".into(),
    );
    assert_eq!(service_of(&slice), Some("web"));
    let labels = slice.metadata.labels.as_mut().unwrap();
    labels.insert(
        "endpointslice.kubernetes.io/managed-by".into(),
        "clusterlink.net".into(),
    );
    assert_eq!(service_of(&slice), None);
}

#[test]
fn an_empty_result_is_explained() {
    let service = service(json!({"ports": [{"name": "http", "port": 80}]}));
    let one = |ports: Value, endpoints: Value| vec![slice(ports, endpoints)];
    for (slices, told) in [
        (
            vec![],
            "no EndpointSlice carries the label kubernetes.io/service-name",
        ),
        (
            one(json!([{"port": 80}]), json!([{"addresses": ["10.0.0.1"]}])),
            "named \"http\"",
        ),
        (
            one(
                json!([{"name": "http", "port": 80}]),
                json!([{"addresses": ["web.example"]}]),
            ),
            "\"web.example\", which is no IP address",
        ),
        (
            one(
                json!([{"name": "http", "port": 80}]),
                json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]),
            ),
            "no endpoint is ready (1 are not)",
        ),
    ] {
        let resolved = resolve(&service, port(80), &slices).unwrap();
        assert_eq!(resolved.backend, Backend::Endpoints(vec![]), "{told}");
        assert!(resolved.remark.contains(told), "{}", resolved.remark);
    }
}
