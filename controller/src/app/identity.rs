//! Who this peer is, and where this replica can be reached.

use std::net::{IpAddr, SocketAddr};

use clusterlink_model::PeerName;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, Config};
use x509_parser::{extensions::GeneralName, pem::Pem};

/// The only Secret that is ever read: certificate, key and trust bundle of this peer. Only the
/// certificate is looked at.
pub(crate) const PEER_SECRET: &str = "clusterlink-peer";
const CERTIFICATE: &str = "cert.pem";

/// Why it is not known who or where this is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The Secret could not be read.
    #[error(
        "cannot read Secret {namespace}/{PEER_SECRET}; give --peer-name, or see that the Secret is there and the ServiceAccount may get it"
    )]
    Secret {
        /// The system namespace.
        namespace: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The certificate does not say who this is.
    #[error(
        "Secret {namespace}/{PEER_SECRET}, key {CERTIFICATE}: {why}; make the Secret of what `clusterlink create peer-cert` wrote, or give --peer-name"
    )]
    Certificate {
        /// The system namespace.
        namespace: String,
        /// What is wrong with it.
        why: String,
    },
    /// The API server's address does not tell ours.
    #[error("cannot tell which address of this host agents reach; give --advertise")]
    Address(#[source] std::io::Error),
}

/// The name of this peer: the only DNS name of its certificate.
pub(super) async fn peer_name(client: &Client, namespace: &str) -> Result<PeerName, IdentityError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets
        .get(PEER_SECRET)
        .await
        .map_err(|source| IdentityError::Secret {
            namespace: namespace.to_owned(),
            source,
        })?;
    let pem = secret.data.as_ref().and_then(|data| data.get(CERTIFICATE));
    let name = match pem {
        Some(pem) => name_of(&pem.0),
        None => Err("the key is missing".to_owned()),
    };
    name.map_err(|why| IdentityError::Certificate {
        namespace: namespace.to_owned(),
        why,
    })
}

fn name_of(pem: &[u8]) -> Result<PeerName, String> {
    let mut blocks = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    let leaf = blocks
        .find(|block| block.label == "CERTIFICATE")
        .ok_or("no certificate in it")?;
    let leaf = leaf.parse_x509().map_err(|error| error.to_string())?;
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| error.to_string())?;
    let names: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect();
    match names[..] {
        [name] => PeerName::new(name).map_err(|error| error.to_string()),
        _ => Err(format!(
            "the certificate must have exactly one DNS SAN, the name of its peer, but has {names:?}"
        )),
    }
}

/// The address that agents are told. Where none is given, it is the one that packets to the API
/// server would leave from; none is sent.
pub(super) async fn advertised(
    given: Option<IpAddr>,
    listen: SocketAddr,
    config: &Config,
) -> Result<IpAddr, IdentityError> {
    if let Some(address) = given {
        return Ok(address);
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen.ip());
    }
    towards(config).await.map_err(IdentityError::Address)
}

async fn towards(config: &Config) -> std::io::Result<IpAddr> {
    let host = config.cluster_url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let server = tokio::net::lookup_host((host, port)).await?.next();
    let server = server.ok_or_else(|| std::io::Error::other(format!("{host} has no address")))?;
    let any: IpAddr = if server.is_ipv4() {
        [0; 4].into()
    } else {
        [0_u16; 8].into()
    };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        rcgen::generate_simple_self_signed(names)
            .unwrap()
            .cert
            .pem()
    }

    #[test]
    fn the_peer_is_the_only_name_of_its_certificate() {
        let name = name_of(certificate(&["East.example"]).as_bytes()).unwrap();
        assert_eq!(name.as_str(), "east.example");
    }

    #[test]
    fn a_certificate_that_does_not_say_who_it_is_is_explained() {
        let two = certificate(&["a.example", "b.example"]);
        for (pem, why) in [
            ("", "no certificate"),
            (two.as_str(), "exactly one DNS SAN"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "",
            ),
        ] {
            let error = name_of(pem.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
