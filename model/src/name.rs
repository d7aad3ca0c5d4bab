//! Names: peers, namespaced objects, policies, and host:port pairs.

use std::{fmt, num::NonZeroU16, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The name of a peer: the only DNS SAN of its certificate, in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PeerName(Arc<str>);

/// Why a text is no peer name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a DNS name (RFC 1123: labels of a-z, 0-9 and '-', at most 253 characters)"
)]
pub struct InvalidPeerName {
    name: String,
}

impl PeerName {
    /// Checks that `name` is a DNS name and folds it to lower case.
    pub fn new(name: &str) -> Result<Self, InvalidPeerName> {
        let valid = !name.is_empty()
            && name.len() <= 253
            && name.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            });
        if valid {
            Ok(Self(name.to_ascii_lowercase().into()))
        } else {
            Err(InvalidPeerName {
                name: name.chars().take(300).collect(),
            })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerName {
    type Err = InvalidPeerName;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

impl<'de> Deserialize<'de> for PeerName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Namespace and name of an object; shown as `namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name within the namespace.
    pub name: Arc<str>,
}

impl ObjectName {
    /// A name from its two parts, which the caller has validated.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which access policy: an `AccessPolicy` of a namespace or a `PrivilegedAccessPolicy`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PolicyName {
    /// Cluster-scoped, judged before every namespaced one.
    Privileged(Arc<str>),
    /// Lives in, and governs, one namespace.
    Namespaced(ObjectName),
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Privileged(name) => write!(f, "PrivilegedAccessPolicy {name}"),
            Self::Namespaced(name) => write!(f, "AccessPolicy {name}"),
        }
    }
}

/// A host (DNS name or address) and a port, as written in a Peer's `gateways`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// A DNS name or an IP address, without brackets.
    pub host: Arc<str>,
    /// The TCP port.
    pub port: NonZeroU16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_name_is_a_dns_name_in_lower_case() {
        let long_label = "a".repeat(63);
        let longest = [long_label.as_str(); 4].join(".")[..253].to_owned();
        for (text, expected) in [
            ("peer1", Some("peer1")),
            ("Peer-1.Example", Some("peer-1.example")),
            ("1", Some("1")),
            (&long_label, Some(&*long_label)),
            (&longest, Some(&*longest)),
            ("", None),
            ("a..b", None),
            (".a", None),
            ("a.", None),
            ("-a", None),
            ("a-", None),
            ("a_b", None),
            ("a b", None),
            ("*.example", None),
            ("pe\u{e9}r", None),
            (&format!("{long_label}a"), None),
            (&format!("{longest}a"), None),
        ] {
            assert_eq!(
                PeerName::new(text).ok().as_ref().map(PeerName::as_str),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_peer_name_is_checked_when_it_is_read() {
        assert_eq!(
            serde_json::from_str::<PeerName>("\"A\"").unwrap().as_str(),
            "a"
        );
        let error = serde_json::from_str::<PeerName>("\"a_b\"")
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"a_b\" is not a DNS name"), "{error}");
    }

    #[test]
    fn names_are_shown_as_people_write_them() {
        let port = NonZeroU16::MIN;
        let at = |host: &str| {
            HostPort {
                host: host.into(),
                port,
            }
            .to_string()
        };
        assert_eq!(at("gw.example"), "gw.example:1");
        assert_eq!(at("192.0.2.1"), "192.0.2.1:1");
        assert_eq!(at("2001:db8::1"), "[2001:db8::1]:1");
        let name = ObjectName::new("shop", "web");
        assert_eq!(name.to_string(), "shop/web");
        assert_eq!(
            PolicyName::Namespaced(name).to_string(),
            "AccessPolicy shop/web"
        );
        assert_eq!(
            PolicyName::Privileged("deny-all".into()).to_string(),
            "PrivilegedAccessPolicy deny-all"
        );
    }
}
