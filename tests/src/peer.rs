//! A peer: `clusterlink run` on a host, with its manifests, certificates, state and pins.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::fabric::{self, Fabric};
use crate::host::Host;
use crate::place::Place;
use crate::process::Process;
use crate::tools::{self, text};
use crate::wait::{wait_for, wait_until};

/// How long a peer may take to start or to stop.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The port that peers listen on for each other.
pub const PORT: u16 = 4443;

/// What differs from one peer to the next.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// `--workers`.
    pub workers: u32,
    /// `--label`, each as `key=value`.
    pub labels: Vec<String>,
    /// `--log-level`.
    pub log_level: String,
    /// Any further flags.
    pub flags: Vec<String>,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            labels: Vec::new(),
            log_level: "info".to_owned(),
            flags: Vec::new(),
        }
    }
}

/// A standalone peer and the directories that it lives on.
#[derive(Debug)]
pub struct Peer {
    name: String,
    host: Host,
    place: Place,
    directory: PathBuf,
    bpf: PathBuf,
    options: PeerOptions,
    process: Option<Process>,
    logs: Vec<PathBuf>,
}

impl Peer {
    /// Makes certificate and directories for a peer of the host's name, and starts it.
    pub fn start(host: &Host, fabric: &Fabric) -> Result<Self> {
        Self::start_with(host, fabric, PeerOptions::default())
    }

    /// [`Peer::start`] with options.
    pub fn start_with(host: &Host, fabric: &Fabric, options: PeerOptions) -> Result<Self> {
        let mut peer = Self::prepare(host, fabric, options)?;
        peer.run()?;
        Ok(peer)
    }

    /// Makes all that a peer needs without starting it.
    pub fn prepare(host: &Host, fabric: &Fabric, options: PeerOptions) -> Result<Self> {
        let name = host.name().to_owned();
        let directory = host.scene.directory.join(format!("peer-{name}"));
        for part in ["manifests", "certs", "state"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        fabric::install(&fabric.peer_cert(&name)?, &directory.join("certs"))?;
        let bpf = Path::new("/sys/fs/bpf/clusterlink").join(format!("{}-{name}", host.scene.id));
        host.scene.expect_pins(&bpf)?;
        let place = host.place_for_peer("clusterlink", Path::new("clusterlink"))?;
        Ok(Self {
            name,
            host: host.clone(),
            place,
            directory,
            bpf,
            options,
            process: None,
            logs: Vec::new(),
        })
    }

    /// Starts the process and waits until it is ready.
    pub fn run(&mut self) -> Result<()> {
        ensure!(
            self.process.is_none(),
            "the peer {} runs already",
            self.name
        );
        let process = self.place.spawn("run", self.run_command()?)?;
        self.logs.push(process.log_file().to_owned());
        self.process = Some(process);
        let process = self.process.as_mut().expect("it was set in the line above");
        let (command, admin) = (tools::clusterlink()?, self.directory.join("admin.sock"));
        let place = &self.place;
        let status = wait_until(
            &format!("the peer {} is ready", self.name),
            PATIENCE,
            || {
                if let Some(status) = process.ended()? {
                    return Ok(Some(Err(status)));
                }
                let status = status_of(place, &command, &admin)?;
                Ok((status["ready"] == Value::Bool(true)).then_some(Ok(())))
            },
        );
        match status {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!(
                "the peer {} ended at start ({status}):\n{}",
                self.name,
                process.log_tail()
            ),
            Err(error) => Err(error.context(process.log_tail())),
        }
    }

    /// The command line of `clusterlink run`, to be started in the peer's own place.
    pub fn run_command(&self) -> Result<Command> {
        let mut command = self.place.command(tools::clusterlink()?);
        command.args(["run", "--ebpf", "require"]);
        for (flag, path) in [
            ("--manifests", self.manifests()),
            ("--certs", self.certs()),
            ("--state-dir", self.state()),
            ("--admin", self.admin()),
            ("--bpf-dir", self.bpf.clone()),
            ("--hosts-file", self.host.hosts_file()),
            ("--cgroup", self.host.subtree()),
        ] {
            command.args([flag, text(&path)]);
        }
        command.args(["--workers", &self.options.workers.to_string()]);
        command.args(["--log-level", &self.options.log_level]);
        for label in &self.options.labels {
            command.args(["--label", label]);
        }
        command.args(&self.options.flags);
        Ok(command)
    }

    /// The peer's name, as in its certificate.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host that it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where other peers reach it.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host.ipv4(), PORT)
    }

    /// The directory of its manifests.
    pub fn manifests(&self) -> PathBuf {
        self.directory.join("manifests")
    }

    /// The directory of its certificate, key and trust bundle.
    pub fn certs(&self) -> PathBuf {
        self.directory.join("certs")
    }

    /// The directory of its state.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The socket of its local API.
    pub fn admin(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    /// The directory of its pinned maps and links.
    pub fn bpf_dir(&self) -> &Path {
        &self.bpf
    }

    /// Its process, while it runs.
    pub fn process(&mut self) -> Result<&mut Process> {
        let name = &self.name;
        self.process
            .as_mut()
            .with_context(|| format!("the peer {name} does not run"))
    }

    /// The id of its process, while it runs.
    pub fn pid(&self) -> Result<u32> {
        let name = &self.name;
        let process = self.process.as_ref();
        let process = process.with_context(|| format!("the peer {name} does not run"))?;
        Ok(process.pid())
    }

    /// Writes manifests into a file, under another name first and renamed, as careful tools do.
    pub fn apply(&self, file: &str, manifests: &[Value]) -> Result<()> {
        let documents: Vec<String> = manifests.iter().map(|one| format!("{one:#}\n")).collect();
        self.apply_text(file, &documents.join("---\n"))
    }

    /// What [`Peer::apply`] has put into a file.
    pub fn read(&self, file: &str) -> Result<Vec<Value>> {
        let path = self.manifests().join(file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let documents = text.split("---\n").map(serde_json::from_str);
        let all: Result<_, _> = documents.collect();
        all.with_context(|| format!("{} is no JSON", path.display()))
    }

    /// [`Peer::apply`] for text of any kind.
    pub fn apply_text(&self, file: &str, content: &str) -> Result<()> {
        let path = self.manifests().join(file);
        let temporary = self.manifests().join(format!(".{file}.new"));
        fs::write(&temporary, content)
            .with_context(|| format!("cannot write {}", temporary.display()))?;
        fs::rename(&temporary, &path)
            .with_context(|| format!("cannot put {} in place", path.display()))
    }

    /// Deletes a file of manifests.
    pub fn delete(&self, file: &str) -> Result<()> {
        let path = self.manifests().join(file);
        fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))
    }

    /// What `clusterlink status -o json` says.
    pub fn status(&self) -> Result<Value> {
        status_of(&self.place, &tools::clusterlink()?, &self.admin())
    }

    /// What `clusterlink flows -o json` says.
    pub fn flows(&self) -> Result<Value> {
        let arguments = ["flows", "-o", "json"];
        let text = self.cli(&arguments)?;
        serde_json::from_str(&text).with_context(|| format!("clusterlink flows printed {text}"))
    }

    /// Runs `clusterlink` with these arguments against this peer, and gives what it printed.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let admin = self.admin();
        let mut all = arguments.to_vec();
        all.extend(["--admin", text(&admin)]);
        self.place.run(tools::clusterlink()?, &all)
    }

    /// Waits until the status is as the function wants it; `what` says for the message what that is.
    pub fn wait_status(
        &self,
        what: &str,
        deadline: Duration,
        mut holds: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        wait_until(&format!("{} of {}", what, self.name), deadline, || {
            let status = self.status()?;
            if holds(&status) {
                Ok(Some(status))
            } else {
                bail!("{status:#}")
            }
        })
    }

    /// Waits until an import has an address, and gives the one of the wanted family.
    pub fn import_address(&self, namespace: &str, name: &str, ipv6: bool) -> Result<SocketAddr> {
        let what = format!(
            "the import {namespace}/{name} has an address at {}",
            self.name
        );
        wait_until(&what, Duration::from_secs(5), || {
            let status = self.status()?;
            let imports = status["imports"]
                .as_array()
                .context("the status has no imports")?;
            let import = imports
                .iter()
                .find(|one| one["name"]["namespace"] == namespace && one["name"]["name"] == name)
                .with_context(|| format!("not among {}", status["imports"]))?;
            let port = import["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .context("no port")?;
            let addresses = import["addresses"].as_array().context("no addresses")?;
            Ok(addresses
                .iter()
                .filter_map(|address| address.as_str()?.parse().ok())
                .map(|address| SocketAddr::new(address, port))
                .find(|address| address.is_ipv6() == ipv6))
        })
    }

    /// What its processes have logged so far, whether they run or not.
    pub fn log(&self) -> Result<String> {
        let mut text = String::new();
        for log in &self.logs {
            text += &fs::read_to_string(log)
                .with_context(|| format!("cannot read {}", log.display()))?;
        }
        Ok(text)
    }

    /// Kills the process without a chance to clean up.
    pub fn kill9(&mut self) -> Result<()> {
        self.process()?.kill9()?;
        self.process = None;
        Ok(())
    }

    /// Asks the process to stop, and waits for its successful end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.stop_by(Signal::SIGTERM)
    }

    /// [`Peer::stop`] by another signal.
    pub fn stop_by(&mut self, signal: Signal) -> Result<ExitStatus> {
        let process = self.process()?;
        process.signal(signal)?;
        let status = process.wait(PATIENCE)?;
        let process = self.process.take();
        if !status.success() {
            let log = process
                .map(|process| process.log_tail())
                .unwrap_or_default();
            bail!(
                "the peer {} did not stop well ({status}):\n{log}",
                self.name
            );
        }
        Ok(status)
    }

    /// Stops the process if it still runs, and starts it again with the same directories.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            self.stop()?;
        }
        self.run()
    }

    /// Waits until this peer reports a session with another one.
    pub fn wait_connected(&self, other: &str) -> Result<()> {
        wait_for(&format!("{} reaches {other}", self.name), PATIENCE, || {
            let status = self.status()?;
            let peers = status["peers"]
                .as_array()
                .context("the status has no peers")?;
            let peer = peers.iter().find(|peer| peer["name"] == other);
            match peer {
                Some(peer) if peer["reachable"] == Value::Bool(true) => Ok(true),
                _ => bail!("{}", status["peers"]),
            }
        })
    }
}

fn status_of(place: &Place, command: &Path, admin: &Path) -> Result<Value> {
    let printed = place.run(command, &["status", "-o", "json", "--admin", text(admin)])?;
    serde_json::from_str(&printed).with_context(|| format!("clusterlink status printed {printed}"))
}
