//! Checks of the files in the tree.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Fails where a crate does not take part in the workspace's lint table.
pub(super) fn lint_tables() -> Result<()> {
    let mut without = Vec::new();
    for file in tracked()? {
        let is_crate = file.file_name().is_some_and(|name| name == "Cargo.toml");
        let Ok(text) = fs::read_to_string(workspace::root().join(&file)) else {
            continue;
        };
        // The fuzz targets are a workspace of their own, which the fuzzer's toolchain builds.
        if is_crate
            && text.contains("[package]")
            && !text.contains("[workspace]")
            && !text.contains("[lints]\nworkspace = true")
        {
            without.push(file.display().to_string());
        }
    }
    if !without.is_empty() {
        bail!("without `[lints] workspace = true`: {}", without.join(", "));
    }
    Ok(())
}

/// Fails where a file names a path that only exists on the machine where it was written.
pub(super) fn machine_paths() -> Result<()> {
    let root = format!("{}/", workspace::root().display());
    let home = std::env::var("HOME").unwrap_or_default();
    let mut patterns = vec![root];
    if home.len() > 1 {
        patterns.push(format!("{}/", home.trim_end_matches('/')));
    }
    let mut naming = Vec::new();
    for file in tracked()? {
        // Files that are not text name no paths.
        let Ok(text) = fs::read_to_string(workspace::root().join(&file)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if patterns
                .iter()
                .any(|pattern| line.contains(pattern.as_str()))
            {
                naming.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    if !naming.is_empty() {
        bail!("a path of this machine is named at {}", naming.join(", "));
    }
    Ok(())
}

/// The files that are part of the project, those not yet committed too.
fn tracked() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace::root())
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!(
            "git ls-files failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(PathBuf::from)
        .collect())
}
