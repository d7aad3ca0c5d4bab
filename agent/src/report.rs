//! What the agent says of its node to the controller: composed now and then, sent when it says
//! something new.

mod listening;
mod pace;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use clusterlink_gateway::{Gateway, SourceOutcome, UnservedTarget, status::PeerStatus, view::View};
use clusterlink_model::ResourceKey;
use clusterlink_proto::{NodeReport, PeerReport, Rejected, SourceReport, SteeringReport};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::warn;

use self::pace::Pace;
use crate::admin::Admin;

/// How often the node is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How often listening ports are read: they change rarely, and cost some file reads.
const LOOK_AT_PORTS: Duration = Duration::from_secs(2);

/// What a node is, for its reports.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The node.
    pub(crate) node: Arc<str>,
    /// The addresses at which it serves target ports, if they are given.
    pub(crate) addresses: Vec<IpAddr>,
    /// Those of the host, which stand in where the cluster knows none.
    pub(crate) host_addresses: Vec<IpAddr>,
    /// The agent's own ports, with what they are for.
    pub(crate) own_ports: BTreeMap<u16, String>,
    /// Ports of loopback addresses that nobody connects to, since the kernel hands over what is meant
    /// for others: they keep no import from having the same one.
    pub(crate) private_ports: BTreeSet<u16>,
    /// The software and version.
    pub(crate) software: String,
}

/// Keeps `sender` at what there is to say.
pub(crate) async fn run(
    subject: Subject,
    admin: Arc<Admin>,
    sender: watch::Sender<Arc<NodeReport>>,
) -> &'static str {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pace = Pace::default();
    let mut ports = Ports::default();
    loop {
        tick.tick().await;
        let now = Instant::now();
        let report = tokio::task::block_in_place(|| {
            ports.look(&subject, &admin, now);
            compose(&subject, &admin, ports.listening.clone())
        });
        if let Some(report) = pace.pass(report, now) {
            sender.send_replace(report);
        }
    }
}

#[derive(Default)]
struct Ports {
    listening: BTreeSet<u16>,
    looked: Option<Instant>,
    failing: bool,
}

impl Ports {
    fn look(&mut self, subject: &Subject, admin: &Admin, now: Instant) {
        if (self.looked).is_some_and(|at| now.duration_since(at) < LOOK_AT_PORTS) {
            return;
        }
        self.looked = Some(now);
        // Asked first: a port that is closed between the two is still known to have been ours.
        let targets = (admin.gateway().as_ref()).map(Gateway::target_ports);
        let targets = targets.unwrap_or_default();
        let own = |port| {
            subject.own_ports.contains_key(&port)
                || subject.private_ports.contains(&port)
                || targets.contains(&port)
        };
        match listening::ports(own) {
            Ok(listening) => {
                self.listening = listening;
                self.failing = false;
            }
            Err(error) if !self.failing => {
                self.failing = true;
                warn!(%error, "cannot read which ports are listened on; the last answer stays");
            }
            Err(_) => {}
        }
    }
}

fn compose(subject: &Subject, admin: &Admin, listening: BTreeSet<u16>) -> NodeReport {
    let (peers, outcomes) = {
        let gateway = admin.gateway();
        let gateway = gateway.as_ref();
        (
            gateway.map(Gateway::peers).unwrap_or_default(),
            gateway.map(Gateway::source_outcomes).unwrap_or_default(),
        )
    };
    let steering = admin.steering.borrow().clone();
    let view = admin.view.borrow().clone();
    NodeReport {
        software: subject.software.clone(),
        waits_for: (admin.readiness.blockers().into_iter())
            .map(str::to_owned)
            .collect(),
        addresses: addresses(subject, &view),
        steering: SteeringReport {
            on: steering.on,
            reason: steering.reason,
        },
        peers: (peers.into_iter())
            // The gateway remembers for its own sake whoever it once dealt with.
            .filter(|peer| peer.reachable || view.snapshot.peers.contains_key(&peer.name))
            .map(|status| peer(status, &view))
            .collect(),
        sources: outcomes.into_iter().map(source).collect(),
        rejected: rejected(
            admin.report.borrow().rejected.clone(),
            admin.unserved_targets(),
        ),
        listening,
        own_ports: subject.own_ports.clone(),
    }
}

/// What is not in force on this node, each resource with one reason.
fn rejected(mut rejected: Vec<Rejected>, unserved: Vec<UnservedTarget>) -> Vec<Rejected> {
    for target in unserved {
        let key = ResourceKey::Import(target.import);
        if !rejected.iter().any(|one| one.key == key) {
            let reason = target.reason;
            rejected.push(Rejected { key, reason });
        }
    }
    rejected
}

fn peer(status: PeerStatus, view: &View) -> PeerReport {
    let gateways = view.gateways_of(&status.name);
    let reachable = status.is_reached_by(gateways);
    let failures: Vec<String> = (status.gateways.iter())
        .filter(|gateway| gateway.is_one_of(gateways))
        .filter_map(|gateway| {
            let error = gateway.error.as_ref()?;
            Some(format!("{}: {error}", gateway.address))
        })
        .collect();
    PeerReport {
        name: status.name,
        reachable,
        rtt: status.rtt_us.map(Duration::from_micros),
        last_seen_ms: status.last_seen_ms,
        software: status.version,
        labels: status.labels,
        error: (!reachable && !failures.is_empty()).then(|| failures.join("; ")),
    }
}

fn source(outcome: SourceOutcome) -> SourceReport {
    SourceReport {
        import: outcome.import,
        source: outcome.source,
        accepted: outcome.failure.is_none(),
        reason: outcome.failure.unwrap_or_default(),
    }
}

/// The addresses at which the node serves target ports: those that were given, else those that the
/// cluster knows it by, else those of the host.
fn addresses(subject: &Subject, view: &View) -> Vec<IpAddr> {
    if !subject.addresses.is_empty() {
        return subject.addresses.clone();
    }
    let node = view.snapshot.nodes.get(&subject.node);
    let known = node.map(|node| &node.addresses);
    let known = known.filter(|addresses| !addresses.is_empty());
    known.unwrap_or(&subject.host_addresses).clone()
}

#[cfg(test)]
mod tests {
    use clusterlink_gateway::status::GatewayStatus;
    use clusterlink_model::{HostPort, Labels, LocalPeer, Node, Peer, Resource, Update};

    use super::*;

    #[test]
    fn the_nodes_addresses_are_those_given_or_those_that_the_cluster_knows() {
        let mut subject = Subject {
            node: "n1".into(),
            addresses: Vec::new(),
            host_addresses: vec!["192.0.2.6".parse().unwrap()],
            own_ports: BTreeMap::new(),
            private_ports: BTreeSet::new(),
            software: String::new(),
        };
        let mut view = View::not_ready(LocalPeer {
            name: "west".parse().unwrap(),
            labels: Labels::new(),
        });
        let known: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(addresses(&subject, &view), subject.host_addresses);
        let node = |name: &str, address: IpAddr| {
            Resource::Node(Arc::new(Node {
                name: name.into(),
                addresses: vec![address],
                pod_ranges: Vec::new(),
                zone: None,
            }))
        };
        Arc::make_mut(&mut view.snapshot).apply(Update {
            upserts: vec![node("n1", known), node("n2", "192.0.2.8".parse().unwrap())],
            ..Update::default()
        });
        assert_eq!(addresses(&subject, &view), [known]);
        let given: IpAddr = "192.0.2.9".parse().unwrap();
        subject.addresses = vec![given];
        assert_eq!(addresses(&subject, &view), [given]);
    }

    #[test]
    fn a_peer_without_a_session_says_why() {
        let mut status = PeerStatus {
            name: "east".parse().unwrap(),
            reachable: false,
            last_seen_ms: Some(5),
            rtt_us: Some(1500),
            version: Some("1".to_owned()),
            labels: Labels::new(),
            gateways: vec![GatewayStatus {
                address: "east.example:4443".to_owned(),
                resolved: None,
                sessions: 0,
                silent: 0,
                error: Some("connection refused".to_owned()),
            }],
            inbound_sessions: 0,
        };
        let mut view = View::not_ready(LocalPeer {
            name: "west".parse().unwrap(),
            labels: Labels::new(),
        });
        Arc::make_mut(&mut view.snapshot).apply(Update {
            upserts: vec![Resource::Peer(Arc::new(Peer {
                name: "east".parse().unwrap(),
                gateways: vec![HostPort {
                    host: "east.example".into(),
                    port: std::num::NonZeroU16::new(4443).unwrap(),
                }],
                labels: None,
                not_issued_before: None,
            }))],
            ..Update::default()
        });
        let report = peer(status.clone(), &view);
        assert_eq!(
            report.error.as_deref(),
            Some("east.example:4443: connection refused")
        );
        assert_eq!(report.rtt, Some(Duration::from_micros(1500)));
        status.reachable = true;
        status.inbound_sessions = 1;
        let calls_us = peer(status.clone(), &view);
        assert!(!calls_us.reachable && calls_us.error.is_some());
        status.gateways[0].sessions = 1;
        let report = peer(status.clone(), &view);
        assert!(report.reachable && report.error.is_none());
        status.gateways[0].address = "old.example:4443".to_owned();
        status.gateways[0].sessions = 0;
        let report = peer(status, &view);
        assert!(!report.reachable);
        assert_eq!(report.error, None, "that gateway is named no more");
    }
}
