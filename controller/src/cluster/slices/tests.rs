use super::*;
use crate::cluster::fleet::tests::an_agent;

fn wanted<'a>(import: &'a ObjectName, agents: &'a [Agent]) -> Wanted<'a> {
    Wanted {
        import,
        uid: "u1",
        families: vec![true, false],
        port_name: "web",
        target_port: NonZeroU16::new(9000).unwrap(),
        endpoints: agents.iter().map(|agent| (agent, true)).collect(),
        left_out: Vec::new(),
    }
}

#[test]
fn a_slice_of_each_family_says_all_of_its_agents() {
    let import = ObjectName::new("ns", "web");
    let mut agents = vec![
        an_agent(1, Some("z1"), true),
        an_agent(2, None, true),
        an_agent(3, None, false),
    ];
    agents[1].terminating = true;
    agents[2].addresses.truncate(1);
    let slices = wanted(&import, &agents).slices();
    let value = serde_json::to_value(&slices).unwrap();
    let names: Vec<_> = slices
        .iter()
        .map(|s| s.metadata.name.as_deref().unwrap())
        .collect();
    assert_eq!(names, ["web-clusterlink-ipv4", "web-clusterlink-ipv6"]);
    assert_eq!(value[0]["addressType"], "IPv4");
    assert_eq!(
        value[0]["ports"],
        json!([{"name": "web", "port": 9000, "protocol": "TCP"}])
    );
    assert_eq!(
        value[0]["metadata"]["labels"],
        json!({
            "app.kubernetes.io/managed-by": "clusterlink.net",
            "clusterlink.net/import-name": "web",
            "clusterlink.net/import-namespace": "ns",
            "endpointslice.kubernetes.io/managed-by": "clusterlink.net",
            "kubernetes.io/service-name": "web",
        })
    );
    assert_eq!(
        value[0]["endpoints"],
        json!([
            {
                "addresses": ["192.0.0.1"], "nodeName": "n0001", "zone": "z1",
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "hints": {"forNodes": [{"name": "n0001"}], "forZones": [{"name": "z1"}]},
            },
            {
                "addresses": ["192.0.0.2"], "nodeName": "n0002",
                "conditions": {"ready": false, "serving": true, "terminating": true},
                "hints": {"forNodes": [{"name": "n0002"}]},
            },
            {
                "addresses": ["192.0.0.3"], "nodeName": "n0003",
                "conditions": {"ready": false, "serving": false, "terminating": false},
                "hints": {"forNodes": [{"name": "n0003"}]},
            },
        ])
    );
    // The third agent has no IPv6 address.
    assert_eq!(value[1]["endpoints"].as_array().unwrap().len(), 2);
}

#[test]
fn a_slice_holds_a_hundred_endpoints_and_an_empty_one_stays() {
    let import = ObjectName::new("ns", "web");
    for (count, sizes) in [
        (0, vec![0]),
        (1, vec![1]),
        (100, vec![100]),
        (101, vec![100, 1]),
        (250, vec![100, 100, 50]),
    ] {
        let agents: Vec<_> = (0..count).map(|n| an_agent(n, None, true)).collect();
        let slices = Wanted {
            families: vec![true],
            ..wanted(&import, &agents)
        }
        .slices();
        let found: Vec<_> = slices
            .iter()
            .map(|s| s.endpoints.as_ref().unwrap().len())
            .collect();
        assert_eq!(found, sizes);
        let names: BTreeSet<_> = slices.iter().map(|s| &s.metadata.name).collect();
        assert_eq!(names.len(), sizes.len());
    }
}

#[test]
fn slices_note_who_is_left_out_and_the_note_goes_with_the_last_one() {
    let import = ObjectName::new("ns", "web");
    let agents = [1, 2, 3].map(|number| an_agent(number, None, true));
    let left_out = |agents: &[Agent]| {
        let wanted = Wanted {
            left_out: agents.iter().collect(),
            ..wanted(&import, &[])
        };
        let slices = wanted.slices().into_iter();
        slices.map(Arc::new).collect::<Vec<_>>()
    };
    let (two, none) = (left_out(&agents[1..]), left_out(&[]));
    let annotations = two[1].metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["clusterlink.net/left-out"], "n0002,n0003");
    let nodes: Vec<_> = super::left_out(&two).into_iter().collect();
    assert_eq!(nodes, ["n0002".into(), "n0003".into()]);
    assert!(super::left_out(&none).is_empty());
    assert_eq!(none[0].metadata.annotations, None);

    let patch = correct(&two[0], &none[0]).unwrap();
    let gone = json!({"clusterlink.net/left-out": null});
    assert_eq!(patch["metadata"]["annotations"], gone);
    let patch = correct(&none[0], &two[0]).unwrap();
    let noted = json!({"clusterlink.net/left-out": "n0002,n0003"});
    assert_eq!(patch["metadata"]["annotations"], noted);

    let many: Vec<_> = (0..1000)
        .map(|number| an_agent(number, None, true))
        .collect();
    assert_eq!(super::left_out(&left_out(&many)).len(), MOST_NOTED);
}

#[test]
fn only_what_differs_is_corrected() {
    let import = ObjectName::new("ns", "web");
    let agents = [an_agent(1, Some("z1"), true)];
    let right = wanted(&import, &agents).slices().remove(0);
    type Change = fn(&mut EndpointSlice);
    let cases: [(&str, Change, &[&str]); 9] = [
        ("nothing", |_| {}, &[]),
        (
            "a label more",
            |s| {
                drop(
                    s.metadata
                        .labels
                        .as_mut()
                        .unwrap()
                        .insert("a".into(), "b".into()),
                );
            },
            &[],
        ),
        (
            "no forNodes, as from an old server",
            |s| {
                s.endpoints.as_mut().unwrap()[0]
                    .hints
                    .as_mut()
                    .unwrap()
                    .for_nodes = None;
            },
            &[],
        ),
        (
            "a label less",
            |s| {
                drop(
                    s.metadata
                        .labels
                        .as_mut()
                        .unwrap()
                        .remove(labels::SERVICE_NAME),
                );
            },
            &["metadata"],
        ),
        (
            "an annotation more",
            |s| s.metadata.annotations = Some([("a".into(), "b".into())].into()),
            &[],
        ),
        (
            "a node noted that is not left out",
            |s| s.metadata.annotations = Some([(labels::LEFT_OUT.into(), "n9".into())].into()),
            &["metadata"],
        ),
        (
            "another port",
            |s| s.ports.as_mut().unwrap()[0].port = Some(1),
            &["metadata", "ports"],
        ),
        (
            "an endpoint less",
            |s| s.endpoints = None,
            &["endpoints", "metadata"],
        ),
        (
            "not ready",
            |s| s.endpoints.as_mut().unwrap()[0].conditions = None,
            &["endpoints", "metadata"],
        ),
    ];
    for (what, change, parts) in cases {
        let mut observed = right.clone();
        change(&mut observed);
        let patch = correct(&observed, &right);
        let found: Vec<String> = patch
            .iter()
            .flat_map(|p| p.as_object().unwrap().keys().cloned())
            .collect();
        assert_eq!(found, parts, "{what}");
    }
}
