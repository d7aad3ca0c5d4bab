//! `cargo xtask test`: everything that can be tested on one machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{kubernetes, release, setup, step, workspace};

/// What to leave out.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Leaves out what needs root and BPF: the stories and the tests of the datapath.
    #[arg(long)]
    fast: bool,
    /// Runs only the tests whose names contain this.
    filter: Option<String>,
}

/// What the stories start.
struct Binaries {
    clusterlink: PathBuf,
    controller: PathBuf,
    agent: PathBuf,
    /// The directory of the Kubernetes programs.
    kubernetes: PathBuf,
}

/// How long the kernel may take to free what nobody holds any more.
const SETTLING: Duration = Duration::from_secs(10);

/// What `--fast` and machines without privileges do without.
const LEFT_OUT: &str = "the stories and the tests of the datapath";

impl Test {
    pub(crate) fn run(&self) -> Result<()> {
        if self.fast {
            setup::ensure(&setup::BUILD)?;
            eprintln!("--fast leaves out {LEFT_OUT}");
            step::openly("unit and property tests", &mut self.units(false))?;
            eprintln!("not run: {LEFT_OUT}");
            return Ok(());
        }
        // What the machine lacks is found out first: the tests that can run take minutes.
        let missing = setup::missing_to_run()?;
        if !missing.is_empty() {
            eprintln!("{}", setup::explain(&missing));
            setup::ensure(&setup::BUILD)?;
            step::openly("unit and property tests", &mut self.units(false))?;
            bail!(
                "not run: {LEFT_OUT}; this machine lacks {}; `cargo xtask test --fast` leaves them out",
                missing.join(" and ")
            );
        }
        kubernetes::check()?;
        let built = release::tested()?;
        let clt = built.join("clt");
        let before = listing(&clt)?;
        step::openly("unit and property tests", &mut self.units(true))?;
        let kubernetes = kubernetes::control_plane()?;
        let binaries = Binaries {
            clusterlink: release::clusterlink()?,
            controller: built.join("clusterlink-controller"),
            agent: built.join("clusterlink-agent"),
            kubernetes,
        };
        step::openly("stories", &mut self.stories(&binaries))?;
        let start = Instant::now();
        loop {
            let after = listing(&clt)?;
            if after == before {
                return Ok(());
            }
            if start.elapsed() > SETTLING {
                bail!(
                    "the tests left this machine changed; new: {:#?}, gone: {:#?}",
                    after.difference(&before).collect::<Vec<_>>(),
                    before.difference(&after).collect::<Vec<_>>()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn units(&self, privileged: bool) -> Command {
        let mut cargo = workspace::cargo();
        cargo.arg("test").args(&self.filter);
        // The tests of the datapath fail where they cannot run, or leave themselves out.
        let required = if privileged { "1" } else { "0" };
        cargo.env("CLUSTERLINK_REQUIRE_PRIVILEGES", required);
        if privileged {
            // They share one kernel, so one at a time; a call for them alone would build anew.
            cargo.env("RUST_TEST_THREADS", "1");
        }
        cargo
    }

    fn stories(&self, binaries: &Binaries) -> Command {
        let mut cargo = workspace::cargo();
        // A run takes minutes: it tells of every story that fails, not of the first file's.
        cargo.args(["test", "--no-fail-fast"]);
        for story in release::STORIES {
            cargo.args(["--test", story]);
        }
        cargo.args(&self.filter);
        // One at a time: they share the machine, and some of them measure, which is to be seen.
        cargo.args(["--", "--test-threads=1", "--nocapture"]);
        cargo.env("CLUSTERLINK_BIN", &binaries.clusterlink);
        cargo.env("CLUSTERLINK_CONTROLLER_BIN", &binaries.controller);
        cargo.env("CLUSTERLINK_AGENT_BIN", &binaries.agent);
        cargo.env("CLUSTERLINK_KUBERNETES", &binaries.kubernetes);
        // An error of a story says in words where it comes from.
        cargo.env("RUST_LIB_BACKTRACE", "0");
        cargo
    }
}

/// What is on this machine that a story could leave behind.
fn listing(clt: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new(clt)
        .arg("listing")
        .env("PATH", workspace::search_path())
        .output()
        .context("cannot run clt listing")?;
    if !output.status.success() {
        bail!(
            "clt listing failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let value: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("clt listing printed no JSON")?;
    let lines = value["lines"]
        .as_array()
        .context("clt listing printed no lines")?;
    Ok(lines
        .iter()
        .filter_map(|line| line.as_str())
        .map(str::to_owned)
        .collect())
}
