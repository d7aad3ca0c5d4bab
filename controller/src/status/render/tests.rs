use std::{sync::Arc, time::Duration};

use clusterlink_crds::conditions::{EXPORT_VALID, IMPORT_SERVICE_VALID, PEER_REACHABLE, reasons};
use clusterlink_model::{Labels, ObjectName, Source};
use clusterlink_proto::{NodeReport, PeerReport, SourceReport};

use super::*;
use crate::{
    agents::{AgentStatus, AgentTable},
    status::{ExportStatus, Finding, ImportStatus, PeerObjectStatus, SourceStatus, dated},
};

const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("clusterlink-system", name)
}

/// Reports of nodes `n0`, `n1` and so on.
fn reach(reports: Vec<NodeReport>) -> Reach {
    let table = reports.into_iter().enumerate().map(|(number, report)| {
        let agent = AgentStatus {
            pod: name("agent"),
            report: Arc::new(report),
            let_go: BTreeSet::new(),
        };
        (Arc::from(format!("n{number}")), agent)
    });
    let mut reach = Reach::default();
    reach.update(&table.collect::<AgentTable>());
    reach
}

fn knows(reachable: bool, seen: Option<i64>) -> NodeReport {
    let peer = PeerReport {
        name: "east".parse().unwrap(),
        reachable,
        rtt: reachable.then_some(Duration::from_micros(12_345)),
        last_seen_ms: seen.map(|second| u64::try_from(second).unwrap() * 1000),
        software: reachable.then(|| "clusterlink 1.0".to_owned()),
        labels: Labels::from([("zone".to_owned(), "a".to_owned())]),
        error: (!reachable).then(|| "connection refused".to_owned()),
    };
    NodeReport {
        peers: vec![peer],
        ..NodeReport::default()
    }
}

fn answers(accepted: bool) -> NodeReport {
    let mut report = knows(true, Some(NOW));
    report.sources.push(SourceReport {
        import: ObjectName::new("shop", "web"),
        source: Source {
            peer: "east".parse().unwrap(),
            export: ObjectName::new("shop", "web"),
        },
        accepted,
        reason: "denied".to_owned(),
    });
    report
}

fn peer_object(gateways: usize, finding: Finding) -> PeerObjectStatus {
    let gateway = clusterlink_model::HostPort {
        host: "east.example".into(),
        port: 4443.try_into().unwrap(),
    };
    PeerObjectStatus {
        name: name("east"),
        peer: "east".parse().ok(),
        gateways: vec![gateway; gateways],
        labels: None,
        conditions: dated(vec![finding], &[], at(NOW), Some(3)),
        stale: false,
    }
}

fn fine() -> Finding {
    Finding::valid("PeerValid", "")
}

fn wrong() -> Finding {
    Finding::invalid(
        "PeerValid",
        reasons::GATEWAY_INVALID,
        "spec.gateways[0].host is \"a b\"",
    )
}

fn stored(status: &str, reason: &str, seen: Option<i64>) -> clusterlink_crds::PeerStatus {
    clusterlink_crds::PeerStatus {
        conditions: vec![Condition {
            type_: PEER_REACHABLE.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: "as before".to_owned(),
            last_transition_time: time(at(NOW - 1000)),
            observed_generation: Some(2),
        }],
        last_seen: seen.map(|second| time(at(second))),
        ..clusterlink_crds::PeerStatus::default()
    }
}

struct Told<'a> {
    row: &'a str,
    peer: PeerObjectStatus,
    reports: Vec<NodeReport>,
    observed: clusterlink_crds::PeerStatus,
    heard_all: bool,
    wanted: (&'a str, &'a str, &'a str),
}

#[test]
fn every_state_of_a_peer_has_its_condition() {
    let none = clusterlink_crds::PeerStatus::default;
    let row = |row, peer, reports, observed, heard_all, wanted| Told {
        row,
        peer,
        reports,
        observed,
        heard_all,
        wanted,
    };
    for Told {
        row,
        peer,
        reports,
        observed,
        heard_all,
        wanted,
    } in [
        row(
            "no agent",
            peer_object(1, fine()),
            vec![],
            none(),
            true,
            ("Unknown", "NoAgents", "see that the agents run"),
        ),
        row(
            "not told yet",
            peer_object(1, fine()),
            vec![NodeReport::default()],
            none(),
            true,
            ("Unknown", "NeverSeen", "no agent has told of it yet"),
        ),
        row(
            "never answered",
            peer_object(1, fine()),
            vec![knows(false, None)],
            none(),
            true,
            ("False", "NeverSeen", "node n0: connection refused"),
        ),
        row(
            "lost",
            peer_object(1, fine()),
            vec![knows(false, Some(NOW - 90))],
            stored("True", "Reachable", None),
            true,
            (
                "False",
                "Unreachable",
                "last heard from at 2027-01-15T07:58:30Z",
            ),
        ),
        row(
            "lost, and the agents have forgotten when it was heard",
            peer_object(1, fine()),
            vec![knows(false, None)],
            stored("True", "Reachable", Some(NOW - 60)),
            true,
            (
                "False",
                "Unreachable",
                "last heard from at 2027-01-15T07:59:00Z",
            ),
        ),
        row(
            "reachable",
            peer_object(1, fine()),
            vec![knows(true, Some(NOW))],
            none(),
            true,
            ("True", "Reachable", "sessions from 1 of 1 nodes, n0 (12ms)"),
        ),
        row(
            "reachable from some nodes",
            peer_object(1, fine()),
            vec![knows(true, Some(NOW)), knows(false, None)],
            none(),
            true,
            (
                "True",
                "Reachable",
                "1 of 2 nodes, n0 (12ms); none from n1: connection refused",
            ),
        ),
        row(
            "without gateways, with a session",
            peer_object(0, fine()),
            vec![knows(true, Some(NOW))],
            none(),
            true,
            ("True", "InboundOnly", "sessions from 1 of 1 nodes"),
        ),
        row(
            "without gateways, without a session",
            peer_object(0, fine()),
            vec![knows(false, None)],
            none(),
            true,
            (
                "False",
                "InboundOnly",
                "has no gateways, so it has to call us",
            ),
        ),
        row(
            "a wrong gateway",
            peer_object(0, wrong()),
            vec![knows(false, None)],
            none(),
            true,
            (
                "False",
                "GatewayInvalid",
                "spec.gateways[0].host is \"a b\"",
            ),
        ),
        row(
            "a wrong gateway, but another works",
            peer_object(1, wrong()),
            vec![knows(true, Some(NOW))],
            none(),
            true,
            (
                "True",
                "Reachable",
                "; but spec.gateways[0].host is \"a b\"",
            ),
        ),
        row(
            "a new leader that has not heard the agents",
            peer_object(1, fine()),
            vec![],
            stored("True", "Reachable", Some(NOW - 5)),
            false,
            ("True", "Reachable", "as before"),
        ),
        row(
            "a new leader that has heard one agent of several",
            peer_object(1, fine()),
            vec![knows(false, None)],
            stored("True", "Reachable", Some(NOW - 5)),
            false,
            ("True", "Reachable", "as before"),
        ),
        row(
            "a new leader that knows better",
            peer_object(1, fine()),
            vec![knows(true, Some(NOW))],
            stored("False", "Unreachable", None),
            false,
            ("True", "Reachable", "sessions from"),
        ),
    ] {
        let reach = reach(reports);
        let peers = BTreeSet::new();
        let context = context(&reach, &peers, heard_all);
        let status = peer::render(&peer, Some(3), &observed, &context);
        let condition = &status.conditions[0];
        let (wanted_status, reason, message) = wanted;
        assert_eq!(condition.type_, PEER_REACHABLE, "{row}");
        assert_eq!(
            (&*condition.status, &*condition.reason),
            (wanted_status, reason),
            "{row}"
        );
        assert!(
            condition.message.contains(message),
            "{row}: {}",
            condition.message
        );
        assert_eq!(condition.observed_generation, Some(3), "{row}");
    }
}

fn context<'a>(reach: &'a Reach, peers: &'a BTreeSet<PeerName>, heard_all: bool) -> Context<'a> {
    Context {
        reach,
        peers,
        system_namespace: "clusterlink-system",
        heard_all,
        now: at(NOW),
    }
}

#[test]
fn a_peer_says_of_itself_what_the_schema_admits_and_is_remembered_when_it_is_gone() {
    let mut report = knows(true, Some(NOW + 500));
    let long = "x".repeat(254);
    report.peers[0].labels.insert("long".to_owned(), long);
    for number in 0..100 {
        report.peers[0]
            .labels
            .insert(format!("label-{number:03}"), "a".to_owned());
    }
    let peers = BTreeSet::new();
    let alive = reach(vec![report]);
    let status = peer::render(
        &peer_object(1, fine()),
        None,
        &Default::default(),
        &context(&alive, &peers, true),
    );
    assert_eq!(status.rtt.as_deref(), Some("12ms"));
    assert_eq!(status.version.as_deref(), Some("clusterlink 1.0"));
    assert_eq!(
        status.labels.as_ref().map(std::collections::BTreeMap::len),
        Some(64)
    );
    // A node whose clock runs ahead does not tell the future.
    assert_eq!(status.last_seen, Some(time(at(NOW))));

    let gone = reach(vec![NodeReport::default()]);
    let later = peer::render(
        &peer_object(1, fine()),
        None,
        &status,
        &context(&gone, &peers, true),
    );
    assert_eq!((later.rtt, later.version), (None, status.version));
    assert_eq!(
        (later.labels, later.last_seen),
        (status.labels, status.last_seen)
    );
}

fn import_object(source: SourceStatus) -> ImportStatus {
    ImportStatus {
        name: ObjectName::new("shop", "web"),
        port: 80,
        addresses: Vec::new(),
        scheme: Default::default(),
        target_port: Some(12_000),
        sources: vec![source],
        conditions: dated(
            vec![Finding::valid(IMPORT_SERVICE_VALID, "")],
            &[],
            at(NOW),
            Some(1),
        ),
        stale: false,
    }
}

fn source(peer: &str, invalid: Option<&str>) -> SourceStatus {
    SourceStatus {
        peer: peer.to_owned(),
        export_name: "web".to_owned(),
        export_namespace: "shop".to_owned(),
        invalid: invalid.map(str::to_owned),
    }
}

#[test]
fn every_state_of_a_source_is_told() {
    let lost = || vec![knows(false, Some(NOW - 9))];
    for (row, source, reports, wanted) in [
        (
            "malformed",
            source("", Some("peer is empty: fill it in")),
            vec![],
            (false, None, None, "SourceInvalid", "peer is empty"),
        ),
        (
            "no Peer object",
            source("west", None),
            vec![],
            (
                false,
                None,
                None,
                "PeerNotFound",
                "no Peer west is in namespace clusterlink-system",
            ),
        ),
        (
            "nobody can say",
            source("east", None),
            vec![],
            (true, None, None, "", ""),
        ),
        (
            "unreachable",
            source("East", None),
            lost(),
            (
                true,
                Some(false),
                None,
                "Unreachable",
                "peer East cannot be reached",
            ),
        ),
        (
            "reachable, never asked",
            source("east", None),
            vec![knows(true, Some(NOW))],
            (true, Some(true), None, "Usable", ""),
        ),
        (
            "accepted",
            source("east", None),
            vec![answers(true)],
            (true, Some(true), Some(true), "Usable", ""),
        ),
        (
            "refused",
            source("east", None),
            vec![answers(false)],
            (
                true,
                Some(true),
                Some(false),
                "ExportRefused",
                "Export shop/web when it was last asked (denied)",
            ),
        ),
    ] {
        let reach = reach(reports);
        let peers = BTreeSet::from(["east".parse().unwrap()]);
        let status = import::render(
            &import_object(source),
            &Default::default(),
            &context(&reach, &peers, true),
        );
        let told = &status.sources[0];
        let (valid, reachable, accepted, reason, message) = wanted;
        assert_eq!(
            (told.valid, told.reachable, told.accepted, &*told.reason),
            (valid, reachable, accepted, reason),
            "{row}"
        );
        assert!(told.message.contains(message), "{row}: {}", told.message);
        assert_eq!(status.target_port, Some(12_000), "{row}");
    }
}

#[test]
fn a_new_leader_keeps_what_was_known_of_a_source_until_the_agents_have_reported() {
    let peers = BTreeSet::from(["east".parse().unwrap()]);
    let import = import_object(source("east", None));
    let before = reach(vec![answers(false)]);
    let stored = import::render(
        &import,
        &Default::default(),
        &context(&before, &peers, true),
    );
    let silent = reach(vec![]);
    let kept = import::render(&import, &stored, &context(&silent, &peers, false));
    assert_eq!(kept, stored);
    let later = import::render(&import, &stored, &context(&silent, &peers, true));
    assert_eq!(
        (later.sources[0].reachable, later.sources[0].accepted),
        (None, None)
    );
}

#[test]
fn a_transition_is_dated_once() {
    let exported = |holds: bool, second| {
        let finding = if holds {
            Finding::valid(EXPORT_VALID, "")
        } else {
            Finding::invalid(EXPORT_VALID, reasons::SERVICE_NOT_FOUND, "create it")
        };
        ExportStatus {
            name: name("web"),
            host: "web".to_owned(),
            port: 80,
            backend: clusterlink_model::Backend::Unavailable("".into()),
            conditions: dated(vec![finding], &[], at(second), Some(second)),
            stale: false,
        }
    };
    let first = export::render(&exported(false, NOW), &Default::default());
    // A controller that was restarted finds the same at another time, of another generation.
    let again = export::render(&exported(false, NOW + 50), &first);
    assert_eq!(again.conditions[0].last_transition_time, time(at(NOW)));
    assert_eq!(again.conditions[0].observed_generation, Some(NOW + 50));
    let mended = export::render(&exported(true, NOW + 60), &again);
    assert_eq!(
        mended.conditions[0].last_transition_time,
        time(at(NOW + 60))
    );
}

#[test]
fn what_is_written_reads_back_the_same() {
    let found = dated(
        vec![Finding::valid(EXPORT_VALID, "")],
        &[],
        Timestamp::from_millisecond(NOW * 1000 + 345).unwrap(),
        Some(1),
    );
    let written = conditions(&found, &[]);
    let json = serde_json::to_value(&written).unwrap();
    let read: Vec<Condition> = serde_json::from_value(json).unwrap();
    assert_eq!(read, written);
}

#[test]
fn a_text_is_cut_between_characters() {
    assert_eq!(shortened("short".to_owned(), 5), "short");
    let cut = shortened("ää".repeat(10), 12);
    assert!(cut.len() <= 12 && cut.ends_with('…'), "{cut}");
}
