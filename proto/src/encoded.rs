//! A resource as it goes over the wire: encoded once, shared by all subscribers.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use clusterlink_model::{Resource, ResourceKey};
use prost::Message as _;

use crate::{invalid::Invalid, wire};

/// The version of a resource: a hash of its content, so that replicas and restarts of a controller
/// agree about it. Whoever receives one takes it as it is.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Version(Bytes);

/// An encoded [`wire::Upsert`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    version: Version,
    upsert: Bytes,
}

impl Version {
    /// Bytes of the hash that are used: nobody can make two contents of one version.
    const LENGTH: usize = 16;

    fn of(resource: &[u8]) -> Self {
        let hash = digest(&SHA256, resource);
        Self(Bytes::copy_from_slice(&hash.as_ref()[..Self::LENGTH]))
    }

    /// The version that a message names.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The version for a message.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl Encoded {
    /// Encodes a resource.
    pub fn new(resource: &Resource) -> Self {
        let name = wire::ResourceName::from(&resource.key());
        let bytes = Bytes::from(wire::Resource::from(resource).encode_to_vec());
        let version = Version::of(&bytes);
        let upsert = wire::Upsert {
            name: Some(name),
            version: version.to_bytes(),
            resource: bytes,
        };
        Self {
            version,
            upsert: upsert.encode_to_vec().into(),
        }
    }

    /// The resource's version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The encoded [`wire::Upsert`]; cloning shares it.
    pub fn upsert(&self) -> &Bytes {
        &self.upsert
    }
}

/// The resource in an upsert that names it `key`.
///
/// # Errors
/// When it cannot be used here.
pub fn decode(key: &ResourceKey, resource: Bytes) -> Result<Resource, Invalid> {
    let resource = wire::Resource::decode(resource)
        .map_err(|error| Invalid::new("resource", format_args!("not decodable: {error}")))?;
    let resource = Resource::try_from(resource)?;
    if resource.key() == *key {
        Ok(resource)
    } else {
        Err(Invalid::new(
            "name",
            format_args!("the resource says that it is {:?}", resource.key()),
        ))
    }
}
