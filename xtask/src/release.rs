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

/// The files of stories, which cargo builds and runs if they are named only.
pub(crate) const STORIES: [&str; 3] = ["harness", "kubernetes", "standalone"];

/// Builds the other tests, and the programs beside `clusterlink` that stories start, and gives the
/// directory that these are in. They are on the path of no connection, or do there what `clusterlink`
/// does, and to build them as for a release would take longer than their tests.
///
/// One call for all, with the packages that the tests are run of: each selection has features of its own,
/// with which cargo would build the same crates anew.
pub(crate) fn tested() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--tests"]);
    for program in ["clt", "demo", "clusterlink-agent", "clusterlink-controller"] {
        cargo.args(["--bin", program]);
    }
    step::quietly("building the tests and what they start", &mut cargo)?;
    Ok(workspace::target().join("debug"))
}

/// Builds the demo with its helpers and gives the directory that they are in.
pub(crate) fn harness() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "clusterlink-tests", "--bins"]);
    step::quietly("building the harness", &mut cargo)?;
    Ok(workspace::target().join("debug"))
}
