//! The binary that demo and stories run: built as for a release, with the kernel programs inside.

use std::path::PathBuf;

use anyhow::Result;

use crate::{step, workspace};

/// Builds `clusterlink` and gives its path.
pub(crate) fn clusterlink() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--package", "clusterlink"]);
    // Without its kernel programs the binary could only say so.
    cargo.env("CLUSTERLINK_REQUIRE_EBPF", "1");
    step::quietly("building clusterlink for release", &mut cargo)?;
    Ok(workspace::target().join("release/clusterlink"))
}

/// Builds the helpers of the end-to-end harness and gives the directory that they are in.
pub(crate) fn harness() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "clusterlink-tests", "--bins"]);
    step::quietly("building the harness", &mut cargo)?;
    Ok(workspace::target().join("debug"))
}
