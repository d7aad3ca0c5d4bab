//! Where the binaries are that the harness starts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The `clusterlink` binary under test, named by `CLUSTERLINK_BIN`.
pub fn clusterlink() -> Result<PathBuf> {
    binary("CLUSTERLINK_BIN")
}

/// The `clusterlink-agent` binary under test, named by `CLUSTERLINK_AGENT_BIN`.
pub fn agent() -> Result<PathBuf> {
    binary("CLUSTERLINK_AGENT_BIN")
}

fn binary(variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from).with_context(|| {
        format!("{variable} is not set: `cargo xtask test` and `cargo xtask demo` set it to the binary that they built")
    })?;
    if !path.is_file() {
        bail!("{variable} names {}, which is not a file", path.display());
    }
    Ok(path)
}

/// The `clusterlink-controller` binary under test, named by `CLUSTERLINK_CONTROLLER_BIN`.
pub fn clusterlink_controller() -> Result<PathBuf> {
    binary("CLUSTERLINK_CONTROLLER_BIN")
}

/// The root of the checkout that the harness was built from.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the harness is a directory of the workspace")
}

/// The harness' own helper, `clt`, which lies beside the running test or demo.
pub fn clt() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CARGO_BIN_EXE_clt") {
        return Ok(path.into());
    }
    let me = std::env::current_exe().context("cannot find the running executable")?;
    if me.file_name().is_some_and(|name| name == "clt") {
        return Ok(me);
    }
    let candidates = me.ancestors().skip(1).take(2).map(|dir| dir.join("clt"));
    for candidate in candidates {
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!(
        "the helper clt is not beside {}: build it with `cargo build -p clusterlink-tests --bins`",
        me.display()
    )
}

/// A path as a command-line argument or file content: the harness makes its own paths, all of them UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the harness names its paths in ASCII")
}
