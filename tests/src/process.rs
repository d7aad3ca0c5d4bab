//! A process of the scene that goes on by itself: a server, a peer, a long-lived client.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use crate::wait::wait_until;

/// A running process with its output in files; it is killed when this value is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(name: &str, mut command: Command, files: &Path) -> Result<Self> {
        let out = files.with_extension("out");
        let log = files.with_extension("log");
        let open = |path: &Path| {
            File::create(path).with_context(|| format!("cannot make {}", path.display()))
        };
        let child = command
            .stdout(open(&out)?)
            .stderr(open(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            out,
            log,
        })
    }

    /// What it is, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A figure of its memory in MiB: `VmRSS` for now, `VmHWM` for the most that it ever had.
    pub fn memory(&self, figure: &str) -> Result<f64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let mut lines = status.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(name, _)| *name == figure);
        let (_, value) = found.with_context(|| format!("{path} has no {figure}"))?;
        let kib: f64 = value.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// What its BPF maps hold in the kernel, in MiB.
    pub fn maps_memory(&self) -> Result<f64> {
        let path = format!("/proc/{}/fdinfo", self.pid());
        let mut maps = BTreeMap::new();
        for entry in fs::read_dir(&path).with_context(|| format!("cannot read {path}"))? {
            // A descriptor may be closed in the meantime.
            let Ok(info) = fs::read_to_string(entry?.path()) else {
                continue;
            };
            let field = |name: &str| -> Option<u64> {
                let mut lines = info.lines();
                lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            };
            if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
                maps.insert(id, bytes);
            }
        }
        let bytes: u64 = maps.values().sum();
        Ok(bytes as f64 / 1024.0 / 1024.0)
    }

    /// Sends a signal; a process that has ended already is an error.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!(
                "{} has ended already: {status}\n{}",
                self.name,
                self.log_tail()
            );
        }
        let pid = Pid::from_raw(self.child.id().cast_signed());
        signal::kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Writes a line to its standard input, which the command has to have made a pipe.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut();
        let input = input.with_context(|| format!("{} has no pipe to read from", self.name))?;
        writeln!(input, "{line}").with_context(|| format!("cannot write to {}", self.name))
    }

    /// Kills it as the kernel would for want of memory, and waits until it is gone.
    pub fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(10)).map(drop)
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(deadline)
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot ask after {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        wait_until(&what, deadline, || self.ended())
    }

    /// Waits for its end, which has to be a successful one.
    pub fn wait_success(&mut self, deadline: Duration) -> Result<()> {
        let status = self.wait(deadline)?;
        if !status.success() {
            bail!("{} failed ({status}):\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// All that it has printed so far.
    pub fn printed(&self) -> Result<String> {
        let bytes =
            fs::read(&self.out).with_context(|| format!("cannot read {}", self.out.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The whole lines of JSON that it has printed so far.
    pub fn reports<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let text = self.printed()?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| {
                serde_json::from_str(line).with_context(|| format!("{} printed {line}", self.name))
            })
            .collect()
    }

    /// Waits until one of its lines of JSON is what the function looks for.
    pub fn wait_report<T: DeserializeOwned, U>(
        &mut self,
        what: &str,
        deadline: Duration,
        mut find: impl FnMut(T) -> Option<U>,
    ) -> Result<U> {
        let what = format!("{} reports {what}", self.name);
        let found = wait_until(&what, deadline, || {
            let ended = self.ended()?;
            let found = self.reports::<T>()?.into_iter().find_map(&mut find);
            match (found, ended) {
                (Some(found), _) => Ok(Some(Ok(found))),
                (None, Some(status)) => Ok(Some(Err(status))),
                (None, None) => Ok(None),
            }
        })?;
        found.map_err(|status| {
            let printed = self.printed().unwrap_or_default();
            anyhow::anyhow!(
                "in vain waited until {what}: it ended ({status})\n{printed}{}",
                self.log_tail()
            )
        })
    }

    /// The file that has what it wrote to its standard error.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// All that it has written to its standard error.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines that it wrote to its standard error.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has ended already cannot be killed, and that is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
