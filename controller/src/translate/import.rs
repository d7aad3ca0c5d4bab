//! Import → Import of the model, once its leases are known.

use std::{net::IpAddr, num::NonZeroU16};

use clusterlink_crds::{
    ImportSource,
    conditions::{IMPORT_SERVICE_VALID, reasons},
    labels,
};
use clusterlink_model::{Import, LbScheme, ObjectName, PeerName, Source};

use super::syntax;
use crate::status::{Finding, SourceStatus};

/// Why an Import can be served nowhere; `None` if it can.
pub(crate) fn invalid(name: &ObjectName, import: &clusterlink_crds::Import) -> Option<Finding> {
    let (reason, message) = if !syntax::is_service_name(&name.name) {
        (
            reasons::NAME_INVALID,
            format!(
                "metadata.name {:?} is no Service name: use at most 63 of a-z, 0-9 and '-', beginning with a letter and not ending with '-'",
                name.name
            ),
        )
    } else if import.spec.port == 0 {
        (
            reasons::PORT_NOT_FOUND,
            "spec.port is 0: use 1 to 65535".to_owned(),
        )
    } else {
        return None;
    };
    Some(finding(name, reason, &message))
}

/// Why an Import of a standalone peer cannot be given an address; `None` if it can.
pub(crate) fn unfit(
    name: &ObjectName,
    import: &clusterlink_crds::Import,
    foreign_service: bool,
) -> Option<Finding> {
    if let Some(finding) = invalid(name, import) {
        return Some(finding);
    }
    let (reason, message) = if import.merges() {
        (
            reasons::MERGE_UNSUPPORTED,
            format!(
                "label {} is \"true\", but a standalone peer has no Kubernetes Service to merge into: remove the label to give the Import an address of its own",
                labels::IMPORT_MERGE
            ),
        )
    } else if foreign_service {
        (
            reasons::SERVICE_NOT_OWNED,
            format!(
                "a Service {name} exists that was not made for this Import, and is left alone: rename the Import or delete the Service"
            ),
        )
    } else {
        return None;
    };
    Some(finding(name, reason, &message))
}

/// Clients can address it; the message is `remark`, or else that it leads nowhere, if that is so.
pub(crate) fn addressable(
    name: &ObjectName,
    import: &clusterlink_crds::Import,
    remark: String,
) -> Finding {
    let message = match &import.spec.sources[..] {
        _ if !remark.is_empty() => remark,
        [] => format!(
            "Import {name}: spec.sources is empty, so every connection is refused: add a source"
        ),
        sources if sources.iter().all(|source| self::source(source).is_err()) => format!(
            "Import {name}: no source is valid, so every connection is refused: correct them as status.sources says"
        ),
        _ => String::new(),
    };
    Finding::valid(IMPORT_SERVICE_VALID, message)
}

/// When an Import was made, as far as its manifest says: of two that want one port the older
/// counts, else the one whose name comes first.
pub(crate) fn age(object: &clusterlink_crds::Import) -> u64 {
    let created = object.metadata.creation_timestamp.as_ref();
    created
        .and_then(|time| u64::try_from(time.0.as_second()).ok())
        .unwrap_or_default()
}

/// The sources that are well-formed, in the order of the manifest.
pub(crate) fn valid_sources(import: &clusterlink_crds::Import) -> Vec<Source> {
    let sources = import.spec.sources.iter();
    sources
        .filter_map(|source| self::source(source).ok())
        .collect()
}

/// The import with its leases; `None` only if the port is 0.
pub(crate) fn translate(
    name: &ObjectName,
    import: &clusterlink_crds::Import,
    addresses: Vec<IpAddr>,
    target_port: Option<NonZeroU16>,
) -> Option<Import> {
    Some(Import {
        name: name.clone(),
        labels: import.metadata.labels.clone().unwrap_or_default(),
        addresses,
        port: NonZeroU16::new(import.spec.port)?,
        target_port,
        sources: valid_sources(import),
        scheme: scheme(import.spec.lb_scheme),
    })
}

/// How a source is chosen.
pub(crate) fn scheme(scheme: clusterlink_crds::LbScheme) -> LbScheme {
    match scheme {
        clusterlink_crds::LbScheme::Random => LbScheme::Random,
        clusterlink_crds::LbScheme::RoundRobin => LbScheme::RoundRobin,
        clusterlink_crds::LbScheme::Static => LbScheme::Static,
    }
}

/// All sources as written, with the reason of those that are left out.
pub(crate) fn sources(import: &clusterlink_crds::Import) -> Vec<SourceStatus> {
    let status = |source: &ImportSource| SourceStatus {
        peer: source.peer.clone(),
        export_name: source.export_name.clone(),
        export_namespace: source.export_namespace.clone(),
        invalid: self::source(source).err(),
    };
    import.spec.sources.iter().map(status).collect()
}

fn source(source: &ImportSource) -> Result<Source, String> {
    for (field, value) in [
        ("peer", &source.peer),
        ("exportName", &source.export_name),
        ("exportNamespace", &source.export_namespace),
    ] {
        if value.is_empty() {
            return Err(format!("{field} is empty: fill it in"));
        }
    }
    let peer = PeerName::new(&source.peer).map_err(|error| format!("peer {error}"))?;
    if !syntax::is_dns_subdomain(&source.export_name) {
        return Err(format!(
            "exportName is {:?}, which is no object name",
            source.export_name
        ));
    }
    if !syntax::is_dns_label(&source.export_namespace) {
        return Err(format!(
            "exportNamespace is {:?}, which is no namespace",
            source.export_namespace
        ));
    }
    let export = ObjectName::new(
        source.export_namespace.as_str(),
        source.export_name.as_str(),
    );
    Ok(Source { peer, export })
}

fn finding(name: &ObjectName, reason: &'static str, message: &str) -> Finding {
    let message = format!("Import {name}: {message}");
    Finding::invalid(IMPORT_SERVICE_VALID, reason, message)
}

#[cfg(test)]
mod tests;
