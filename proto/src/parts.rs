//! What several messages have in common: addresses, ports, names.

use std::{net::IpAddr, num::NonZeroU16};

use bytes::Bytes;
use clusterlink_model::{HostPort, ObjectName, PeerName, Source};

use crate::{MAX_REASON, invalid::Invalid, wire};

/// An address as 4 or 16 bytes.
pub fn address_bytes(address: &IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    }
}

/// The address that 4 or 16 bytes are.
///
/// # Errors
/// When there are more or fewer.
pub fn address(field: &'static str, bytes: &[u8]) -> Result<IpAddr, Invalid> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        Ok(bytes.into())
    } else if let Ok(bytes) = <[u8; 16]>::try_from(bytes) {
        Ok(bytes.into())
    } else {
        let length = bytes.len();
        Err(Invalid::new(
            field,
            format_args!("an address has 4 or 16 bytes, not {length}"),
        ))
    }
}

/// The start of a reason that is short enough to be sent.
pub fn reason(text: &str) -> String {
    let end = (0..=MAX_REASON.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

pub(crate) fn addresses(field: &'static str, all: &[Bytes]) -> Result<Vec<IpAddr>, Invalid> {
    all.iter().map(|bytes| address(field, bytes)).collect()
}

pub(crate) fn address_list(addresses: &[IpAddr]) -> Vec<Bytes> {
    addresses.iter().map(address_bytes).collect()
}

pub(crate) fn port(field: &'static str, port: u32) -> Result<NonZeroU16, Invalid> {
    u16::try_from(port)
        .ok()
        .and_then(NonZeroU16::new)
        .ok_or_else(|| Invalid::new(field, format_args!("{port} is not between 1 and 65535")))
}

pub(crate) fn present<T>(field: &'static str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::missing(field))
}

pub(crate) fn peer_name(field: &'static str, name: &str) -> Result<PeerName, Invalid> {
    PeerName::new(name).map_err(|error| Invalid::new(field, error))
}

impl From<&ObjectName> for wire::ObjectName {
    fn from(name: &ObjectName) -> Self {
        Self {
            namespace: name.namespace.as_ref().to_owned(),
            name: name.name.as_ref().to_owned(),
        }
    }
}

impl From<wire::ObjectName> for ObjectName {
    fn from(name: wire::ObjectName) -> Self {
        Self::new(name.namespace, name.name)
    }
}

impl From<&HostPort> for wire::HostPort {
    fn from(at: &HostPort) -> Self {
        Self {
            host: at.host.as_ref().to_owned(),
            port: at.port.get().into(),
        }
    }
}

impl TryFrom<wire::HostPort> for HostPort {
    type Error = Invalid;

    fn try_from(at: wire::HostPort) -> Result<Self, Invalid> {
        Ok(Self {
            host: at.host.into(),
            port: port("port of a host", at.port)?,
        })
    }
}

impl From<&Source> for wire::Source {
    fn from(source: &Source) -> Self {
        Self {
            peer: source.peer.as_str().to_owned(),
            export: Some((&source.export).into()),
        }
    }
}

impl TryFrom<wire::Source> for Source {
    type Error = Invalid;

    fn try_from(source: wire::Source) -> Result<Self, Invalid> {
        Ok(Self {
            peer: peer_name("peer of a source", &source.peer)?,
            export: present("export of a source", source.export)?.into(),
        })
    }
}
