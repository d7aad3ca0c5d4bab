//! Reports as messages. What a newer agent says beyond what is known here is left out, the rest
//! counts.

use std::{collections::BTreeMap, time::Duration};

use clusterlink_model::ResourceKey;

use super::{NodeReport, PeerReport, Rejected, SourceReport, SteeringReport};
use crate::{
    invalid::Invalid,
    parts::{address, address_list, peer_name, present, reason},
    wire,
};

impl From<&NodeReport> for wire::NodeReport {
    fn from(report: &NodeReport) -> Self {
        Self {
            software: report.software.clone(),
            waits_for: report.waits_for.clone(),
            addresses: address_list(&report.addresses),
            steering: report.steering.on,
            steering_reason: report.steering.reason.clone(),
            peers: report.peers.iter().map(Into::into).collect(),
            sources: report.sources.iter().map(Into::into).collect(),
            rejected: report.rejected.iter().map(Into::into).collect(),
            listening: report.listening.iter().map(|&port| port.into()).collect(),
            own_ports: (report.own_ports.iter())
                .map(|(&port, purpose)| (port.into(), reason(purpose)))
                .collect(),
        }
    }
}

impl NodeReport {
    /// What a message says, and what of it cannot be used.
    pub fn from_wire(report: wire::NodeReport) -> (Self, Vec<Invalid>) {
        let mut invalid = Vec::new();
        let addresses = report.addresses.iter();
        let addresses = usable(
            &mut invalid,
            addresses.map(|bytes| address("addresses", bytes)),
        );
        let peers = usable(
            &mut invalid,
            report.peers.into_iter().map(TryInto::try_into),
        );
        let sources = usable(
            &mut invalid,
            report.sources.into_iter().map(TryInto::try_into),
        );
        let rejected = usable(
            &mut invalid,
            report.rejected.into_iter().map(TryInto::try_into),
        );
        let listening = report.listening.into_iter();
        let listening: Vec<u16> = usable(
            &mut invalid,
            listening.map(|number| port("listening", number)),
        );
        let own_ports = report.own_ports.into_iter();
        let own_ports = usable(
            &mut invalid,
            own_ports.map(|(number, purpose)| Ok((port("own ports", number)?, reason(&purpose)))),
        );
        let report = Self {
            software: report.software,
            waits_for: report.waits_for,
            addresses,
            steering: SteeringReport {
                on: report.steering,
                reason: report.steering_reason,
            },
            peers,
            sources,
            rejected,
            listening: listening.into_iter().collect(),
            own_ports: own_ports.into_iter().collect(),
        };
        (report, invalid)
    }
}

fn port(field: &'static str, number: u32) -> Result<u16, Invalid> {
    u16::try_from(number).map_err(|_| Invalid::new(field, format_args!("{number} is above 65535")))
}

fn usable<T>(
    invalid: &mut Vec<Invalid>,
    items: impl Iterator<Item = Result<T, Invalid>>,
) -> Vec<T> {
    items
        .filter_map(|item| item.map_err(|error| invalid.push(error)).ok())
        .collect()
}

impl From<&PeerReport> for wire::PeerReport {
    fn from(peer: &PeerReport) -> Self {
        Self {
            name: peer.name.as_str().to_owned(),
            reachable: peer.reachable,
            rtt_ns: (peer.rtt).map(|rtt| u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX)),
            last_seen_ms: peer.last_seen_ms,
            software: peer.software.clone(),
            labels: peer.labels.clone(),
            error: peer.error.clone(),
        }
    }
}

impl TryFrom<wire::PeerReport> for PeerReport {
    type Error = Invalid;

    fn try_from(peer: wire::PeerReport) -> Result<Self, Invalid> {
        Ok(Self {
            name: peer_name("name of a peer", &peer.name)?,
            reachable: peer.reachable,
            rtt: peer.rtt_ns.map(Duration::from_nanos),
            last_seen_ms: peer.last_seen_ms,
            software: peer.software,
            labels: peer.labels,
            error: peer.error,
        })
    }
}

impl From<&SourceReport> for wire::SourceReport {
    fn from(report: &SourceReport) -> Self {
        Self {
            import: Some((&report.import).into()),
            source: Some((&report.source).into()),
            accepted: report.accepted,
            reason: reason(&report.reason),
        }
    }
}

impl TryFrom<wire::SourceReport> for SourceReport {
    type Error = Invalid;

    fn try_from(report: wire::SourceReport) -> Result<Self, Invalid> {
        Ok(Self {
            import: present("import of a source", report.import)?.into(),
            source: present("source", report.source)?.try_into()?,
            accepted: report.accepted,
            reason: report.reason,
        })
    }
}

impl From<&Rejected> for wire::Reject {
    fn from(rejected: &Rejected) -> Self {
        Self {
            name: Some((&rejected.key).into()),
            reason: reason(&rejected.reason),
        }
    }
}

impl TryFrom<wire::Reject> for Rejected {
    type Error = Invalid;

    fn try_from(rejected: wire::Reject) -> Result<Self, Invalid> {
        Ok(Self {
            key: ResourceKey::try_from(&present("name of a rejected resource", rejected.name)?)?,
            reason: rejected.reason,
        })
    }
}

/// What a replica rejects, as a report shows it; kinds that are not known here have no place in it.
pub(crate) fn rejected(all: &BTreeMap<wire::ResourceName, String>) -> Vec<Rejected> {
    all.iter()
        .filter_map(|(name, reason)| {
            let key = ResourceKey::try_from(name).ok()?;
            let reason = reason.clone();
            Some(Rejected { key, reason })
        })
        .collect()
}
