//! The generated manifests in `deploy/crds`.
//!
//! The types that they come from are only linked with the feature `crds`, which this command asks
//! for by running itself again.

use anyhow::Result;

#[cfg(feature = "crds")]
mod manifests;

/// Writes them.
#[cfg(feature = "crds")]
pub(crate) fn write() -> Result<()> {
    manifests::write()
}

/// Fails where the files are not what the types say.
#[cfg(feature = "crds")]
pub(crate) fn check() -> Result<()> {
    manifests::check()
}

/// Writes them.
#[cfg(not(feature = "crds"))]
pub(crate) fn write() -> Result<()> {
    again(&["crds"])
}

/// Fails where the files are not what the types say.
#[cfg(not(feature = "crds"))]
pub(crate) fn check() -> Result<()> {
    again(&["crds", "--check"])
}

#[cfg(not(feature = "crds"))]
fn again(arguments: &[&str]) -> Result<()> {
    let mut cargo = crate::workspace::cargo();
    cargo.args([
        "run",
        "--quiet",
        "--package",
        "xtask",
        "--features",
        "crds",
        "--",
    ]);
    crate::step::quietly("the manifests of the CRDs", cargo.args(arguments))
}
