//! What a machine has to have: found out first, named, then installed.

mod install;
mod need;

use anyhow::{Result, bail};

pub(crate) use need::Need;
use need::{BPF_LINKER, BPFTOOL, CURL, IPROUTE, NFTABLES, RUST_SRC};

/// What building with kernel programs needs.
pub(crate) const BUILD: [Need; 2] = [RUST_SRC, BPF_LINKER];

/// What stories and demo need besides privileges.
pub(crate) const RUN: [Need; 6] = [RUST_SRC, BPF_LINKER, IPROUTE, NFTABLES, BPFTOOL, CURL];

/// `cargo xtask setup`.
pub(crate) fn run() -> Result<()> {
    ensure(&RUN)?;
    let missing = missing_privileges();
    if missing.is_empty() {
        println!("this machine has everything: `cargo xtask test` and `cargo xtask demo` can run");
    } else {
        println!("{}", explain(&missing));
    }
    Ok(())
}

/// Installs those that are missing.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("this machine lacks:");
    for need in &missing {
        eprintln!("  {:<12} {}", need.name, need.purpose);
    }
    install::all(&missing)?;
    let still: Vec<_> = missing
        .iter()
        .filter(|need| !need.is_there())
        .map(|need| need.name)
        .collect();
    if !still.is_empty() {
        bail!("{} still missing after the installation", still.join(", "));
    }
    Ok(())
}

/// The privileges that stories and demo need and this process has not, each named with its cure.
pub(crate) fn missing_privileges() -> Vec<&'static str> {
    need::privileges()
        .into_iter()
        .filter(|(there, _)| !there)
        .map(|(_, name)| name)
        .collect()
}

/// What is missing, and what works all the same.
pub(crate) fn explain(missing: &[&str]) -> String {
    format!(
        "this machine lacks {}\n\
         what works without: building, `cargo test`, `cargo xtask test --fast`, `cargo xtask tidy`\n\
         what does not: the stories of `cargo xtask test`, `cargo xtask demo`",
        missing.join(" and ")
    )
}
