//! The binaries that demo and stories run. The one that carries connections is built as for a release,
//! with the kernel programs inside.

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

/// Builds `clusterlink-controller` and gives its path. It is on the path of no connection: to build it
/// with optimisation would take longer than its tests.
pub(crate) fn controller() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "clusterlink-controller", "--bins"]);
    step::quietly("building clusterlink-controller", &mut cargo)?;
    Ok(workspace::target().join("debug/clusterlink-controller"))
}

/// Builds `clusterlink-agent` and gives its path: without optimisation, since no story measures it. What
/// carries connections is the same as in `clusterlink`, which is built as for a release.
pub(crate) fn agent() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "clusterlink-agent", "--bins"]);
    step::quietly("building clusterlink-agent", &mut cargo)?;
    Ok(workspace::target().join("debug/clusterlink-agent"))
}

/// Builds the helpers of the end-to-end harness and gives the directory that they are in.
pub(crate) fn harness() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "clusterlink-tests", "--bins"]);
    step::quietly("building the harness", &mut cargo)?;
    Ok(workspace::target().join("debug"))
}
