//! What all workers know of the other peers, for status and for the labels in force.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use clusterlink_model::{HostPort, Labels, PeerName};
use tokio::sync::watch;

use crate::{
    flow::now_ms,
    link::LinkStats,
    status::{GatewayStatus, PeerStatus},
    tunnel::Hello,
};

/// How long a session may be suspect before its peer does not count as reached by it: what passes
/// sooner is worth no word in a status.
const SILENCE: Duration = Duration::from_secs(2);

/// What is told of a gateway none of whose sessions gives a sign of life.
const SILENT: &str = "its sessions give no sign of life";

/// Labels of peers as they say themselves.
pub(crate) type RemoteLabels = Arc<BTreeMap<PeerName, Arc<Labels>>>;

/// The other peers. Written when sessions come and go, never per connection.
#[derive(Debug)]
pub(crate) struct PeerTable {
    peers: Mutex<BTreeMap<PeerName, Entry>>,
    labels: watch::Sender<RemoteLabels>,
    meetings: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Entry {
    version: Option<String>,
    labels: Arc<Labels>,
    inbound: Vec<Arc<LinkStats>>,
    outbound: BTreeMap<HostPort, Outbound>,
    last_seen_ms: u64,
    last_met: Option<Instant>,
}

#[derive(Debug, Default)]
struct Outbound {
    sessions: Vec<Arc<LinkStats>>,
    resolved: Option<SocketAddr>,
    error: Option<String>,
}

impl Default for PeerTable {
    fn default() -> Self {
        Self {
            peers: Mutex::default(),
            labels: watch::Sender::new(Arc::default()),
            meetings: watch::Sender::default(),
        }
    }
}

impl PeerTable {
    /// A session is up; `gateway` is what was dialled, `None` if the peer dialled us.
    pub(crate) fn up(
        &self,
        peer: &PeerName,
        gateway: Option<(&HostPort, SocketAddr)>,
        stats: &Arc<LinkStats>,
    ) {
        let mut peers = self.lock();
        let entry = peers.entry(peer.clone()).or_default();
        if let Some((gateway, resolved)) = gateway {
            let outbound = entry.outbound.entry(gateway.clone()).or_default();
            outbound.resolved = Some(resolved);
            outbound.error = None;
            outbound.sessions.push(stats.clone());
        } else {
            entry.inbound.push(stats.clone());
        }
        entry.last_met = Some(Instant::now());
        drop(peers);
        self.meetings.send_replace(());
    }

    /// When a session with a peer came up last, whoever called.
    pub(crate) fn last_met(&self, peer: &PeerName) -> Option<Instant> {
        self.lock().get(peer)?.last_met
    }

    /// Tells when that changes for any of them.
    pub(crate) fn meetings(&self) -> watch::Receiver<()> {
        self.meetings.subscribe()
    }

    /// A session has ended.
    pub(crate) fn down(&self, peer: &PeerName, stats: &Arc<LinkStats>, reason: &str) {
        let mut peers = self.lock();
        let Some(entry) = peers.get_mut(peer) else {
            return;
        };
        entry.last_seen_ms = entry.last_seen_ms.max(stats.last_heard_ms.load(Relaxed));
        entry.inbound.retain(|other| !Arc::ptr_eq(other, stats));
        for outbound in entry.outbound.values_mut() {
            let before = outbound.sessions.len();
            outbound.sessions.retain(|other| !Arc::ptr_eq(other, stats));
            if outbound.sessions.len() < before {
                outbound.error = Some(reason.to_owned());
            }
        }
    }

    /// A gateway could not be dialled.
    pub(crate) fn dial_failed(&self, peer: &PeerName, gateway: &HostPort, error: String) {
        let mut peers = self.lock();
        let entry = peers.entry(peer.clone()).or_default();
        entry.outbound.entry(gateway.clone()).or_default().error = Some(error);
    }

    /// The peer has introduced itself.
    pub(crate) fn hello(&self, peer: &PeerName, hello: &Hello) {
        self.lock().entry(peer.clone()).or_default().version = Some(hello.software.clone());
        self.set_labels(peer, Arc::new(hello.labels.clone()));
    }

    /// The peer says other labels of itself.
    pub(crate) fn set_labels(&self, peer: &PeerName, labels: Arc<Labels>) {
        let mut peers = self.lock();
        let entry = peers.entry(peer.clone()).or_default();
        if *entry.labels == *labels && self.labels.borrow().contains_key(peer) {
            return;
        }
        entry.labels = labels.clone();
        self.labels.send_modify(|all| {
            Arc::make_mut(all).insert(peer.clone(), labels);
        });
    }

    /// Labels of peers as they say themselves.
    pub(crate) fn labels(&self) -> watch::Receiver<RemoteLabels> {
        self.labels.subscribe()
    }

    /// A copy for operators.
    pub(crate) fn statuses(&self) -> Vec<PeerStatus> {
        let now = now_ms();
        self.lock()
            .iter()
            .map(|(name, entry)| entry.status(name, now))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerName, Entry>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn status(&self, name: &PeerName, now_ms: u64) -> PeerStatus {
        let sessions = || {
            self.inbound.iter().chain(
                self.outbound
                    .values()
                    .flat_map(|outbound| &outbound.sessions),
            )
        };
        let heard = sessions()
            .map(|stats| stats.last_heard_ms.load(Relaxed))
            .max();
        let last_seen = heard.unwrap_or(0).max(self.last_seen_ms);
        let rtt = sessions()
            .map(|stats| stats.rtt_us.load(Relaxed))
            .filter(|rtt| *rtt > 0)
            .min();
        PeerStatus {
            name: name.clone(),
            reachable: sessions().any(|stats| !stats.is_silent(now_ms, SILENCE)),
            last_seen_ms: (last_seen > 0).then_some(last_seen),
            rtt_us: rtt,
            version: self.version.clone(),
            labels: (*self.labels).clone(),
            gateways: self
                .outbound
                .iter()
                .map(|(address, outbound)| outbound.status(address, now_ms))
                .collect(),
            inbound_sessions: self.inbound.len(),
        }
    }
}

impl Outbound {
    fn status(&self, address: &HostPort, now_ms: u64) -> GatewayStatus {
        let sessions = self.sessions.len();
        let silent = (self.sessions.iter())
            .filter(|stats| stats.is_silent(now_ms, SILENCE))
            .count();
        let all_silent = sessions > 0 && silent == sessions;
        GatewayStatus {
            address: address.to_string(),
            resolved: self.resolved,
            sessions,
            silent,
            error: all_silent
                .then(|| SILENT.to_owned())
                .or_else(|| self.error.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_whose_sessions_are_silent_is_not_reachable_until_one_answers() {
        let east: PeerName = "east".parse().unwrap();
        let address = HostPort {
            host: "east.example".into(),
            port: std::num::NonZeroU16::new(443).unwrap(),
        };
        let table = PeerTable::default();
        let links = [(); 2].map(|()| Arc::new(LinkStats::default()));
        for stats in &links {
            let resolved = SocketAddr::from(([192, 0, 2, 1], 443));
            table.up(&east, Some((&address, resolved)), stats);
        }
        let told = |now_ms| {
            let status = table.lock()[&east].status(&east, now_ms);
            let gateway = &status.gateways[0];
            let reached = status.is_reached_by(std::slice::from_ref(&address));
            assert_eq!(status.reachable, reached);
            (reached, gateway.silent, gateway.error.clone())
        };
        assert_eq!(told(10_000), (true, 0, None));
        links[0].set_suspect(true, || 10_000);
        // What is suspect already stays so since then.
        links[0].set_suspect(true, || 11_999);
        assert_eq!(told(11_999), (true, 0, None));
        assert_eq!(told(12_000), (true, 1, None));
        links[1].set_suspect(true, || 12_000);
        assert_eq!(told(14_000), (false, 2, Some(SILENT.to_owned())));
        links[1].set_suspect(false, || 14_000);
        assert_eq!(told(14_000), (true, 1, None));
        table.down(&east, &links[1], "closed");
        assert_eq!(told(14_000), (false, 1, Some(SILENT.to_owned())));
    }
}
