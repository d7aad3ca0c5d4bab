use proptest::prelude::*;

use super::*;

/// What may happen to one of a few objects, drawn so that they meet often.
#[derive(Clone, Debug)]
enum Step {
    Apply(Value),
    Delete(Value),
    Settle,
}

fn documents() -> impl Strategy<Value = Value> {
    let web = || prop_oneof![Just("ns/a"), Just("ns/b"), Just("other/a")];
    let short = || prop_oneof![Just("a"), Just("b"), Just("")];
    let port = || prop_oneof![Just(80u16), Just(81)];
    prop_oneof![
        (web(), short(), port()).prop_map(|(at, host, port)| export(at, host, port)),
        (
            web(),
            port(),
            prop_oneof![Just(0u16), Just(20_000), Just(20_001), Just(80)]
        )
            .prop_map(|(at, port, target)| import(at, port, target)),
        (web(), port()).prop_map(|(at, port)| service(at, port)),
        (web(), short(), 0usize..3).prop_map(|(at, of, count)| {
            slice(at, of, &["10.0.0.1", "10.0.0.2", "10.0.0.3"][..count])
        }),
        (
            web(),
            prop_oneof![Just("allow"), Just("deny")],
            any::<bool>()
        )
            .prop_map(|(at, action, valid)| policy("AccessPolicy", at, action, valid)),
        (prop_oneof![Just("allow"), Just("deny")], any::<bool>())
            .prop_map(|(action, valid)| policy("PrivilegedAccessPolicy", "/p", action, valid)),
        (
            prop_oneof![Just("ns/east"), Just("other/east"), Just("ns/west")],
            0u16..3
        )
            .prop_map(|(at, port)| {
                document(
                    "Peer",
                    at,
                    json!({"spec": {"gateways": [{"host": "h", "port": port}]}}),
                )
            }),
        (web(), prop_oneof![Just("Running"), Just("Failed")])
            .prop_map(|(at, phase)| { document("Pod", at, json!({"status": {"phase": phase}})) }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => documents().prop_map(Step::Apply),
        2 => documents().prop_map(Step::Delete),
        2 => Just(Step::Settle),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn deltas_add_up_to_what_a_fresh_start_computes(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let config = config(&directory);
        let mut harness = Harness::empty(&config);
        let mut documents: Vec<Value> = Vec::new();
        let same = |a: &Value, b: &Value| {
            a["kind"] == b["kind"] && a["metadata"]["name"] == b["metadata"]["name"]
                && a["metadata"]["namespace"] == b["metadata"]["namespace"]
        };
        for step in steps {
            match step {
                Step::Settle => harness.settle(),
                Step::Apply(document) => {
                    documents.retain(|other| !same(other, &document));
                    harness.index.apply(applied(&document));
                    documents.push(document);
                }
                Step::Delete(document) => {
                    documents.retain(|other| !same(other, &document));
                    harness.index.apply(deleted(&document));
                }
            }
        }
        harness.settle();

        // All that was put together from deltas is what a new subscriber is given.
        let mut whole = Snapshot::default();
        whole.apply(complete(&harness));
        prop_assert_eq!(&harness.seen, &whole);

        // And what a restart computes from nothing but the documents and the state directory.
        let mut fresh = Harness::starting(&config);
        for document in &documents {
            fresh.index.apply(applied(document));
        }
        fresh.finish_lists();
        fresh.settle();
        prop_assert_eq!(&harness.seen, &fresh.seen);

        // The status tells of the same objects, and is the same but for the times.
        let (mut incremental, mut anew) = (undated(&harness), undated(&fresh));
        incremental.generation = 0;
        anew.generation = 0;
        prop_assert_eq!(incremental, anew);
    }
}

fn undated(harness: &Harness) -> ControllerStatus {
    let mut status = ControllerStatus::clone(&harness.status());
    let reset = |conditions: &mut Vec<Condition>| {
        for condition in conditions {
            condition.last_transition_time = Timestamp::UNIX_EPOCH;
        }
    };
    status
        .imports
        .iter_mut()
        .for_each(|s| reset(&mut Arc::make_mut(s).conditions));
    status
        .exports
        .iter_mut()
        .for_each(|s| reset(&mut Arc::make_mut(s).conditions));
    status
        .peers
        .iter_mut()
        .for_each(|s| reset(&mut Arc::make_mut(s).conditions));
    status
        .policies
        .iter_mut()
        .for_each(|s| reset(&mut Arc::make_mut(s).conditions));
    status
        .workloads
        .iter_mut()
        .for_each(|s| reset(&mut Arc::make_mut(s).conditions));
    status
}
