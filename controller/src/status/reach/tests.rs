use clusterlink_proto::SourceReport;

use super::*;
use crate::agents::AgentStatus;

fn peer(name: &str, reachable: bool, rtt_ms: u64) -> PeerReport {
    PeerReport {
        name: name.parse().unwrap(),
        reachable,
        rtt: reachable.then(|| Duration::from_millis(rtt_ms)),
        last_seen_ms: reachable.then_some(1_000 + rtt_ms),
        software: reachable.then(|| "1.0".to_owned()),
        labels: Labels::new(),
        error: (!reachable).then(|| "connection refused".to_owned()),
    }
}

fn table(reports: Vec<(&str, NodeReport)>) -> AgentTable {
    let agent = |report| AgentStatus {
        pod: ObjectName::new("clusterlink-system", "agent"),
        report: Arc::new(report),
        let_go: BTreeSet::new(),
    };
    let named = reports
        .into_iter()
        .map(|(node, report)| (Arc::from(node), agent(report)));
    named.collect()
}

fn peers(peers: Vec<PeerReport>) -> NodeReport {
    NodeReport {
        peers,
        ..NodeReport::default()
    }
}

fn answer(accepted: bool) -> NodeReport {
    let report = SourceReport {
        import: ObjectName::new("ns", "web"),
        source: source(),
        accepted,
        reason: if accepted {
            String::new()
        } else {
            "denied".to_owned()
        },
    };
    NodeReport {
        sources: vec![report],
        ..NodeReport::default()
    }
}

fn source() -> Source {
    Source {
        peer: "east".parse().unwrap(),
        export: ObjectName::new("ns", "web"),
    }
}

#[test]
fn the_best_and_the_worst_node_are_named() {
    let mut reach = Reach::default();
    reach.update(&table(vec![
        ("n1", peers(vec![peer("east", true, 5)])),
        ("n2", peers(vec![peer("east", false, 0)])),
        ("n3", peers(vec![peer("east", true, 90)])),
    ]));
    let merged = reach.peer(&"east".parse().unwrap());
    assert_eq!((merged.agents, merged.told, merged.reachable), (3, 3, 2));
    assert_eq!(merged.best, Some(("n1".into(), Duration::from_millis(5))));
    assert_eq!(merged.worst, Some(("n3".into(), Duration::from_millis(90))));
    assert_eq!(
        merged.failing,
        Some(("n2".into(), "connection refused".to_owned()))
    );
    assert_eq!(merged.last_seen_ms, Some(1_090));
}

#[test]
fn times_that_pass_are_no_change_and_a_lost_session_is_one() {
    let mut reach = Reach::default();
    let east = BTreeSet::from(["east".parse().unwrap()]);
    let first = reach.update(&table(vec![("n1", peers(vec![peer("east", true, 5)]))]));
    assert!(first.any_agent && first.peers == east);
    let later = reach.update(&table(vec![("n1", peers(vec![peer("east", true, 9)]))]));
    assert_eq!(later, Changed::default());
    let lost = reach.update(&table(vec![("n1", peers(vec![peer("east", false, 0)]))]));
    assert!(!lost.any_agent && lost.peers == east);
}

#[test]
fn an_agent_that_left_says_nothing_any_more() {
    let mut reach = Reach::default();
    reach.update(&table(vec![("n1", peers(vec![peer("east", true, 5)]))]));
    let left = reach.update(&AgentTable::new());
    assert!(left.any_agent && left.peers.len() == 1);
    assert_eq!(reach.peer(&"east".parse().unwrap()), PeerReach::default());
}

#[test]
fn a_source_is_accepted_if_any_node_was_given_it() {
    let mut reach = Reach::default();
    let import = ObjectName::new("ns", "web");
    assert_eq!(reach.source(&import, &source()), None);
    reach.update(&table(vec![("n1", answer(false))]));
    assert_eq!(reach.source(&import, &source()), Some(Err("denied".into())));
    let changed = reach.update(&table(vec![("n1", answer(false)), ("n2", answer(true))]));
    assert!(changed.imports.contains(&import));
    assert_eq!(reach.source(&import, &source()), Some(Ok(())));
    reach.update(&AgentTable::new());
    assert_eq!(reach.source(&import, &source()), None);
}
