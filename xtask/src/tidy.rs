//! What neither compiler nor tests see: format, lints, generated files, the object, the tree.

mod object;
mod tree;

use anyhow::{Result, bail};

use crate::{build_ebpf, crds, setup, step, workspace};

/// A check and what it is of.
type Check = (&'static str, fn() -> Result<()>);

/// Runs all checks and names every one that fails.
pub(crate) fn run() -> Result<()> {
    // Clippy builds the kernel programs too, and without the tools it would check a stub.
    setup::ensure(&setup::BUILD)?;
    let checks: [Check; 6] = [
        ("format", format),
        ("lints", lints),
        ("generated CRDs", crds::check),
        ("maps and programs of the object", || {
            object::check(&build_ebpf::run()?)
        }),
        ("lint tables", tree::lint_tables),
        ("paths of one machine", tree::machine_paths),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        match check() {
            Ok(()) => eprintln!("   {name}: fine"),
            Err(error) => {
                eprintln!("   {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("not tidy: {}", failed.join(", "));
    }
    Ok(())
}

fn format() -> Result<()> {
    step::quietly(
        "rustfmt",
        workspace::cargo().args(["fmt", "--all", "--", "--check"]),
    )
}

/// The default members: the kernel programs compile for their own target only.
fn lints() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "clippy",
        "--all-targets",
        "--features",
        "clusterlink-tests/stories,xtask/crds",
    ]);
    cargo.args(["--", "--deny", "warnings"]);
    step::quietly("clippy", &mut cargo)
}
