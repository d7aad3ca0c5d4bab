//! What the audience sees: titles, commands as a person types them, and their output.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clusterlink_tests::{Place, tools};

/// The screen, and what a typed command needs in its environment.
#[derive(Debug)]
pub(crate) struct Stage {
    start: Instant,
    binaries: PathBuf,
}

/// What a typed command came to.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    /// Its exit code; none if it was killed.
    pub(crate) code: Option<i32>,
    /// What it printed, errors too.
    pub(crate) output: String,
}

impl Stage {
    pub(crate) fn new() -> Result<Self> {
        let clusterlink = tools::clusterlink()?;
        let binaries = clusterlink
            .parent()
            .context("the binary is in a directory")?
            .to_owned();
        Ok(Self {
            start: Instant::now(),
            binaries,
        })
    }

    /// Announces what comes next.
    pub(crate) fn title(&self, text: &str) {
        println!(
            "\n── {:4.1} s ── {text}",
            self.start.elapsed().as_secs_f32()
        );
    }

    /// Says something.
    pub(crate) fn say(&self, text: &str) {
        for line in text.lines() {
            println!("   {line}");
        }
    }

    /// Shows a manifest that is about to be applied at a peer.
    pub(crate) fn manifest(&self, peer: &str, file: &str, content: &str) {
        println!("   {peer}:manifests/{file}");
        for line in content.lines() {
            println!("   │ {line}");
        }
    }

    /// Types a command into a shell at a place, and shows at most so many lines of what it prints.
    pub(crate) fn type_at(
        &self,
        place: &Place,
        who: &str,
        admin: &Path,
        command: &str,
        lines: usize,
    ) -> Result<Typed> {
        println!("   {who} $ {command}");
        let old = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(
            [self.binaries.clone()]
                .into_iter()
                .chain(std::env::split_paths(&old)),
        )
        .context("PATH cannot be extended")?;
        let output = place
            .command("sh")
            .args(["-c", command])
            .env("PATH", path)
            .env("CLUSTERLINK_ADMIN", admin)
            .output()
            .with_context(|| format!("cannot run {command}"))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        for line in text.lines().take(lines) {
            println!("     {line}");
        }
        let left = text.lines().count().saturating_sub(lines);
        if left > 0 {
            println!("     … {left} more lines");
        }
        Ok(Typed {
            code: output.status.code(),
            output: text,
        })
    }
}
