use clusterlink_model::Peer;

use crate::{invalid::Invalid, parts::peer_name, wire};

impl From<&Peer> for wire::Peer {
    fn from(peer: &Peer) -> Self {
        Self {
            name: peer.name.as_str().to_owned(),
            gateways: peer.gateways.iter().map(Into::into).collect(),
            labels: peer.labels.clone().map(|labels| wire::Labels { labels }),
            not_issued_before: peer.not_issued_before,
        }
    }
}

impl TryFrom<wire::Peer> for Peer {
    type Error = Invalid;

    fn try_from(peer: wire::Peer) -> Result<Self, Invalid> {
        let gateways: Result<_, _> = peer.gateways.into_iter().map(TryInto::try_into).collect();
        Ok(Self {
            name: peer_name("name", &peer.name)?,
            gateways: gateways?,
            labels: peer.labels.map(|labels| labels.labels),
            not_issued_before: peer.not_issued_before,
        })
    }
}
