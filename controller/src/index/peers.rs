//! Peers that are to be translated again, by name in lower case.

use clusterlink_model::{ObjectName, PeerName, Resource, ResourceKey};
use jiff::Timestamp;

use super::{Index, Settled};
use crate::{
    status::{PeerObjectStatus, dated},
    translate::peer,
};

impl Index {
    /// Of several objects for one peer the first one, by namespace, counts.
    pub(super) fn settle_peers(&mut self, now: Timestamp, settled: &mut Settled) {
        let mut board = self.status.lock();
        for object in std::mem::take(&mut self.dirty.peer_objects_gone) {
            if self.peers.get(&object).is_none() {
                board.peer(object, None);
            }
        }
        for peer in std::mem::take(&mut self.dirty.peers) {
            let mut first: Option<&ObjectName> = None;
            let mut resource = None;
            for name in self.peers_by_name.get(&peer) {
                let Some(object) = self.peers.get(name) else {
                    continue;
                };
                let (translated, mut finding) = peer::translate(name, object);
                if let Some(first) = first {
                    finding = peer::duplicate(name, first);
                }
                let before = board.peers.get(name);
                let status = PeerObjectStatus {
                    name: name.clone(),
                    peer: translated.as_ref().map(|peer| peer.name.clone()),
                    gateways: translated
                        .as_ref()
                        .map_or_else(Vec::new, |peer| peer.gateways.clone()),
                    labels: object.spec.labels.clone(),
                    conditions: dated(
                        vec![finding],
                        before.map_or(&[], |status| &status.conditions),
                        now,
                        object.metadata.generation,
                    ),
                    stale: false,
                };
                board.peer(name.clone(), Some((status, object)));
                if first.is_none() {
                    first = Some(name);
                    resource = translated;
                }
            }
            if let Ok(name) = PeerName::new(&peer) {
                let resource = resource.map(|peer| Resource::Peer(peer.into()));
                settled.changes.push((ResourceKey::Peer(name), resource));
            }
        }
    }
}
