use std::time::Instant;

use super::*;

/// Prints how long things take with 10,000 imports; what it asserts is only that a change
/// touches nothing but what it affects.
#[test]
fn one_change_among_ten_thousand_imports_is_one_resource() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::starting(&config(&directory));
    let inputs: Vec<Input> = (0..10_000)
        .flat_map(|number| {
            let at = format!("ns/web-{number}");
            [
                applied(&import(&at, 80, 0)),
                applied(&export(&at, &format!("api-{}", number % 100), 80)),
            ]
        })
        .chain((0..100).map(|number| applied(&service(&format!("ns/api-{number}"), 80))))
        .collect();
    let start = Instant::now();
    inputs
        .into_iter()
        .for_each(|input| harness.index.apply(input));
    harness.finish_lists();
    harness.settle();
    println!(
        "10,000 imports and 10,000 exports at start: {:?}",
        start.elapsed()
    );
    assert_eq!(harness.seen.imports.len(), 10_000);
    assert_eq!(harness.seen.exports.len(), 10_000);

    let timed = |what: &str, harness: &mut Harness, document: &Value, touched: usize| {
        let start = Instant::now();
        harness.index.apply(applied(document));
        let settled = harness.index.settle(Timestamp::now());
        let time = start.elapsed();
        println!("{what}: {time:?}");
        assert_eq!(settled.changes.len(), touched, "{what}");
        harness.publisher.publish(settled.changes);
        let update = harness
            .subscription
            .next()
            .now_or_never()
            .flatten()
            .unwrap();
        assert!(
            !update.complete && update.upserts.len() <= touched,
            "{what}"
        );
        harness.seen.apply(update);
    };
    timed(
        "one import changes",
        &mut harness,
        &import("ns/web-7", 81, 0),
        1,
    );
    timed(
        "one import more",
        &mut harness,
        &import("ns/more", 80, 0),
        1,
    );
    timed(
        "a slice of a service with 100 exports",
        &mut harness,
        &slice("ns/s", "api-3", &["10.0.0.1"]),
        100,
    );
    let start = Instant::now();
    assert_eq!(harness.status().imports.len(), 10_001);
    println!("the status of everything: {:?}", start.elapsed());
}
