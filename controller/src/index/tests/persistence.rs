use std::{fs, num::NonZeroU16};

use clusterlink_crds::conditions::{IMPORT_SERVICE_VALID, IMPORT_TARGET_PORT_VALID, reasons};
use clusterlink_model::Action;

use super::*;

/// Starts over on the same state directory, with these documents in the first lists.
fn restarted(config: &Config, documents: &[Value], problems: Vec<Problem>) -> Harness {
    let mut harness = Harness::starting(config);
    harness.index.apply(Input::Problems(Arc::new(problems)));
    for document in documents {
        harness.index.apply(applied(document));
    }
    harness.finish_lists();
    harness.settle();
    harness
}

#[test]
fn a_restart_gives_the_same_addresses_and_ports() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let documents: Vec<Value> = (0..50)
        .map(|number| import(&format!("ns/web-{number}"), 80, 0))
        .collect();
    let mut harness = Harness::empty(&config);
    for document in &documents {
        harness.apply(document);
    }
    assert_eq!(harness.seen.imports.len(), 50);
    let again = restarted(&config, &documents, vec![]);
    assert_eq!(again.seen, harness.seen);
}

#[test]
fn an_import_deleted_while_the_process_was_down_gives_its_port_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let mut harness = Harness::empty(&config);
    harness.apply(&import("ns/a", 80, 20_000));
    drop(harness);
    let harness = restarted(&config, &[import("ns/b", 80, 20_000)], vec![]);
    assert_eq!(
        harness.seen.imports[&name("ns/b")]
            .target_port
            .map(NonZeroU16::get),
        Some(20_000)
    );
}

#[test]
fn an_explicit_port_goes_before_an_allocated_one_at_the_first_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(&directory);
    config.target_ports = 20_000..=20_000;
    // The one that leaves the choice comes first by name.
    let documents = [import("ns/a", 80, 0), import("ns/b", 80, 20_000)];
    let harness = restarted(&config, &documents, vec![]);
    assert_eq!(
        harness.seen.imports[&name("ns/b")]
            .target_port
            .map(NonZeroU16::get),
        Some(20_000)
    );
    let status = harness.status();
    let why = condition(&status.imports[0].conditions, IMPORT_TARGET_PORT_VALID);
    assert_eq!(why.reason, reasons::TARGET_PORTS_EXHAUSTED);
    // It works without a target port all the same.
    assert!(harness.seen.imports.contains_key(&name("ns/a")));
}

#[test]
fn a_restart_in_the_middle_of_a_mistake_keeps_a_deny() {
    let at = "ns/rule";
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let mut harness = Harness::empty(&config);
    harness.apply(&policy("AccessPolicy", at, "deny", true));
    let before = harness.seen.clone();
    drop(harness);

    // It decodes, but is not valid.
    let harness = restarted(
        &config,
        &[policy("AccessPolicy", at, "deny", false)],
        vec![],
    );
    assert_eq!(harness.seen, before);
    drop(harness);

    // It does not even decode; the source names it, or cannot say what the file holds.
    for unreadable in [
        problem(Some("AccessPolicy"), Some(at)),
        problem(None, None),
        problem(Some("AccessPolicy"), None),
    ] {
        let mut harness = restarted(&config, &[], vec![unreadable]);
        assert_eq!(harness.seen, before);
        let status = harness.status();
        assert!(status.policies[0].stale && status.policies[0].in_force == Some(Action::Deny));
        harness
            .index
            .apply(applied(&policy("AccessPolicy", at, "deny", true)));
        harness.problems(vec![]);
        assert!(!harness.status().policies[0].stale);
    }

    // A problem of another object says nothing about it: it was deleted.
    let harness = restarted(&config, &[], vec![problem(Some("Import"), Some(at))]);
    assert!(harness.seen.policies.is_empty());
    drop(harness);
    let harness = restarted(&config, &[], vec![problem(None, None)]);
    assert!(
        harness.seen.policies.is_empty(),
        "what was deleted once stays deleted"
    );
}

#[test]
fn a_kept_deny_goes_once_nothing_is_unreadable_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let mut harness = Harness::empty(&config);
    harness.apply(&policy("PrivilegedAccessPolicy", "/rule", "deny", true));
    drop(harness);
    let mut harness = restarted(&config, &[], vec![problem(None, None)]);
    assert_eq!(harness.seen.policies.len(), 1);
    harness.problems(vec![]);
    assert!(harness.seen.policies.is_empty());
    assert!(harness.status().policies.is_empty());
}

#[test]
fn a_lease_outlives_a_restart_in_which_its_import_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let mut harness = Harness::empty(&config);
    harness.apply(&import("ns/web", 80, 20_000));
    let before = harness.seen.clone();
    drop(harness);
    let unreadable = vec![problem(Some("Import"), Some("ns/web"))];
    let mut harness = restarted(&config, &[import("ns/thief", 80, 20_000)], unreadable);
    let thief = harness.seen.imports[&name("ns/thief")].clone();
    assert_eq!(thief.target_port, None);
    harness.delete(&import("ns/thief", 80, 20_000));
    harness.apply(&import("ns/web", 80, 20_000));
    assert_eq!(harness.seen, before);
}

#[test]
fn an_import_whose_lease_cannot_be_stored_is_not_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory);
    let mut harness = Harness::empty(&config);
    harness.apply(&import("ns/old", 80, 0));
    // A directory in the place of the temporary file makes every write fail, even for root.
    let obstacle = directory.path().join("leases.json.new");
    fs::create_dir(&obstacle).unwrap();
    harness.apply(&import("ns/new", 80, 0));
    harness.apply(&import("ns/old", 80, 20_000));
    assert!(harness.retry);
    assert!(!harness.seen.imports.contains_key(&name("ns/new")));
    let old = &harness.seen.imports[&name("ns/old")];
    assert!(!old.addresses.is_empty() && old.target_port.is_none());
    let status = harness.status();
    let why = condition(&status.imports[0].conditions, IMPORT_SERVICE_VALID);
    assert_eq!(why.reason, reasons::LEASE_NOT_STORED);
    assert!(why.message.contains("leases.json"), "{}", why.message);

    fs::remove_dir(&obstacle).unwrap();
    harness.settle();
    assert!(!harness.retry);
    assert!(harness.seen.imports.contains_key(&name("ns/new")));
    assert_eq!(
        harness.seen.imports[&name("ns/old")]
            .target_port
            .map(NonZeroU16::get),
        Some(20_000)
    );
}

#[test]
fn a_damaged_file_of_denies_is_refused_with_its_cure() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policies.json");
    fs::write(&path, "nonsense").unwrap();
    let error = ValidDenies::open(path).unwrap_err();
    assert!(
        error.to_string().contains("policies.json is damaged"),
        "{error}"
    );
}
