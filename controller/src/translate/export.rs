//! Export → Export of the model.

use std::num::NonZeroU16;

use clusterlink_crds::conditions::{EXPORT_VALID, reasons};
use clusterlink_model::{Backend, Export, ObjectName};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use super::{backend, syntax};
use crate::status::Finding;

/// What an Export's host stands for.
#[derive(Debug)]
pub(crate) enum Host<'a> {
    /// A Service that is not ours, and the slices that may be its backends.
    Service(&'a Service, Vec<&'a EndpointSlice>),
    /// An Import of the same namespace; the connection is relayed to another peer.
    Import {
        /// The port that the Import has.
        port: u16,
        /// Whether the Import itself is handed out.
        usable: bool,
    },
    /// Neither.
    Missing,
}

/// The object that an Export's host refers to.
pub(crate) fn host(name: &ObjectName, export: &clusterlink_crds::Export) -> ObjectName {
    let host = export.spec.host.as_deref().filter(|host| !host.is_empty());
    ObjectName {
        namespace: name.namespace.clone(),
        name: host.map_or_else(|| name.name.clone(), Into::into),
    }
}

/// The export, which is kept even while nothing backs it, so that callers learn of it.
pub(crate) fn translate(
    name: &ObjectName,
    export: &clusterlink_crds::Export,
    host: Host<'_>,
) -> (Export, Finding) {
    let (backend, finding) = match resolve(name, export, host) {
        Ok(resolved) => (
            resolved.backend,
            Finding::valid(EXPORT_VALID, resolved.remark),
        ),
        Err(why) => {
            let message = format!("Export {name}: {}", why.message);
            let backend = Backend::Unavailable(message.as_str().into());
            (backend, Finding::invalid(EXPORT_VALID, why.reason, message))
        }
    };
    let labels = export.metadata.labels.clone().unwrap_or_default();
    (
        Export {
            name: name.clone(),
            labels,
            backend,
        },
        finding,
    )
}

fn resolve(
    name: &ObjectName,
    export: &clusterlink_crds::Export,
    resolved: Host<'_>,
) -> Result<backend::Resolved, backend::Unresolved> {
    let host = host(name, export);
    let Some(port) = NonZeroU16::new(export.spec.port) else {
        return Err(backend::Unresolved {
            reason: reasons::PORT_NOT_FOUND,
            message: "spec.port is 0: use the port of the Service, 1 to 65535".to_owned(),
        });
    };
    match resolved {
        Host::Service(service, slices) => {
            backend::resolve(service, port, slices).map_err(|why| backend::Unresolved {
                message: format!("Service {host} {}", why.message),
                ..why
            })
        }
        Host::Import { usable: false, .. } => Err(backend::Unresolved {
            reason: reasons::IMPORT_INVALID,
            message: format!("Import {host} is not valid itself: correct what its status says"),
        }),
        Host::Import { port: actual, .. } if actual == port.get() => Ok(backend::Resolved {
            backend: Backend::Import(host),
            remark: String::new(),
        }),
        Host::Import { port: actual, .. } => Err(backend::Unresolved {
            reason: reasons::PORT_NOT_FOUND,
            message: format!(
                "Import {host} has port {actual}, not {port}: change spec.port of the Export"
            ),
        }),
        Host::Missing if !syntax::is_dns_subdomain(&host.name) => Err(backend::Unresolved {
            reason: reasons::HOST_INVALID,
            message: format!(
                "spec.host is {:?}, which cannot be the name of a Service or Import: write the name alone, of one in namespace {}",
                host.name, host.namespace
            ),
        }),
        Host::Missing => Err(backend::Unresolved {
            reason: reasons::SERVICE_NOT_FOUND,
            message: format!(
                "no Service and no Import is named {host}: create it, or set spec.host to one in namespace {}",
                host.namespace
            ),
        }),
    }
}
