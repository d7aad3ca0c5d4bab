use clusterlink_model::Node;
use ipnet::IpNet;

use crate::{
    invalid::Invalid,
    parts::{address, address_bytes, address_list, addresses},
    wire,
};

impl From<&Node> for wire::Node {
    fn from(node: &Node) -> Self {
        let range = |range: &IpNet| wire::Range {
            address: address_bytes(&range.addr()),
            prefix: range.prefix_len().into(),
        };
        Self {
            name: node.name.as_ref().to_owned(),
            addresses: address_list(&node.addresses),
            pod_ranges: node.pod_ranges.iter().map(range).collect(),
            zone: node.zone.as_deref().map(str::to_owned),
        }
    }
}

impl TryFrom<wire::Node> for Node {
    type Error = Invalid;

    fn try_from(node: wire::Node) -> Result<Self, Invalid> {
        let range = |range: &wire::Range| {
            let address = address("pod ranges", &range.address)?;
            let prefix = range.prefix;
            u8::try_from(prefix)
                .ok()
                .and_then(|prefix| IpNet::new(address, prefix).ok())
                .ok_or_else(|| {
                    Invalid::new(
                        "pod ranges",
                        format_args!("{prefix} is too long a prefix for {address}"),
                    )
                })
        };
        let pod_ranges: Result<_, _> = node.pod_ranges.iter().map(range).collect();
        Ok(Self {
            name: node.name.into(),
            addresses: addresses("addresses", &node.addresses)?,
            pod_ranges: pod_ranges?,
            zone: node.zone.map(Into::into),
        })
    }
}
