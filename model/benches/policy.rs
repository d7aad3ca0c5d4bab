//! How long policy takes: one decision, and the verdicts of a large node at once.
//!
//! Run by `cargo bench -p clusterlink-model`. Fails when the verdicts of 10,000 imports for 50
//! identity classes under 100 policies take longer than a change of policy may.

use std::{
    hint::black_box,
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use clusterlink_model::{
    Action, Import, Labels, LbScheme, ObjectName, Operator, PeerName, Policy, PolicyName,
    Requirement, Selector, Source, WorkloadAttributes,
    policy::{DestinationAttributes, PolicySet, SourceAttributes},
};

const IMPORTS: usize = 10_000;
const CLASSES: usize = 50;
const POLICIES: usize = 100;
/// A change of policy is in force within a second; this leaves most of it to others.
const LIMIT: Duration = Duration::from_millis(500);

fn main() {
    // `cargo test --all-targets` runs this too, unoptimised, where times mean nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let peers = ["here.example", "there.example"].map(|name| PeerName::new(name).expect("valid"));
    let [own, remote] = &peers;
    let labels = labels(0);
    for (layout, policies) in [
        (
            "privileged",
            policies(|n| PolicyName::Privileged(format!("p{n:03}").into())),
        ),
        (
            "namespaced",
            policies(|n| PolicyName::Namespaced(ObjectName::new(namespace(n), format!("p{n:03}")))),
        ),
    ] {
        let imports: Vec<_> = (0..IMPORTS).map(|n| import(n, remote)).collect();
        let classes: Vec<_> = (0..CLASSES).map(workload).collect();
        let source = |workload| SourceAttributes {
            peer: own,
            peer_labels: &labels,
            workload: Some(workload),
        };

        let start = Instant::now();
        let set = PolicySet::new(policies.iter().cloned());
        let compiled = start.elapsed();
        let sources: Vec<_> = classes
            .iter()
            .map(|class| set.source_bits(&source(class)))
            .collect();
        let mut allowed = 0_u32;
        for import in &imports {
            let destination = DestinationAttributes::egress(import, &import.sources[0], &labels);
            let to = set.destination_bits(&import.name.namespace, &destination);
            allowed += sources
                .iter()
                .map(|from| u32::from(set.allows_bits(from, &to)))
                .sum::<u32>();
        }
        let all = start.elapsed();

        let start = Instant::now();
        for (import, class) in imports.iter().zip(classes.iter().cycle()) {
            let destination = DestinationAttributes::egress(import, &import.sources[0], &labels);
            black_box(set.decide(&import.name.namespace, source(class), destination));
        }
        let one = start.elapsed() / IMPORTS as u32;
        println!(
            "{layout}: {IMPORTS} imports x {CLASSES} classes x {POLICIES} policies in {all:?} \
             ({allowed} allowed; compiled in {compiled:?}); one decision {one:?}"
        );
        assert!(all < LIMIT, "{layout}: {all:?} is more than {LIMIT:?}");
    }
}

fn policies(name: impl Fn(usize) -> PolicyName) -> Vec<Arc<Policy>> {
    let action = |n| {
        if n % 3 == 0 {
            Action::Deny
        } else {
            Action::Allow
        }
    };
    let require = |key: &str, operator| Requirement {
        key: key.to_owned(),
        operator,
    };
    (0..POLICIES)
        .map(|n| {
            let from = vec![
                require(
                    "client.clusterlink.net/namespace",
                    Operator::In(vec![namespace(n)]),
                ),
                require(
                    "client.clusterlink.net/labels.app.kubernetes.io/name",
                    Operator::NotIn(vec![format!("value-{n}")]),
                ),
            ];
            let to = require("export.clusterlink.net/name", Operator::In(exports(n)));
            Arc::new(Policy {
                name: name(n),
                action: action(n),
                from: vec![Selector { requirements: from }],
                to: vec![Selector {
                    requirements: vec![to],
                }],
            })
        })
        .collect()
}

fn exports(n: usize) -> Vec<String> {
    (0..20)
        .map(|step| format!("service-{}", (n * 7 + step) % 100))
        .collect()
}

fn namespace(n: usize) -> String {
    format!("namespace-{}", n % 20)
}

fn labels(n: usize) -> Labels {
    let pairs = (0..6).map(|key| (format!("key-{key}"), format!("value-{n}")));
    pairs
        .chain([("app.kubernetes.io/name".to_owned(), format!("value-{n}"))])
        .collect()
}

fn workload(n: usize) -> WorkloadAttributes {
    WorkloadAttributes {
        namespace: namespace(n).into(),
        service_account: "default".into(),
        labels: labels(n),
    }
}

fn import(n: usize, peer: &PeerName) -> Import {
    let export = ObjectName::new("services", format!("service-{}", n % 100));
    Import {
        name: ObjectName::new(namespace(n), format!("import-{n}")),
        labels: labels(n),
        addresses: Vec::new(),
        port: NonZeroU16::MIN,
        target_port: None,
        sources: vec![Source {
            peer: peer.clone(),
            export,
        }],
        scheme: LbScheme::Random,
    }
}
