//! One step of a command: shown while it runs, with the end of its output if it fails.

use std::fs::{self, File};
use std::io::{IsTerminal as _, stderr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::workspace;

/// Without a terminal, a line this often says that a step still runs.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// Runs a command whose output only matters if it fails.
pub(crate) fn quietly(title: &str, command: &mut Command) -> Result<()> {
    let log = log_file(title)?;
    let output = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    let errors = output.try_clone().context("cannot share the log")?;
    let child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let status = watch(title, child, &log)?;
    if !status.success() {
        bail!(
            "{title} failed ({status}); the end of {}:\n{}",
            log.display(),
            tail(&log, 30)
        );
    }
    Ok(())
}

/// Runs a command whose output is for the user to see.
pub(crate) fn openly(title: &str, command: &mut Command) -> Result<()> {
    eprintln!("== {title}");
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{title} failed ({status})");
    }
    Ok(())
}

fn watch(title: &str, mut child: Child, log: &Path) -> Result<ExitStatus> {
    let start = Instant::now();
    let spinner = stderr().is_terminal().then(|| spinner(title));
    if spinner.is_none() {
        eprintln!("== {title}");
    }
    let mut said = start;
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("cannot wait for {title}"))?
        {
            break status;
        }
        if let Some(spinner) = &spinner {
            spinner.set_message(tail(log, 1));
        } else if said.elapsed() >= SIGN_OF_LIFE {
            said = Instant::now();
            eprintln!("   {} s: {}", start.elapsed().as_secs(), tail(log, 1));
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let verdict = if status.success() { "done" } else { "failed" };
    eprintln!(
        "   {title}: {verdict} in {:.1} s",
        start.elapsed().as_secs_f32()
    );
    Ok(status)
}

fn spinner(title: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}");
    let style = style.expect("the template is a constant that names known parts only");
    let bar = ProgressBar::new_spinner()
        .with_style(style)
        .with_prefix(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn log_file(title: &str) -> Result<PathBuf> {
    let directory = workspace::cache().join("logs");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let name: String = title
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    Ok(directory.join(format!("{name}.log")))
}

fn tail(log: &Path, count: usize) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
