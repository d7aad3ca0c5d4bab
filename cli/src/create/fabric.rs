//! `clusterlink create fabric`: a certificate authority.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use super::{
    files::{self, NewFile, PRIVATE, PUBLIC},
    terms::{KeyType, Validity},
};

/// The certificate of a fabric, in its directory.
pub(super) const CERT: &str = "cert.pem";
/// The private key of a fabric.
pub(super) const KEY: &str = "key.pem";
/// The name of a fabric that was given none.
pub(super) const DEFAULT_FABRIC: &str = "default_fabric";
/// How long a certificate authority lives.
const VALIDITY: Validity = Validity::days(3650);

/// Flags of `create fabric`.
#[derive(Args, Clone, Debug)]
pub struct FabricArgs {
    /// Name of the fabric, and of the directory that is made for it.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_FABRIC)]
    pub name: String,
    /// Directory in which the fabric's directory is made.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub path: PathBuf,
}

/// Makes the certificate authority; tells where it is.
pub(super) fn create(args: &FabricArgs) -> anyhow::Result<String> {
    let dir = directory(&args.path, &args.name)?;
    files::refuse_existing(&dir, &[CERT, KEY])?;
    let key = KeyType::EcdsaP256.generate()?;
    let certificate = self_signed(&args.name, &key, VALIDITY)?;
    files::write_all(
        &dir,
        &[
            NewFile {
                name: KEY,
                content: &key.serialize_pem(),
                mode: PRIVATE,
            },
            NewFile {
                name: CERT,
                content: &certificate,
                mode: PUBLIC,
            },
        ],
    )?
    .keep();
    Ok(format!(
        "Created the fabric {} in {}.\nWho has its key.pem can make peers: keep it off the peers' hosts.",
        args.name,
        dir.display()
    ))
}

/// The directory of a fabric: one plain directory below `path`.
pub(super) fn directory(path: &Path, fabric: &str) -> anyhow::Result<PathBuf> {
    let plain = {
        let mut components = Path::new(fabric).components();
        matches!(components.next(), Some(Component::Normal(only)) if only == fabric)
            && components.next().is_none()
    };
    if !plain || fabric.len() > 64 || fabric.chars().any(char::is_control) {
        bail!(
            "{fabric:?} cannot name a fabric: it becomes one directory and the common name of a \
             certificate, so use 1 to 64 characters without '/'"
        );
    }
    Ok(path.join(fabric))
}

fn self_signed(name: &str, key: &KeyPair, validity: Validity) -> anyhow::Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let (from, until) = validity.period();
    params.not_before = from.into();
    params.not_after = until.into();
    let certificate = params
        .self_signed(key)
        .with_context(|| format!("cannot sign the certificate of the fabric {name}"))?;
    Ok(certificate.pem())
}

#[cfg(test)]
mod tests;
