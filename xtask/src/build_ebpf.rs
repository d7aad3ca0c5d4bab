//! The object with the kernel programs, built by the same code as the agent's build script uses.

#[path = "../../ebpf/build_object.rs"]
mod build_object;

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use build_object::{ObjectBuild, object_target_dir};

use crate::{setup, workspace};

/// Builds the object and gives its path.
pub(crate) fn run() -> Result<PathBuf> {
    setup::ensure(&setup::BUILD)?;
    let root = workspace::root();
    let variable = |name: &str, default: &str| env::var_os(name).unwrap_or_else(|| default.into());
    build_object::build_object(&ObjectBuild {
        target_dir: object_target_dir(&root),
        root,
        cargo: variable("CARGO", "cargo"),
        rustc: variable("RUSTC", "rustc"),
        arch: env::consts::ARCH.to_owned(),
    })
    .context("cannot build the kernel programs")
}
