//! What neither compiler nor tests see: format, lints, generated files, the object, the tree.

mod object;
mod tree;

use anyhow::{Result, bail};

use crate::{build_ebpf, crds, release, setup, step, workspace};

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
    let clippy = |title: &str, targets: &[&str]| {
        let mut cargo = workspace::cargo();
        cargo.args(["clippy", "--features", "xtask/crds"]);
        cargo.args(targets).args(["--", "--deny", "warnings"]);
        step::quietly(title, &mut cargo)
    };
    clippy("clippy", &["--all-targets"])?;
    let stories = release::STORIES.map(|story| ["--test", story]);
    clippy("clippy of the stories", stories.as_flattened())
}
