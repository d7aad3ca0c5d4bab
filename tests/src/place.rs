//! A place: where a process runs, that is its network namespace, its cgroup and its names of hosts.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::process::Process;
use crate::scene::Shared;
use crate::{network, tools};

/// Somewhere in a scene where processes can be started.
#[derive(Clone, Debug)]
pub struct Place {
    name: String,
    namespace: String,
    cgroup: PathBuf,
    hosts_file: Option<PathBuf>,
    logs: PathBuf,
    clt: PathBuf,
}

/// Numbers the processes of one test program, so that no two share a log.
static STARTED: AtomicU32 = AtomicU32::new(0);

impl Place {
    pub(crate) fn new(
        scene: &Arc<Shared>,
        name: &str,
        namespace: &str,
        cgroup: PathBuf,
        hosts_file: Option<PathBuf>,
    ) -> Result<Self> {
        let place = Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            cgroup,
            hosts_file,
            logs: scene.directory.join("logs"),
            clt: tools::clt()?,
        };
        scene.remember(&place);
        Ok(place)
    }

    /// The name within the scene, such as `east` or `east/web`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the network namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The directory of the cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The path under the cgroup v2 root, as the annotation `clusterlink.net/cgroup` wants it.
    pub fn cgroup_annotation(&self) -> Result<String> {
        let root = crate::cgroup::root()?;
        let path = self
            .cgroup
            .strip_prefix(&root)
            .context("the cgroup is not under the cgroup v2 root")?;
        Ok(tools::text(path).to_owned())
    }

    /// A command that will run in this place.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.clt);
        command.args(self.enter_arguments());
        command.arg("--").arg(program).stdin(Stdio::null());
        command
    }

    /// A command of the helper `clt` that will run in this place.
    pub fn clt<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(&self.clt);
        command.args(arguments);
        command
    }

    /// Runs a program to its end, successful or not.
    pub fn output(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<Output> {
        let program = program.as_ref();
        self.command(program)
            .args(arguments)
            .output()
            .with_context(|| format!("cannot run {} in {}", program.display(), self.name))
    }

    /// Runs a program that has to succeed, and gives what it printed.
    pub fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String> {
        let program = program.as_ref();
        let output = self.output(program, arguments)?;
        if !output.status.success() {
            bail!(
                "{} {} in {} failed ({}): {}",
                program.display(),
                arguments.join(" "),
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a command made by [`Place::command`] or [`Place::clt`], its output going to files.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let file = format!("{number:03}-{}-{name}", self.name.replace('/', "-"));
        Process::start(
            &format!("{name} in {}", self.name),
            command,
            &self.logs.join(file),
        )
    }

    /// Runs lines of `ip` commands in this place's network namespace.
    pub fn ip(&self, lines: &str) -> Result<()> {
        network::batch(&self.namespace, lines)
    }

    /// What a person types to get a shell in this place.
    pub fn enter_line(&self) -> String {
        let words: Vec<String> = self.enter_arguments();
        format!("{} {} -- bash", self.clt.display(), words.join(" "))
    }

    fn enter_arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "enter".to_owned(),
            format!("--netns={}", network::path_of(&self.namespace).display()),
            format!("--cgroup={}", self.cgroup.display()),
        ];
        if let Some(hosts) = &self.hosts_file {
            arguments.push(format!("--hosts={}", hosts.display()));
        }
        arguments
    }
}
