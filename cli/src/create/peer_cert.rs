//! `clusterlink create peer-cert`: the certificate of one peer.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use clap::Args;
use clusterlink_gateway::tls::Credentials;
use clusterlink_model::PeerName;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, string::Ia5String,
};
use rustls::pki_types::DnsName;
use x509_parser::pem::Pem;

use super::{
    fabric::{self, DEFAULT_FABRIC},
    files::{self, NewFile, PRIVATE, PUBLIC},
    terms::{KeyType, Validity},
};

const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";
const CA: &str = "ca.pem";

/// Flags of `create peer-cert`.
#[derive(Args, Clone, Debug)]
pub struct PeerCertArgs {
    /// Name of the peer: a DNS name, which becomes the only DNS SAN of the certificate.
    #[arg(long, value_name = "NAME", value_parser = peer_name)]
    pub name: PeerName,
    /// Name of the fabric that signs it.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_FABRIC)]
    pub fabric: String,
    /// Directory in which the fabric's directory is.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub path: PathBuf,
    /// How long the certificate is valid, such as 365d or 8760h; never beyond the fabric's own end.
    #[arg(long, value_name = "TIME", default_value_t = Validity::days(365))]
    pub validity: Validity,
    /// Kind of the private key.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = KeyType::EcdsaP256)]
    pub key_type: KeyType,
}

/// Makes the certificate; tells where it is and until when it is valid.
pub(super) fn create(args: &PeerCertArgs) -> anyhow::Result<String> {
    let fabric_dir = fabric::directory(&args.path, &args.fabric)?;
    let dir = fabric_dir.join(args.name.as_str());
    files::refuse_existing(&dir, &[CERT, KEY, CA])?;
    let authority = Authority::load(&fabric_dir)?;

    let (from, wanted) = args.validity.period();
    let until = wanted.min(authority.not_after);
    let key = args.key_type.generate()?;
    let certificate = authority.issue(&args.name, &key, from, until)?;
    let written = files::write_all(
        &dir,
        &[
            NewFile {
                name: KEY,
                content: &key.serialize_pem(),
                mode: PRIVATE,
            },
            NewFile {
                name: CA,
                content: &authority.certificate,
                mode: PUBLIC,
            },
            NewFile {
                name: CERT,
                content: &certificate,
                mode: PUBLIC,
            },
        ],
    )?;
    let credentials = Credentials::load(&dir, 0).with_context(|| {
        format!(
            "no peer would accept what the fabric in {} signs",
            fabric_dir.display()
        )
    })?;
    written.keep();

    let mut report = format!(
        "Created the certificate of the peer {} in {}, valid until {}.",
        credentials.name(),
        dir.display(),
        date(credentials.not_after()),
    );
    if until < wanted {
        report.push_str(
            "\nThat is sooner than asked for: the fabric's own certificate ends then. \
             A new fabric certificate is due before.",
        );
    }
    Ok(report)
}

/// A peer's name that TLS can ask for as well.
fn peer_name(text: &str) -> Result<PeerName, String> {
    let name = PeerName::new(text).map_err(|error| error.to_string())?;
    match DnsName::try_from(name.as_str()) {
        Ok(_) => Ok(name),
        Err(_) => Err(format!(
            "{name} is no DNS name: its last label must not be a number"
        )),
    }
}

/// A fabric that can sign.
struct Authority {
    /// PEM; becomes the peer's trust bundle.
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
}

impl Authority {
    fn load(dir: &Path) -> anyhow::Result<Self> {
        let (cert_path, key_path) = (dir.join(fabric::CERT), dir.join(fabric::KEY));
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| {
                format!(
                    "cannot read {}: make the fabric with `clusterlink create fabric`, or name it \
                     with --fabric and --path",
                    path.display()
                )
            })
        };
        let certificate = read(&cert_path)?;
        let key = read(&key_path)?;

        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes())
            .with_context(|| format!("{} holds no PEM certificate", cert_path.display()))?;
        let facts = facts(&pem).with_context(|| {
            format!("{} is not the certificate of a fabric", cert_path.display())
        })?;
        let key = KeyPair::from_pem(&key)
            .with_context(|| format!("{} holds no usable private key", key_path.display()))?;
        if key.subject_public_key_info() != facts.public_key {
            bail!(
                "the key in {} does not belong to the certificate in {}: restore both from one copy",
                key_path.display(),
                cert_path.display()
            );
        }
        if facts.not_after <= SystemTime::now() {
            bail!(
                "the fabric's certificate in {} expired at {}: make a new fabric",
                cert_path.display(),
                date(facts.not_after)
            );
        }
        let issuer = Issuer::from_ca_cert_der(&pem.contents.as_slice().into(), key)
            .with_context(|| format!("{} cannot sign certificates", cert_path.display()))?;
        Ok(Self {
            certificate,
            issuer,
            not_after: facts.not_after,
        })
    }

    fn issue(
        &self,
        peer: &PeerName,
        key: &KeyPair,
        from: SystemTime,
        until: SystemTime,
    ) -> anyhow::Result<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // A common name holds 64 characters at most; the SAN is what counts.
        if peer.as_str().len() <= 64 {
            params
                .distinguished_name
                .push(DnType::CommonName, peer.as_str());
        }
        let name = Ia5String::try_from(peer.as_str()).context("a peer's name is ASCII")?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = from.into();
        params.not_after = until.into();
        let certificate = params
            .signed_by(key, &self.issuer)
            .with_context(|| format!("cannot sign the certificate of the peer {peer}"))?;
        Ok(certificate.pem())
    }
}

struct AuthorityFacts {
    not_after: SystemTime,
    public_key: Vec<u8>,
}

fn facts(pem: &Pem) -> anyhow::Result<AuthorityFacts> {
    let certificate = pem.parse_x509().context("its encoding is wrong")?;
    if !certificate.is_ca() {
        bail!("it is not a certificate authority: use the cert.pem that `create fabric` made");
    }
    let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Ok(AuthorityFacts {
        not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(not_after),
        public_key: certificate.public_key().raw.to_vec(),
    })
}

fn date(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| x509_parser::time::ASN1Time::from_timestamp(seconds).ok())
        .map_or_else(
            || format!("second {seconds} of the epoch"),
            |time| time.to_string(),
        )
}

#[cfg(test)]
mod tests;
