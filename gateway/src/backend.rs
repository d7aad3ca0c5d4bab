//! Dials the backend of an export.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clusterlink_model::{Backend, Export};
use tokio::{net::TcpStream, time::timeout};

use crate::view::DialRules;

/// How long one backend may take to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// How many backends are tried for one connection.
const TRIES: usize = 3;

/// Why no backend took the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackendError {
    #[error("export {export}: no ready endpoint")]
    NoEndpoint { export: String },
    #[error("export {export}: {reason}")]
    Unavailable { export: String, reason: String },
    #[error("export {export}: cannot resolve {host}")]
    Resolve {
        export: String,
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("export {export}: {address} may not be a backend: it is {class}")]
    Refused {
        export: String,
        address: IpAddr,
        class: &'static str,
    },
    #[error("export {export}: cannot reach {address}")]
    Dial {
        export: String,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

impl BackendError {
    /// Whether a backend exists but did not take the connection.
    pub(crate) fn is_dial(&self) -> bool {
        matches!(self, Self::Dial { .. })
    }
}

/// Dials one of the export's backends; `random` picks where to begin.
pub(crate) async fn dial(
    export: &Export,
    rules: DialRules,
    random: u64,
) -> Result<(TcpStream, SocketAddr), BackendError> {
    let name = || export.name.to_string();
    let addresses: Vec<SocketAddr> = match &export.backend {
        Backend::Endpoints(endpoints) => endpoints.iter().map(|e| e.address).collect(),
        Backend::Name(target) => tokio::net::lookup_host((target.host.as_ref(), target.port.get()))
            .await
            .map_err(|source| BackendError::Resolve {
                export: name(),
                host: target.host.to_string(),
                source,
            })?
            .collect(),
        Backend::Import(import) => {
            return Err(BackendError::Unavailable {
                export: name(),
                reason: format!("it names Import {import}; relaying imports is not supported yet"),
            });
        }
        Backend::Unavailable(reason) => {
            return Err(BackendError::Unavailable {
                export: name(),
                reason: reason.to_string(),
            });
        }
    };
    if addresses.is_empty() {
        return Err(BackendError::NoEndpoint { export: name() });
    }
    let first = usize::try_from(random % addresses.len() as u64).unwrap_or(0);
    let order = addresses
        .iter()
        .cycle()
        .skip(first)
        .take(addresses.len().min(TRIES));
    let mut failure = None;
    for &address in order {
        match dial_one(&name, address, rules).await {
            Ok(socket) => return Ok((socket, address)),
            // A refusal by rule is a matter for the operator: it is told rather than a later one.
            Err(error) if failure.is_none() || !error.is_dial() => failure = Some(error),
            Err(_) => {}
        }
    }
    Err(failure.unwrap_or_else(|| BackendError::NoEndpoint { export: name() }))
}

async fn dial_one(
    export: &impl Fn() -> String,
    address: SocketAddr,
    rules: DialRules,
) -> Result<TcpStream, BackendError> {
    if let Some(class) = refused_class(address.ip(), rules) {
        return Err(BackendError::Refused {
            export: export(),
            address: address.ip(),
            class,
        });
    }
    let failed = |source| BackendError::Dial {
        export: export(),
        address,
        source,
    };
    match timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| failed(explain(error))),
        Err(_) => Err(failed(io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer within 3 s; is a network policy or firewall in the way?",
        ))),
    }
}

/// Names the usual cause of errors that speak of something else.
fn explain(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        return io::Error::new(
            error.kind(),
            "this host has no free port left towards the backend (net.ipv4.ip_local_port_range)",
        );
    }
    error
}

/// Why an address may not be dialled: the gateway must not lend its host's rights.
fn refused_class(address: IpAddr, rules: DialRules) -> Option<&'static str> {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() {
        Some("unspecified")
    } else if address.is_multicast() {
        Some("multicast")
    } else if broadcast {
        Some("broadcast")
    } else if link_local {
        Some("link-local")
    } else if address.is_loopback() && !rules.allow_local {
        Some("loopback")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_lend_the_hosts_rights_are_refused() {
        let local = DialRules { allow_local: true };
        let strict = DialRules { allow_local: false };
        for (address, rules, expected) in [
            ("10.0.0.1", strict, None),
            ("fd00::1", strict, None),
            ("127.0.0.1", strict, Some("loopback")),
            ("::1", strict, Some("loopback")),
            ("::ffff:127.0.0.1", strict, Some("loopback")),
            ("127.0.0.1", local, None),
            ("169.254.169.254", local, Some("link-local")),
            ("::ffff:169.254.169.254", local, Some("link-local")),
            ("fe80::1", local, Some("link-local")),
            ("0.0.0.0", local, Some("unspecified")),
            ("::", local, Some("unspecified")),
            ("224.0.0.1", local, Some("multicast")),
            ("ff02::1", local, Some("multicast")),
            ("255.255.255.255", local, Some("broadcast")),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(refused_class(address, rules), expected, "{address}");
        }
    }
}
