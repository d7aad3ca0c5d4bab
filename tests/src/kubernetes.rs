//! A Kubernetes control plane without nodes: etcd and kube-apiserver, as a host of the scene.

mod audit;
mod call;
mod manager;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::host::Host;
use crate::process::Process;
use crate::tools::text;
use crate::wait::wait_until;

pub use self::audit::{Audit, Request};

/// How long etcd and the API server may take to be ready on a busy machine; they need about 3 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whatever comes with this token may do everything.
const ADMIN_TOKEN: &str = "administrator";

/// A running API server and what it takes to use it; it ends with this value, and with the scene.
#[derive(Debug)]
pub struct ControlPlane {
    host: Host,
    directory: PathBuf,
    programs: PathBuf,
    _etcd: Process,
    api_server: Process,
}

impl ControlPlane {
    /// Starts both on a host and waits until the API server is ready.
    pub fn start(host: &Host) -> Result<Self> {
        let programs = programs()?;
        let directory = host
            .scene
            .directory
            .join(format!("kubernetes-{}", host.name()));
        for part in ["certs", "home"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        write_keys(&directory)?;
        let etcd = start_etcd(host, &programs, &directory)?;
        let api_server = start_api_server(host, &programs, &directory)?;
        let mut plane = Self {
            host: host.clone(),
            directory,
            programs,
            _etcd: etcd,
            api_server,
        };
        plane.wait_ready()?;
        Ok(plane)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let certificate = self.directory.join("certs/apiserver.crt");
        self.write_kubeconfig("kubeconfig", ADMIN_TOKEN)?;
        let ready = wait_until("the API server is ready", PATIENCE, || {
            if let Some(status) = self.api_server.ended()? {
                return Ok(Some(Err(status)));
            }
            ensure!(certificate.exists(), "it has no certificate yet");
            let answer = self.run(&["get", "--raw", "/readyz"])?;
            Ok((answer == "ok").then_some(Ok(())))
        });
        let log = || self.api_server.log_tail();
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("the API server ended at start ({status}):\n{}", log()),
            Err(error) => Err(error.context(log())),
        }
    }

    /// Where a client finds server, authority and the administrator's token.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// The host that it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where a client finds server, authority and a token of a ServiceAccount, which may do what the
    /// account may.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let arguments = ["create", "token", account, "-n", namespace, "--duration=2h"];
        let token = self.run(&arguments)?;
        self.write_kubeconfig(&format!("kubeconfig-{account}"), token.trim())
    }

    /// Ends the API server as a crash would; etcd keeps what it stored.
    pub fn stop_api_server(&mut self) -> Result<()> {
        self.api_server.kill9()
    }

    /// Starts it again after [`Self::stop_api_server`], and waits until it is ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        self.api_server = start_api_server(&self.host, &self.programs, &self.directory)?;
        self.wait_ready()
    }

    fn write_kubeconfig(&self, file: &str, token: &str) -> Result<PathBuf> {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": format!("https://{}", address(&self.host)),
                "certificate-authority": self.directory.join("certs/apiserver.crt"),
            }}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        let path = self.directory.join(file);
        fs::write(&path, kubeconfig.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Runs `kubectl` to its end, successful or not.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.host
            .command(self.programs.join("kubectl"))
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.directory.join("home"))
            .stdin(Stdio::null())
            .output()
            .context("cannot run kubectl")
    }

    /// Runs `kubectl`, which has to succeed, and gives what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl(arguments)?;
        if !output.status.success() {
            bail!(
                "kubectl {} failed ({}): {}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `kubectl get … -o json`.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.run(&all)?).context("kubectl printed no JSON")
    }

    /// Whether `kubectl get …` finds something.
    pub fn exists(&self, arguments: &[&str]) -> Result<bool> {
        let mut all = vec!["get", "-o", "name", "--ignore-not-found"];
        all.extend(arguments);
        Ok(!self.run(&all)?.trim().is_empty())
    }

    /// Patches the status of an object, as the component that owns it would.
    pub fn patch_status(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<()> {
        let patch = patch.to_string();
        let mut all = vec![
            "patch",
            kind,
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
        ];
        all.push(&patch);
        all.extend(namespace.iter().flat_map(|namespace| ["-n", *namespace]));
        self.run(&all).map(drop)
    }

    /// A program of the control plane's module.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.programs.join(name);
        ensure!(
            path.is_file(),
            "there is no {name} in {}",
            self.programs.display()
        );
        Ok(path)
    }

    /// Applies manifests as a user would.
    pub fn apply(&self, manifests: &[Value]) -> Result<String> {
        let file = self.write_manifests("applied", manifests)?;
        self.run(&["apply", "-f", text(&file)])
    }

    /// Writes manifests into a file of the scene, for `kubectl -f`.
    pub fn write_manifests(&self, name: &str, manifests: &[Value]) -> Result<PathBuf> {
        let file = self.manifests_file(name);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": manifests});
        fs::write(&file, list.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// The file that [`Self::write_manifests`] writes under that name.
    pub(crate) fn manifests_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    /// What was last written under that name; nothing if nothing was.
    pub(crate) fn read_manifests(&self, name: &str) -> Result<Vec<Value>> {
        let file = self.manifests_file(name);
        if !file.exists() {
            return Ok(Vec::new());
        }
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut list: Value = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no JSON", file.display()))?;
        Ok(list["items"]
            .as_array_mut()
            .map(std::mem::take)
            .unwrap_or_default())
    }

    /// Applies the definitions of our kinds, and waits until they are served.
    pub fn define_kinds(&self, definitions: &Path) -> Result<()> {
        self.run(&["apply", "-f", text(definitions)])?;
        let all = [
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=30s",
        ];
        self.run(&all).map(drop)
    }
}

/// The directory with the programs, which `cargo xtask test` builds.
fn programs() -> Result<PathBuf> {
    let path = std::env::var_os("CLUSTERLINK_KUBERNETES").map(PathBuf::from).context(
        "CLUSTERLINK_KUBERNETES is not set: `cargo xtask test` sets it to the directory of kube-apiserver, etcd and kubectl that it built",
    )?;
    for program in ["kube-apiserver", "etcd", "kubectl"] {
        ensure!(
            path.join(program).is_file(),
            "there is no {program} in {}",
            path.display()
        );
    }
    Ok(path)
}

fn address(host: &Host) -> SocketAddr {
    SocketAddr::new(host.ipv4(), 6443)
}

/// The key that service account tokens are signed with, and the tokens that are known from the start.
fn write_keys(directory: &Path) -> Result<()> {
    let key = rcgen::KeyPair::generate().context("cannot make a key")?;
    let tokens = format!("{ADMIN_TOKEN},admin,admin,system:masters\n");
    for (file, content) in [
        ("service-account.key", key.serialize_pem()),
        ("service-account.pub", key.public_key_pem()),
        ("tokens.csv", tokens),
    ] {
        fs::write(directory.join(file), content).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(())
}

const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";

fn start_etcd(host: &Host, programs: &Path, directory: &Path) -> Result<Process> {
    let mut command = host.command(programs.join("etcd"));
    command
        .args(["--name", "etcd", "--log-level", "warn", "--unsafe-no-fsync"])
        .args([
            "--listen-client-urls",
            ETCD,
            "--advertise-client-urls",
            ETCD,
        ])
        .args(["--listen-peer-urls", ETCD_PEER])
        .args(["--initial-advertise-peer-urls", ETCD_PEER])
        .args(["--initial-cluster", &format!("etcd={ETCD_PEER}")])
        .arg("--data-dir")
        .arg(directory.join("etcd"));
    host.spawn("etcd", command)
}

fn start_api_server(host: &Host, programs: &Path, directory: &Path) -> Result<Process> {
    let address = address(host);
    let mut command = host.command(programs.join("kube-apiserver"));
    command
        .arg(format!("--etcd-servers={ETCD}"))
        .arg(format!("--bind-address={}", address.ip()))
        .arg(format!("--advertise-address={}", address.ip()))
        .arg(format!("--secure-port={}", address.port()))
        .args([
            "--service-cluster-ip-range=10.96.0.0/16,fd77:96::/112",
            "--authorization-mode=RBAC",
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
            "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc",
        ]);
    for (flag, file) in [
        ("cert-dir", "certs"),
        ("token-auth-file", "tokens.csv"),
        ("service-account-key-file", "service-account.pub"),
        ("service-account-signing-key-file", "service-account.key"),
    ] {
        command.arg(format!("--{flag}={}", directory.join(file).display()));
    }
    command.args(audit::flags(directory)?);
    host.spawn("kube-apiserver", command)
}
