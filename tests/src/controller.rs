//! A replica of the controller: `clusterlink-controller` on a host, with an account of a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::kubernetes::ControlPlane;
use crate::process::Process;
use crate::tools::{self, text};
use crate::wait::wait_until;

/// How long a controller may take to start or to stop.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The namespace that controller and agents run in.
pub const SYSTEM: &str = "clusterlink-system";

/// What differs from one replica to the next.
#[derive(Clone, Debug)]
pub struct ControllerOptions {
    /// `--peer-name`; none to read it from the Secret.
    pub peer_name: Option<String>,
    /// `--identity`: the name of its pod.
    pub identity: String,
    /// `--log-level`.
    pub log_level: String,
    /// Where the account is found; none for the ServiceAccount that ships.
    pub kubeconfig: Option<PathBuf>,
    /// Any further flags.
    pub flags: Vec<String>,
}

impl ControllerOptions {
    /// A replica of that name, whose lease is short.
    pub fn named(identity: &str) -> Self {
        let lease = [
            "--lease-duration=3s",
            "--renew-deadline=2s",
            "--retry-period=300ms",
        ];
        Self {
            peer_name: Some("here".to_owned()),
            identity: identity.to_owned(),
            log_level: "info,clusterlink_controller=debug".to_owned(),
            kubeconfig: None,
            flags: lease.map(str::to_owned).into(),
        }
    }
}

/// A running replica; it is killed when this value is dropped.
#[derive(Debug)]
pub struct Controller {
    host: Host,
    process: Process,
    metrics: SocketAddr,
}

impl Controller {
    /// Starts a replica with the account and the rights that ship, and waits until it is ready.
    pub fn start(host: &Host, plane: &ControlPlane) -> Result<Self> {
        Self::start_with(host, plane, &ControllerOptions::named(host.name()))
    }

    /// [`Controller::start`] with options.
    pub fn start_with(
        host: &Host,
        plane: &ControlPlane,
        options: &ControllerOptions,
    ) -> Result<Self> {
        let mut controller = Self::spawn(host, plane, options)?;
        controller.wait_ready()?;
        Ok(controller)
    }

    /// Starts a replica without waiting for it.
    pub fn spawn(host: &Host, plane: &ControlPlane, options: &ControllerOptions) -> Result<Self> {
        let kubeconfig = match &options.kubeconfig {
            Some(path) => path.clone(),
            None => plane.kubeconfig_of(SYSTEM, "clusterlink-controller")?,
        };
        let metrics = SocketAddr::new(host.ipv4(), 9478);
        let mut command = host.command(tools::clusterlink_controller()?);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--namespace", SYSTEM, "--identity", &options.identity])
            .args(["--log-level", &options.log_level])
            .arg(format!("--listen={}", SocketAddr::new(host.ipv4(), 4445)))
            .arg(format!("--metrics={metrics}"))
            .args(
                options
                    .peer_name
                    .iter()
                    .flat_map(|name| ["--peer-name", name]),
            )
            .args(&options.flags);
        Ok(Self {
            host: host.clone(),
            process: host.spawn("controller", command)?,
            metrics,
        })
    }

    /// Waits until it says that it is ready.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.wait_ready_for(PATIENCE)
    }

    /// [`Controller::wait_ready`] with less patience, where it is not expected.
    pub fn wait_ready_for(&mut self, patience: Duration) -> Result<()> {
        let url = format!("http://{}/readyz", self.metrics);
        let (host, process) = (&self.host, &mut self.process);
        let ready = wait_until("the controller is ready", patience, || {
            if let Some(status) = process.ended()? {
                return Ok(Some(Err(status)));
            }
            let answer = host.run("curl", &["--silent", "--show-error", &url])?;
            if answer.trim() != "ok" {
                bail!("{}", answer.trim());
            }
            Ok(Some(Ok(())))
        });
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!(
                "the controller ended at start ({status}):\n{}",
                self.process.log_tail()
            ),
            Err(error) => Err(error.context(self.process.log_tail())),
        }
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// All that it has logged.
    pub fn log(&self) -> Result<String> {
        let file = self.process.log_file();
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", text(file)))
    }

    /// Asks it to stop, and waits for its end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.process.stop(PATIENCE)
    }

    /// Kills it, so that it cannot give anything back.
    pub fn kill9(mut self) -> Result<()> {
        self.process.kill9()
    }

    /// The sum of a metric over those of its label sets that have all of `labels`, each written as
    /// `name="value"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let url = format!("http://{}/metrics", self.metrics);
        let all = self
            .host
            .run("curl", &["--silent", "--show-error", "--fail", &url])?;
        let mut sum = 0.0;
        for line in all.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (of, set) = series.split_once('{').unwrap_or((series, ""));
            if of == name && labels.iter().all(|label| set.contains(label)) {
                let value: f64 = value
                    .parse()
                    .with_context(|| format!("metrics say {line}"))?;
                sum += value;
            }
        }
        Ok(sum)
    }

    /// Whether it holds the lease.
    pub fn leads(&self) -> Result<bool> {
        Ok(self.metric("clusterlink_controller_leader", &[])? > 0.0)
    }

    /// How many statuses it has sent to the API server, whatever became of them.
    pub fn status_writes(&self) -> Result<f64> {
        self.metric("clusterlink_controller_status_writes_total", &[])
    }
}

impl ControlPlane {
    /// Makes a cluster fit for the controller: the kinds, the system namespace, accounts and rights,
    /// all as they ship.
    pub fn install_clusterlink(&self) -> Result<()> {
        let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        self.define_kinds(&deploy.join("crds"))?;
        self.run(&["create", "namespace", SYSTEM])?;
        self.run(&["apply", "-f", text(&deploy.join("rbac"))])
            .map(drop)
    }
}
