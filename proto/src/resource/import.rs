use clusterlink_model::{Import, LbScheme};

use crate::{
    invalid::Invalid,
    parts::{address_list, addresses, port, present},
    wire,
};

impl From<&Import> for wire::Import {
    fn from(import: &Import) -> Self {
        let scheme = match import.scheme {
            LbScheme::Random => wire::LbScheme::Random,
            LbScheme::RoundRobin => wire::LbScheme::RoundRobin,
            LbScheme::Static => wire::LbScheme::Static,
        };
        Self {
            name: Some((&import.name).into()),
            labels: import.labels.clone(),
            addresses: address_list(&import.addresses),
            port: import.port.get().into(),
            target_port: import.target_port.map_or(0, |port| port.get().into()),
            sources: import.sources.iter().map(Into::into).collect(),
            scheme: scheme.into(),
        }
    }
}

impl TryFrom<wire::Import> for Import {
    type Error = Invalid;

    fn try_from(import: wire::Import) -> Result<Self, Invalid> {
        let scheme = wire::LbScheme::try_from(import.scheme)
            .map_err(|error| Invalid::unknown("scheme", error.0))?;
        let target_port = match import.target_port {
            0 => None,
            number => Some(port("target port", number)?),
        };
        let sources: Result<_, _> = import.sources.into_iter().map(TryInto::try_into).collect();
        Ok(Self {
            name: present("name", import.name)?.into(),
            labels: import.labels,
            addresses: addresses("addresses", &import.addresses)?,
            port: port("port", import.port)?,
            target_port,
            sources: sources?,
            scheme: match scheme {
                wire::LbScheme::Unspecified => return Err(Invalid::missing("scheme")),
                wire::LbScheme::Random => LbScheme::Random,
                wire::LbScheme::RoundRobin => LbScheme::RoundRobin,
                wire::LbScheme::Static => LbScheme::Static,
            },
        })
    }
}
