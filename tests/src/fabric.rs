//! A trust domain, made by the binary under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::scene::Scene;
use crate::tools;

/// A certificate authority and the peers' certificates that it issued.
#[derive(Clone, Debug)]
pub struct Fabric {
    name: String,
    path: PathBuf,
}

impl Fabric {
    /// Runs `clusterlink create fabric` in the scene's directory.
    pub fn create(scene: &Scene, name: &str) -> Result<Self> {
        let path = scene.directory().to_owned();
        create(&["fabric", "--name", name, "--path", tools::text(&path)])?;
        Ok(Self {
            name: name.to_owned(),
            path,
        })
    }

    /// Runs `clusterlink create peer-cert` and gives the directory with the three files.
    pub fn peer_cert(&self, peer: &str) -> Result<PathBuf> {
        self.peer_cert_with(peer, &[])
    }

    /// [`Fabric::peer_cert`] with further flags.
    pub fn peer_cert_with(&self, peer: &str, flags: &[&str]) -> Result<PathBuf> {
        let mut arguments = vec!["peer-cert", "--name", peer, "--fabric", &self.name];
        arguments.extend(["--path", tools::text(&self.path)]);
        arguments.extend(flags);
        create(&arguments)?;
        Ok(self.directory().join(peer))
    }

    /// The directory with the authority's `cert.pem` and `key.pem`.
    pub fn directory(&self) -> PathBuf {
        self.path.join(&self.name)
    }

    /// The certificate of the authority.
    pub fn ca(&self) -> PathBuf {
        self.directory().join("cert.pem")
    }
}

/// Copies `cert.pem`, `key.pem` and `ca.pem` into another directory, each by rename.
pub fn install(from: &Path, into: &Path) -> Result<()> {
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        let temporary = into.join(format!("{file}.new"));
        std::fs::copy(from.join(file), &temporary)
            .with_context(|| format!("cannot copy {}", from.join(file).display()))?;
        std::fs::rename(&temporary, into.join(file))
            .with_context(|| format!("cannot put {} in place", into.join(file).display()))?;
    }
    Ok(())
}

fn create(arguments: &[&str]) -> Result<()> {
    let output = Command::new(tools::clusterlink()?)
        .arg("create")
        .args(arguments)
        .output()
        .context("cannot run clusterlink create")?;
    if !output.status.success() {
        bail!(
            "clusterlink create {} failed ({}): {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
