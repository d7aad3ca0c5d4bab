//! The demo to its end, and when it is interrupted, killed, or kept.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clusterlink_tests::Listing;
use clusterlink_tests::wait::{wait_for, wait_until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(20);

/// A demo that runs, in a process group of its own as a shell would make it.
struct Demo {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Demo {
    fn start(flags: &[&str]) -> Result<Self> {
        // A test command that was started in the background ignores SIGINT, and would hand that down.
        let mut process = Command::new("env")
            .args(["--default-signal=INT,QUIT", "--"])
            .arg(env!("CARGO_BIN_EXE_demo"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot start the demo")?;
        let output = process.stdout.take().context("its output is a pipe")?;
        Ok(Self {
            process,
            output: BufReader::new(output),
        })
    }

    /// Reads its output up to a line that has this text, and gives that line.
    fn read_to(&mut self, text: &str) -> Result<String> {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                bail!("the demo ended before {text:?}:\n{all}");
            }
            if line.contains(text) {
                return Ok(line);
            }
            all += &line;
        }
    }

    /// Ends it as `signal` to its whole group does, which is what a terminal's Ctrl-C sends.
    fn end(mut self, signal: Signal) -> Result<()> {
        let group = Pid::from_raw(self.process.id().cast_signed());
        killpg(group, signal).context("cannot signal the demo")?;
        let ended = || Ok(self.process.try_wait()?);
        let status = wait_until("the demo ends", PATIENCE, ended)?;
        ensure!(!status.success(), "an interrupted demo said success");
        Ok(())
    }
}

/// How long a demo may take once it is built.
const LONGEST: Duration = Duration::from_secs(60);

fn as_before(before: &Listing) -> Result<()> {
    wait_for("the machine is as before", PATIENCE, || {
        Listing::take()?.assert_same(before).map(|()| true)
    })
}

#[test]
fn a_demo_ends_by_itself_within_a_minute_and_leaves_nothing() -> Result<()> {
    let before = Listing::take()?;
    let start = Instant::now();
    let mut demo = Demo::start(&[])?;
    let last = demo.read_to("Every step did what it said")?;
    let status = demo.process.wait()?;
    ensure!(status.success(), "{status} after {last}");
    ensure!(start.elapsed() < LONGEST, "it took {:?}", start.elapsed());
    as_before(&before)
}

#[test]
fn a_demo_that_is_interrupted_or_killed_leaves_nothing() -> Result<()> {
    let before = Listing::take()?;
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut demo = Demo::start(&[])?;
        demo.read_to("A deny cuts a download")?;
        let there = Listing::take()?.added_since(&before);
        ensure!(there.len() > 20, "the demo has put up little: {there:#?}");
        demo.end(signal)?;
        as_before(&before).with_context(|| format!("after {signal}"))?;
    }
    Ok(())
}

#[test]
fn a_demo_that_is_kept_can_be_entered_until_it_is_interrupted() -> Result<()> {
    let before = Listing::take()?;
    let mut demo = Demo::start(&["--keep"])?;
    demo.read_to("Everything stays up until Ctrl-C")?;
    // What a person copies from the line of that place, with a command for the shell.
    let line = demo.read_to("london/cart")?;
    let enter = line
        .trim()
        .strip_prefix("london/cart")
        .context("no place")?;
    let typed = format!("{enter} -c 'curl -sS --max-time 5 http://web.shop/'");
    let output = Command::new("bash").args(["-c", &typed]).output()?;
    let page = String::from_utf8_lossy(&output.stdout);
    ensure!(page.contains("hello from"), "{typed}: {output:?}");
    demo.end(Signal::SIGINT)?;
    as_before(&before)
}
