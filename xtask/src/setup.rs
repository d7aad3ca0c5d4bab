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
    let missing = missing_to_run()?;
    if missing.is_empty() {
        println!("this machine has everything: `cargo xtask test` and `cargo xtask demo` can run");
    } else {
        println!("{}", explain(&missing));
    }
    Ok(())
}

/// What stories and demo need and cannot get here, each named with its cure. What can be installed
/// is installed, but for nothing where privileges are missing anyway.
pub(crate) fn missing_to_run() -> Result<Vec<&'static str>> {
    let missing = missing_privileges();
    if !missing.is_empty() {
        return Ok(missing);
    }
    ensure(&RUN)?;
    Ok(need::missing_features())
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

/// The privileges that stories and demo need and this process has not.
fn missing_privileges() -> Vec<&'static str> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_what_works_all_the_same() {
        let text = explain(&["root (run it with sudo)", "BPF ring buffers (Linux 5.8)"]);
        let lines: Vec<_> = text.lines().collect();
        let [lacks, works, does_not] = lines.as_slice() else {
            panic!("{text}")
        };
        assert_eq!(
            *lacks,
            "this machine lacks root (run it with sudo) and BPF ring buffers (Linux 5.8)"
        );
        assert!(works.contains("`cargo xtask test --fast`") && works.contains("`cargo test`"));
        assert!(does_not.contains("`cargo xtask demo`") && does_not.contains("stories"));
    }
}
