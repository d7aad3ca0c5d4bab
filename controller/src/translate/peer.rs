//! Peer → Peer of the model.

use std::num::NonZeroU16;

use clusterlink_crds::conditions::reasons;
use clusterlink_model::{HostPort, ObjectName, Peer, PeerName};

use super::syntax;
use crate::status::Finding;

/// The condition of a Peer object: whether all of it could be used.
pub(crate) const PEER_VALID: &str = "PeerValid";

/// The peer that an object speaks of. A gateway that cannot be dialled is left out and reported;
/// the others stay usable.
pub(crate) fn translate(
    object: &ObjectName,
    peer: &clusterlink_crds::Peer,
) -> (Option<Peer>, Finding) {
    let name = match PeerName::new(&object.name) {
        Ok(name) => name,
        Err(error) => {
            let message = format!(
                "Peer {object}: {error}: name it as the DNS name in that peer's certificate"
            );
            return (
                None,
                Finding::invalid(PEER_VALID, reasons::NAME_INVALID, message),
            );
        }
    };
    let mut gateways = Vec::new();
    let mut complaints = Vec::new();
    for (number, gateway) in peer.spec.gateways.iter().enumerate() {
        match (
            syntax::is_host(&gateway.host),
            NonZeroU16::new(gateway.port),
        ) {
            (true, Some(port)) => {
                let gateway = HostPort {
                    host: gateway.host.as_str().into(),
                    port,
                };
                if !gateways.contains(&gateway) {
                    gateways.push(gateway);
                }
            }
            (false, _) => complaints.push(format!(
                "spec.gateways[{number}].host is {:?}, which is neither a DNS name nor an address",
                gateway.host
            )),
            (true, None) => {
                complaints.push(format!("spec.gateways[{number}].port is 0: use 1 to 65535"));
            }
        }
    }
    let finding = if complaints.is_empty() {
        Finding::valid(PEER_VALID, "")
    } else {
        let message = format!(
            "Peer {object}: {}: correct it; it is left out until then",
            complaints.join("; ")
        );
        Finding::invalid(PEER_VALID, reasons::GATEWAY_INVALID, message)
    };
    let translated = Peer {
        name,
        gateways,
        labels: peer.spec.labels.clone(),
        not_issued_before: peer
            .spec
            .not_issued_before
            .as_ref()
            .map(|time| time.0.as_second()),
    };
    (Some(translated), finding)
}

/// The finding on an object that repeats the name of one in another namespace.
pub(crate) fn duplicate(object: &ObjectName, first: &ObjectName) -> Finding {
    let message = format!(
        "Peer {object}: {first} describes the same peer and counts: delete one of them, a Peer counts in any namespace"
    );
    Finding::invalid(PEER_VALID, reasons::DUPLICATE, message)
}

#[cfg(test)]
mod tests {
    use clusterlink_crds::{Gateway, PeerSpec};

    use super::*;

    fn object(gateways: &[(&str, u16)]) -> clusterlink_crds::Peer {
        let gateways = gateways
            .iter()
            .map(|(host, port)| Gateway {
                host: (*host).into(),
                port: *port,
            })
            .collect();
        let spec = PeerSpec {
            gateways,
            labels: None,
            not_issued_before: None,
        };
        clusterlink_crds::Peer::new("east", spec)
    }

    fn name(name: &str) -> ObjectName {
        ObjectName::new("clusterlink-system", name)
    }

    #[test]
    fn a_peer_is_named_in_lower_case_and_keeps_the_order_of_its_gateways() {
        let (peer, finding) = translate(
            &name("East.example"),
            &object(&[("b.example", 443), ("10.0.0.1", 4443)]),
        );
        let peer = peer.unwrap();
        assert!(finding.holds);
        assert_eq!(peer.name.as_str(), "east.example");
        let shown: Vec<String> = peer.gateways.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["b.example:443", "10.0.0.1:4443"]);
    }

    #[test]
    fn a_peer_without_gateways_only_calls_us_and_is_valid() {
        let (peer, finding) = translate(&name("east"), &object(&[]));
        assert!(finding.holds && peer.unwrap().gateways.is_empty());
    }

    #[test]
    fn a_wrong_gateway_is_named_and_left_out() {
        for (gateways, told) in [
            (
                vec![("a b", 1), ("ok", 1)],
                "spec.gateways[0].host is \"a b\"",
            ),
            (vec![("ok", 1), ("", 1)], "spec.gateways[1].host is \"\""),
            (vec![("ok", 1), ("zero", 0)], "spec.gateways[1].port is 0"),
        ] {
            let (peer, finding) = translate(&name("east"), &object(&gateways));
            assert_eq!(peer.unwrap().gateways.len(), 1, "{told}");
            assert!(
                !finding.holds && finding.message.contains(told),
                "{}",
                finding.message
            );
        }
    }

    #[test]
    fn a_name_that_no_certificate_can_carry_is_refused() {
        let (peer, finding) = translate(&name("not_dns"), &object(&[]));
        assert!(peer.is_none());
        assert!(finding.message.contains("not_dns"), "{}", finding.message);
    }
}
