//! kube-controller-manager, where a test needs garbage collection or namespaces that really end.

use std::time::Duration;

use anyhow::Result;

use super::ControlPlane;
use crate::process::Process;
use crate::wait::wait_for;

/// How long it may take until it collects garbage.
const PATIENCE: Duration = Duration::from_secs(60);

impl ControlPlane {
    /// Starts the controllers that delete what nothing owns any more, that empty namespaces, and that
    /// put together the roles of users. The process ends with the value.
    pub fn start_controller_manager(&self) -> Result<Process> {
        let mut command = self
            .host
            .command(self.programs.join("kube-controller-manager"));
        command
            .args([
                "--controllers=garbage-collector-controller,namespace-controller,clusterrole-aggregation-controller",
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                "--secure-port=10257",
            ])
            .arg(format!("--kubeconfig={}", self.kubeconfig().display()))
            .arg(format!(
                "--cert-dir={}",
                self.directory.join("certs").display()
            ))
            .env("HOME", self.directory.join("home"));
        let process = self.host.spawn("kube-controller-manager", command)?;
        wait_for("kube-controller-manager is well", PATIENCE, || {
            let url = "https://127.0.0.1:10257/healthz";
            let arguments = ["--silent", "--insecure", "--fail", url];
            Ok(self.host.run("curl", &arguments)? == "ok")
        })?;
        Ok(process)
    }
}
