//! Installing what is missing, each in its own way.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::need::{BPF_LINKER_VERSION, Kind, Need, sysroot};
use crate::{step, workspace};

/// Installs all of them.
pub(super) fn all(needs: &[&Need]) -> Result<()> {
    let packages: Vec<&str> = needs
        .iter()
        .filter(|need| matches!(need.kind, Kind::Package { .. }))
        .map(|need| need.name)
        .collect();
    if !packages.is_empty() {
        debian(&packages)?;
    }
    for need in needs {
        match need.kind {
            Kind::RustSources => rust_sources()?,
            Kind::BpfLinker => bpf_linker()?,
            Kind::Package { .. } => {}
        }
    }
    Ok(())
}

fn debian(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if workspace::find("apt-get").is_none() {
        bail!("there is no apt-get here: install {list} with this system's package manager");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("installing needs root: `sudo apt-get install {list}`");
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    let title = format!("installing {list}");
    // A machine whose package lists are fresh need not fetch them again.
    if step::quietly(&title, &mut apt(&arguments)).is_ok() {
        return Ok(());
    }
    step::quietly("fetching the package lists", &mut apt(&["update"]))?;
    step::quietly(&title, &mut apt(&arguments))
}

fn rust_sources() -> Result<()> {
    let toolchain = sysroot().and_then(|root| Some(root.file_name()?.to_str()?.to_owned()));
    let toolchain = toolchain.context("rustc does not say where its toolchain is")?;
    let Some(rustup) = rustup() else {
        bail!(
            "rust-src is missing and there is no rustup: install Rust with rustup, or the sources of its standard library"
        );
    };
    let mut rustup = Command::new(rustup);
    rustup.args(["component", "add", "rust-src", "--toolchain", &toolchain]);
    step::quietly("installing rust-src", &mut rustup)
}

/// The rustup of PATH, else the one that rustup installs for itself, which a plain `su` does not find.
fn rustup() -> Option<PathBuf> {
    let homes = [
        env::var_os("CARGO_HOME").map(PathBuf::from),
        env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")),
    ];
    let installed = homes
        .into_iter()
        .flatten()
        .map(|home| home.join("bin/rustup"));
    workspace::find("rustup")
        .into_iter()
        .chain(installed)
        .find(|path| path.is_file())
}

fn bpf_linker() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "install",
        "--locked",
        "--force",
        "--version",
        BPF_LINKER_VERSION,
        "bpf-linker",
        "--root",
    ]);
    cargo.arg(workspace::cache().join("tools"));
    // What this checkout is built with is no matter of the tool's.
    cargo
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    step::quietly(
        &format!("building bpf-linker {BPF_LINKER_VERSION}"),
        &mut cargo,
    )
}
