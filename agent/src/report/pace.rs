//! When a report is worth sending: at once if it says something new, but round-trip times and the
//! time of the last sign of life change all the time, and are told now and then.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clusterlink_proto::NodeReport;

/// How old what is merely a measurement may become.
const REFRESH: Duration = Duration::from_secs(5);

/// Decides which reports pass.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<(Arc<NodeReport>, Instant)>,
}

impl Pace {
    /// The report, if it is time for it.
    pub(super) fn pass(&mut self, report: NodeReport, now: Instant) -> Option<Arc<NodeReport>> {
        if let Some((last, at)) = &self.last {
            let fresh = now.saturating_duration_since(*at) < REFRESH;
            if **last == report || (fresh && says_the_same(last, &report)) {
                return None;
            }
        }
        let report = Arc::new(report);
        self.last = Some((report.clone(), now));
        Some(report)
    }
}

fn says_the_same(one: &NodeReport, other: &NodeReport) -> bool {
    let without_measurements = |report: &NodeReport| {
        let mut report = report.clone();
        for peer in &mut report.peers {
            peer.rtt = None;
            peer.last_seen_ms = None;
        }
        report
    };
    without_measurements(one) == without_measurements(other)
}

#[cfg(test)]
mod tests {
    use clusterlink_model::Labels;
    use clusterlink_proto::PeerReport;

    use super::*;

    fn report(reachable: bool, rtt_ms: u64) -> NodeReport {
        NodeReport {
            peers: vec![PeerReport {
                name: "east".parse().unwrap(),
                reachable,
                rtt: Some(Duration::from_millis(rtt_ms)),
                last_seen_ms: Some(rtt_ms),
                software: None,
                labels: Labels::new(),
                error: None,
            }],
            ..NodeReport::default()
        }
    }

    #[test]
    fn what_is_new_passes_at_once_and_measurements_now_and_then() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert!(pace.pass(report(true, 1), at(0)).is_some(), "the first");
        assert!(
            pace.pass(report(true, 1), at(99_000)).is_none(),
            "nothing new"
        );
        let mut pace = Pace::default();
        pace.pass(report(true, 1), at(0));
        assert!(pace.pass(report(true, 2), at(500)).is_none());
        assert!(pace.pass(report(false, 2), at(1000)).is_some(), "new");
        assert!(pace.pass(report(false, 3), at(5500)).is_none());
        assert!(pace.pass(report(false, 3), at(6000)).is_some(), "refreshed");
    }
}
