use std::net::SocketAddr;

use clusterlink_model::{Backend, Endpoint, Export};

use crate::{
    invalid::Invalid,
    parts::{address, address_bytes, present},
    wire::{self, export::Backend as WireBackend},
};

impl From<&Export> for wire::Export {
    fn from(export: &Export) -> Self {
        let backend = match &export.backend {
            Backend::Endpoints(endpoints) => WireBackend::Endpoints(wire::Endpoints {
                endpoints: endpoints.iter().map(Into::into).collect(),
            }),
            Backend::Name(at) => WireBackend::External(at.into()),
            Backend::Import(name) => WireBackend::Import(name.into()),
            Backend::Unavailable(reason) => WireBackend::Unavailable(reason.as_ref().to_owned()),
        };
        Self {
            name: Some((&export.name).into()),
            labels: export.labels.clone(),
            backend: Some(backend),
        }
    }
}

impl TryFrom<wire::Export> for Export {
    type Error = Invalid;

    fn try_from(export: wire::Export) -> Result<Self, Invalid> {
        let backend = match present("backend", export.backend)? {
            WireBackend::Endpoints(all) => {
                let endpoints: Result<_, _> =
                    all.endpoints.into_iter().map(TryInto::try_into).collect();
                Backend::Endpoints(endpoints?)
            }
            WireBackend::External(at) => Backend::Name(at.try_into()?),
            WireBackend::Import(name) => Backend::Import(name.into()),
            WireBackend::Unavailable(reason) => Backend::Unavailable(reason.into()),
        };
        Ok(Self {
            name: present("name", export.name)?.into(),
            labels: export.labels,
            backend,
        })
    }
}

impl From<&Endpoint> for wire::Endpoint {
    /// Scope and flow information of IPv6 stay behind: no endpoint of a Service has them.
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            address: address_bytes(&endpoint.address.ip()),
            port: endpoint.address.port().into(),
            node: endpoint.node.as_deref().map(str::to_owned),
            zone: endpoint.zone.as_deref().map(str::to_owned),
        }
    }
}

impl TryFrom<wire::Endpoint> for Endpoint {
    type Error = Invalid;

    fn try_from(endpoint: wire::Endpoint) -> Result<Self, Invalid> {
        let number = endpoint.port;
        let port = u16::try_from(number).map_err(|_| {
            Invalid::new(
                "port of an endpoint",
                format_args!("{number} is above 65535"),
            )
        })?;
        Ok(Self {
            address: SocketAddr::new(address("address of an endpoint", &endpoint.address)?, port),
            node: endpoint.node.map(Into::into),
            zone: endpoint.zone.map(Into::into),
        })
    }
}
