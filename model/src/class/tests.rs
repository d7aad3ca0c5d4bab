use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*};

use super::{Classes, FIRST_WORKLOAD, Numbers};
use crate::{Labels, WorkloadAttributes};

fn attributes(namespace: &str) -> Arc<WorkloadAttributes> {
    Arc::new(WorkloadAttributes {
        namespace: namespace.into(),
        service_account: "default".into(),
        labels: Labels::new(),
    })
}

/// Writes a value down and reads it back.
fn restarted<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

#[test]
fn workloads_with_equal_attributes_share_a_class() {
    let mut classes = Classes::default();
    let a = classes.acquire(&attributes("a")).unwrap();
    assert_eq!(a, FIRST_WORKLOAD, "0 is unknown and 1 the host");
    assert_eq!(classes.acquire(&attributes("a")), Ok(a));
    assert_eq!(classes.acquire(&attributes("b")), Ok(a + 1));
    assert_eq!(classes.attributes(a), Some(&attributes("a")));
    assert_eq!(classes.class(&attributes("b")), Some(a + 1));
    assert_eq!(classes.attributes(super::UNKNOWN), None);
    assert_eq!(classes.attributes(super::HOST), None);
}

#[test]
fn a_class_is_idle_after_its_last_workload_and_keeps_its_number_until_retired() {
    let mut classes = Classes::default();
    let a = classes.acquire(&attributes("a")).unwrap();
    classes.acquire(&attributes("a")).unwrap();
    assert!(!classes.release(a));
    assert!(!classes.retire(a), "one workload is left");
    assert!(classes.release(a));
    assert!(!classes.release(a), "there is nobody left to release");
    assert_eq!(classes.idle().collect::<Vec<_>>(), [a]);
    assert_ne!(classes.acquire(&attributes("b")), Ok(a), "idle is not free");
    assert_eq!(classes.acquire(&attributes("a")), Ok(a), "it is revived");
    assert!(!classes.retire(a));
    classes.release(a);
    assert!(classes.retire(a));
    assert!(!classes.retire(a));
    assert_eq!(classes.attributes(a), None);
    assert_eq!(classes.acquire(&attributes("c")), Ok(a));
}

#[test]
fn after_a_restart_classes_are_idle_and_mean_the_same() {
    let mut classes = Classes::default();
    let a = classes.acquire(&attributes("a")).unwrap();
    let b = classes.acquire(&attributes("b")).unwrap();
    let mut classes = restarted(&classes);
    assert_eq!(classes.idle().collect::<Vec<_>>(), [a, b]);
    assert_eq!(classes.acquire(&attributes("b")), Ok(b));
    assert_eq!(classes.idle().collect::<Vec<_>>(), [a]);
}

#[test]
fn classes_that_could_pass_for_the_host_are_refused() {
    let read = |first| {
        let text = format!(r#"{{"first":{first},"next":9,"used":[],"released":[]}}"#);
        serde_json::from_str::<Classes>(&text).map_err(|error| error.to_string())
    };
    assert!(read(2).is_ok());
    assert!(
        read(1)
            .unwrap_err()
            .starts_with("numbers begin at 1 instead of 2")
    );
}

#[test]
fn the_number_released_first_is_used_first() {
    let mut numbers = Numbers::starting_at(1);
    for key in ["a", "b", "c"] {
        numbers.assign(&key.to_owned()).unwrap();
    }
    numbers.release("c");
    numbers.release("a");
    let mut numbers = restarted(&numbers);
    assert_eq!(numbers.assign(&"x".to_owned()), Ok(3));
    assert_eq!(numbers.assign(&"y".to_owned()), Ok(1));
    assert_eq!(numbers.assign(&"z".to_owned()), Ok(4));
    assert_eq!(numbers.bound(), 5);
}

#[test]
fn the_last_number_is_not_overrun() {
    let mut numbers = Numbers::starting_at(u32::MAX - 1);
    assert_eq!(numbers.assign(&"a"), Ok(u32::MAX - 1));
    numbers.assign(&"b").unwrap_err();
    numbers.release("a");
    assert_eq!(numbers.assign(&"b"), Ok(u32::MAX - 1));
}

#[test]
fn a_numbering_that_contradicts_itself_is_refused() {
    for (row, text, expected) in [
        (
            "good",
            r#"{"first":1,"next":3,"used":[[1,"a"]],"released":[2]}"#,
            None,
        ),
        (
            "twice",
            r#"{"first":1,"next":3,"used":[[1,"a"],[1,"b"]],"released":[]}"#,
            Some("twice"),
        ),
        (
            "released too",
            r#"{"first":1,"next":3,"used":[[1,"a"]],"released":[1]}"#,
            Some("twice"),
        ),
        (
            "below",
            r#"{"first":1,"next":3,"used":[[0,"a"]],"released":[]}"#,
            Some("not from 1"),
        ),
        (
            "above",
            r#"{"first":1,"next":3,"used":[],"released":[3]}"#,
            Some("below 3"),
        ),
        (
            "same key",
            r#"{"first":1,"next":3,"used":[[1,"a"],[2,"a"]],"released":[]}"#,
            Some("same"),
        ),
    ] {
        let read = serde_json::from_str::<Numbers<String>>(text);
        match expected {
            None => assert!(read.is_ok(), "{row}: {read:?}"),
            Some(part) => assert!(read.unwrap_err().to_string().contains(part), "{row}"),
        }
    }
}

proptest! {
    #[test]
    fn numbers_are_stable_unique_and_dense(
        steps in vec((0..12_u8, 0..4_u8), 1..200),
    ) {
        let mut numbers = Numbers::starting_at(1);
        let mut expected: BTreeMap<u8, u32> = BTreeMap::new();
        let mut most = 0;
        for (key, act) in steps {
            match act {
                0 => {
                    prop_assert_eq!(numbers.release(&key), expected.remove(&key));
                }
                1 => numbers = restarted(&numbers),
                _ => {
                    let number = numbers.assign(&key).unwrap();
                    if let Some(before) = expected.insert(key, number) {
                        prop_assert_eq!(before, number, "a number changed without a release");
                    }
                }
            }
            most = most.max(expected.len());
            prop_assert!(numbers.bound() as usize <= most + 1, "not dense");
            let by_number: BTreeMap<u32, u8> = expected.iter().map(|(k, n)| (*n, *k)).collect();
            prop_assert_eq!(by_number.len(), expected.len(), "a number is used twice");
            prop_assert!(numbers.iter().map(|(n, k)| (n, *k)).eq(by_number));
        }
    }
}
