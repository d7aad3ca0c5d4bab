//! Service and EndpointSlices → what an Export is delivered to.

use std::{collections::BTreeSet, net::IpAddr, net::SocketAddr, num::NonZeroU16, sync::Arc};

use clusterlink_crds::{conditions::reasons, labels};
use clusterlink_model::{Backend, Endpoint, HostPort};
use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::syntax;

pub(crate) mod permitted;

/// What a Service port is delivered to, and what its user should know of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) backend: Backend,
    /// Why there is no endpoint although the Service is fine; else empty.
    pub(crate) remark: String,
}

/// Why a Service cannot be exported.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Whether a Service is one that ClusterLink made for an Import.
pub(crate) fn is_ours(service: &Service) -> bool {
    label(service.metadata.labels.as_ref(), labels::MANAGED_BY) == Some(labels::MANAGER)
}

/// The Service that a slice belongs to; `None` for slices that are never backends, such as our
/// own: two clusters that merge each other's Service must not send connections in a circle.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref();
    let ours = label(labels, labels::ENDPOINT_SLICE_MANAGED_BY) == Some(labels::MANAGER);
    if ours {
        None
    } else {
        label(labels, labels::SERVICE_NAME)
    }
}

/// Resolves one port of a Service.
pub(crate) fn resolve<'a>(
    service: &Service,
    port: NonZeroU16,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Result<Resolved, Unresolved> {
    let spec = service.spec.as_ref();
    let ports = spec
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        // An ExternalName Service needs no port list; where it has one, it is a promise.
        if !ports.is_empty() {
            find_port(ports, port)?;
        }
        let name = spec
            .and_then(|spec| spec.external_name.as_deref())
            .unwrap_or_default();
        return external_name(name, port);
    }
    let service_port = find_port(ports, port)?;
    Ok(endpoints(service_port, slices))
}

fn label<'a>(
    labels: Option<&'a std::collections::BTreeMap<String, String>>,
    key: &str,
) -> Option<&'a str> {
    labels?.get(key).map(String::as_str)
}

fn find_port(ports: &[ServicePort], port: NonZeroU16) -> Result<&ServicePort, Unresolved> {
    let wanted = i32::from(port.get());
    let mut other_protocol = None;
    for candidate in ports.iter().filter(|candidate| candidate.port == wanted) {
        match candidate.protocol.as_deref() {
            None | Some("TCP") => return Ok(candidate),
            Some(protocol) => other_protocol = Some(protocol),
        }
    }
    let message = match other_protocol {
        Some(protocol) => format!(
            "has port {port} for {protocol} only, and only TCP can be shared: add a TCP port to the Service, or export another port"
        ),
        None if ports.is_empty() => format!("has no ports: add port {port} to the Service"),
        None => {
            let existing: Vec<String> = ports
                .iter()
                .map(|p| format!("{}/{}", p.port, p.protocol.as_deref().unwrap_or("TCP")))
                .collect();
            format!(
                "has no port {port} (it has {}): change spec.port of the Export, or add the port to the Service",
                existing.join(", ")
            )
        }
    };
    Err(Unresolved {
        reason: reasons::PORT_NOT_FOUND,
        message,
    })
}

fn external_name(name: &str, port: NonZeroU16) -> Result<Resolved, Unresolved> {
    if !syntax::is_host(name) {
        return Err(Unresolved {
            reason: reasons::HOST_INVALID,
            message: format!(
                "has spec.externalName {name:?}, which is neither a DNS name nor an address: correct it"
            ),
        });
    }
    if is_of_the_cluster(name) {
        return Err(Unresolved {
            reason: reasons::HOST_INVALID,
            message: format!(
                "has spec.externalName {name:?}, which names a Service of this cluster: export that Service in its own namespace, since only there it can be allowed"
            ),
        });
    }
    let backend = Backend::Name(HostPort {
        host: name.into(),
        port,
    });
    Ok(Resolved {
        backend,
        remark: String::new(),
    })
}

/// Whether a name is `SERVICE.NAMESPACE.svc`, under whatever domain: the gateway would reach what the
/// Export's namespace has no right to give away.
fn is_of_the_cluster(name: &str) -> bool {
    let mut labels = name.split('.').skip(2);
    labels
        .next()
        .is_some_and(|label| label.eq_ignore_ascii_case("svc"))
}

fn endpoints<'a>(
    service_port: &ServicePort,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Resolved {
    let mut ready = BTreeSet::new();
    let mut seen = Seen::default();
    for slice in slices {
        seen.slices += 1;
        let Some(port) = slice_port(service_port, slice) else {
            seen.without_port += 1;
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten() {
            // Addresses after the first have no defined meaning.
            let Some(address) = endpoint.addresses.first() else {
                continue;
            };
            let Ok(address) = address.parse::<IpAddr>() else {
                seen.bad_address = Some(address.clone());
                continue;
            };
            let conditions = endpoint.conditions.as_ref();
            let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            if !is_ready || terminating {
                seen.not_ready += 1;
                continue;
            }
            ready.insert(Endpoint {
                address: SocketAddr::new(address, port.get()),
                node: endpoint.node_name.as_deref().map(Arc::from),
                zone: endpoint.zone.as_deref().map(Arc::from),
            });
        }
    }
    let remark = if ready.is_empty() {
        seen.why_empty(service_port)
    } else {
        String::new()
    };
    Resolved {
        backend: Backend::Endpoints(ready.into_iter().collect()),
        remark,
    }
}

/// The port of a slice is found by the Service port's name: targetPort has already been resolved
/// by whoever wrote the slice, for named ports even differently in each slice.
fn slice_port(service_port: &ServicePort, slice: &EndpointSlice) -> Option<NonZeroU16> {
    let name = service_port.name.as_deref().unwrap_or_default();
    let port = slice.ports.iter().flatten().find(|port| {
        port.name.as_deref().unwrap_or_default() == name
            && matches!(port.protocol.as_deref(), None | Some("TCP"))
    })?;
    let number = match (port.port, &service_port.target_port) {
        (Some(number), _) => number,
        (None, Some(IntOrString::Int(number))) => *number,
        (None, None) => service_port.port,
        (None, Some(IntOrString::String(_))) => return None,
    };
    NonZeroU16::new(u16::try_from(number).ok()?)
}

/// What was found on the way, to explain an empty result.
#[derive(Default)]
struct Seen {
    slices: usize,
    without_port: usize,
    not_ready: usize,
    bad_address: Option<String>,
}

impl Seen {
    fn why_empty(&self, port: &ServicePort) -> String {
        let name = port.name.as_deref().unwrap_or_default();
        if self.slices == 0 {
            format!(
                "no EndpointSlice carries the label {}: connections fail until one does",
                labels::SERVICE_NAME
            )
        } else if let Some(address) = &self.bad_address {
            format!("an EndpointSlice has the address {address:?}, which is no IP address")
        } else if self.without_port == self.slices {
            format!(
                "no EndpointSlice has a numbered TCP port named {name:?}, as the Service's port is"
            )
        } else {
            format!("no endpoint is ready ({} are not)", self.not_ready)
        }
    }
}

#[cfg(test)]
mod tests;
