//! A node of a cluster: a host with a Node object, an agent if it wants one, and kube-proxy.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Cluster, PATIENCE, SYSTEM};
use crate::bpffs;
use crate::host::Host;
use crate::place::Place;
use crate::process::Process;
use crate::tools::{self, text};
use crate::wait::{wait_for, wait_until};

/// What an agent is allowed, and no more. Root by its user id alone, it owns its files.
const CAPABILITIES: &str = "-all,+bpf,+net_admin,+perfmon";

/// What differs from one agent to the next.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// Any further flags.
    pub flags: Vec<String>,
    /// What it is allowed, as setpriv writes it, if not what it takes to steer.
    pub capabilities: Option<&'static str>,
}

/// A node, with what runs on it.
#[derive(Debug)]
pub struct Node {
    host: Host,
    directory: PathBuf,
    agent_pod: String,
    agent_place: Place,
    bpf: PathBuf,
    /// Its agent, while one runs.
    pub agent: Option<Process>,
    proxy: Option<Process>,
}

impl Node {
    /// Makes the Node object of a host that has none yet.
    pub fn join(cluster: &Cluster, host: &Host) -> Result<Self> {
        let name = host.name();
        let directory = host.scene.directory.join(format!("node-{name}"));
        fs::create_dir_all(directory.join("state"))
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let plane = &cluster.plane;
        plane.apply(&[json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name,
                "topology.kubernetes.io/zone": format!("zone-{name}")}},
            "spec": {"podCIDR": host.pod_range(),
                "podCIDRs": [host.pod_range(), host.pod_range_ipv6()]},
        })])?;
        let addresses = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": host.ipv4().to_string()},
                          {"type": "InternalIP", "address": host.ipv6().to_string()}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Harness",
                "lastHeartbeatTime": null, "lastTransitionTime": null}],
        }});
        plane.patch_status("node", None, name, &addresses)?;
        let bpf = Path::new("/sys/fs/bpf/clusterlink").join(format!("{}-{name}", host.scene.id));
        host.scene.expect_pins(&bpf)?;
        let agent_place = host.place_for_peer("clusterlink-agent", Path::new("clusterlink"))?;
        Ok(Self {
            host: host.clone(),
            directory,
            agent_pod: format!("clusterlink-agent-{name}"),
            agent_place,
            bpf,
            agent: None,
            proxy: None,
        })
    }

    /// The host that it is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where other peers reach its gateway.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host.ipv4(), crate::peer::PORT)
    }

    /// The directory of its agent's pinned maps and links.
    pub fn bpf_dir(&self) -> &Path {
        &self.bpf
    }

    /// The socket of its agent's local API.
    pub fn admin(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    /// Starts the agent, as the DaemonSet's pod of this node, and waits until it is ready.
    pub fn start_agent(&mut self, cluster: &Cluster, options: &AgentOptions) -> Result<()> {
        self.bind_agent_pod(cluster)?;
        self.run_agent(cluster, options)?;
        self.wait_ready()?;
        self.set_agent_ready(cluster, true)
    }

    /// The Pod object of the agent, and the token that a kubelet would give it.
    fn bind_agent_pod(&self, cluster: &Cluster) -> Result<()> {
        let plane = &cluster.plane;
        let name = &self.agent_pod;
        if !plane.exists(&["pod", name, "-n", SYSTEM])? {
            plane.apply(&[json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": SYSTEM,
                    "labels": {"app.kubernetes.io/name": "clusterlink-agent"}},
                "spec": {"nodeName": self.host.name(), "hostNetwork": true,
                    "serviceAccountName": "clusterlink-agent",
                    "containers": [{"name": "agent", "image": "localhost/clusterlink-agent"}]},
            })])?;
        }
        let pod = plane.get(&["pod", name, "-n", SYSTEM])?;
        let uid = pod["metadata"]["uid"]
            .as_str()
            .context("the agent's pod has no UID")?;
        let token = plane.run(&[
            "create",
            "token",
            "clusterlink-agent",
            "-n",
            SYSTEM,
            "--audience=clusterlink-controller",
            "--bound-object-kind=Pod",
            &format!("--bound-object-name={name}"),
            &format!("--bound-object-uid={uid}"),
        ])?;
        fs::write(self.directory.join("token"), token.trim()).context("cannot write the token")?;
        self.refresh_ca(cluster)
    }

    /// What a kubelet does with a mounted ConfigMap that has changed.
    pub fn refresh_ca(&self, cluster: &Cluster) -> Result<()> {
        let ca = wait_until("the controller has published its CA", PATIENCE, || {
            let map =
                cluster
                    .plane
                    .get(&["configmap", "clusterlink-controller-ca", "-n", SYSTEM])?;
            let all = map["data"].as_object().context("it has no data")?;
            let bundle: Vec<&str> = all.values().filter_map(|pem| pem.as_str()).collect();
            Ok((!bundle.is_empty()).then(|| bundle.join("\n")))
        })?;
        let path = self.directory.join("controller-ca.pem");
        let unfinished = path.with_extension("new");
        fs::write(&unfinished, ca).context("cannot write the controller's CA")?;
        fs::rename(&unfinished, &path).context("cannot put the controller's CA in place")
    }

    /// Starts the agent's process without waiting for anything. As on a node of a cluster it may do
    /// no more than it has to, and finds a bpffs.
    pub fn run_agent(&mut self, cluster: &Cluster, options: &AgentOptions) -> Result<()> {
        bpffs::mount()?;
        let mut command = self.agent_place.command("setpriv");
        for flag in ["--bounding-set", "--inh-caps"] {
            command.args([flag, options.capabilities.unwrap_or(CAPABILITIES)]);
        }
        command.arg("--no-new-privs").arg(tools::agent()?);
        for (flag, value) in [
            ("--node-name", self.host.name().to_owned()),
            ("--controller", cluster.push_address().to_string()),
            ("--namespace", SYSTEM.to_owned()),
            ("--workers", "1".to_owned()),
        ] {
            command.args([flag, &value]);
        }
        for (flag, path) in [
            ("--controller-ca", self.directory.join("controller-ca.pem")),
            ("--token", self.directory.join("token")),
            ("--certs", cluster.certs().clone()),
            ("--state-dir", self.directory.join("state")),
            ("--admin", self.admin()),
            ("--bpf-dir", self.bpf.clone()),
            ("--cgroup", self.host.subtree()),
        ] {
            command.args([flag, text(&path)]);
        }
        command.args(cluster.label_flags());
        command.args(&options.flags);
        self.agent = Some(self.agent_place.spawn("agent", command)?);
        Ok(())
    }

    /// Kills the agent without a chance to clean up.
    pub fn kill_agent(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("no agent runs")?;
        agent.kill9()
    }

    /// Takes the agent away as a DaemonSet that leaves the node does: its process and its Pod.
    pub fn remove_agent(&mut self, cluster: &Cluster) -> Result<()> {
        self.kill_agent()?;
        let pod = ["delete", "pod", &self.agent_pod, "-n", SYSTEM];
        let at_once = ["--force", "--grace-period=0"];
        cluster.plane.run(&[&pod[..], &at_once].concat()).map(drop)
    }

    /// Starts the agent's process anew, with what the cluster says of itself by now.
    pub fn restart_agent(&mut self, cluster: &Cluster) -> Result<()> {
        self.kill_agent()?;
        self.run_agent(cluster, &AgentOptions::default())?;
        self.wait_ready()
    }

    /// Waits until the agent says that it is ready.
    pub fn wait_ready(&mut self) -> Result<()> {
        let place = &self.agent_place;
        let agent = self.agent.as_mut().context("no agent was started")?;
        let ready = wait_until(
            &format!("the agent of {} is ready", self.host.name()),
            PATIENCE,
            || {
                if let Some(status) = agent.ended()? {
                    return Ok(Some(Err(status)));
                }
                let url = "http://127.0.0.1:9477/readyz";
                let output = place.output(
                    "curl",
                    &["-sS", "--max-time", "2", "-w", "\n%{http_code}", url],
                )?;
                let answer = String::from_utf8_lossy(&output.stdout).into_owned();
                if answer.ends_with("\n200") {
                    return Ok(Some(Ok(())));
                }
                bail!("{answer}{}", String::from_utf8_lossy(&output.stderr))
            },
        );
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("the agent ended ({status}):\n{}", agent.log_tail()),
            Err(error) => Err(error.context(agent.log_tail())),
        }
    }

    /// Waits until the agent has written down on its node that it knows of something.
    pub fn wait_kept(&self, name: &str) -> Result<()> {
        let file = self.directory.join("state/last-state");
        wait_for(&format!("{name} is kept on the node"), PATIENCE, || {
            let kept =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok(String::from_utf8_lossy(&kept).contains(name))
        })
    }

    /// What `clusterlink flows` says of the agent's last connections, for messages.
    pub fn flows(&self) -> Result<String> {
        let admin = self.admin();
        let arguments = ["flows", "--last", "5", "--admin", text(&admin)];
        self.agent_place.run(tools::clusterlink()?, &arguments)
    }

    /// What `clusterlink flows -o json` says at its agent.
    pub fn flows_json(&self) -> Result<Value> {
        self.ask(&["flows", "-o", "json"])
    }

    /// What `clusterlink status -o json` says at its agent.
    pub fn status(&self) -> Result<Value> {
        self.ask(&["status", "-o", "json"])
    }

    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let admin = self.admin();
        let mut all = arguments.to_vec();
        all.extend(["--admin", text(&admin)]);
        let printed = self.agent_place.run(tools::clusterlink()?, &all)?;
        serde_json::from_str(&printed).with_context(|| format!("clusterlink printed {printed}"))
    }

    /// What the kubelet's readiness probe would report.
    pub fn set_agent_ready(&self, cluster: &Cluster, ready: bool) -> Result<()> {
        let status = super::workload::running(&self.host, &[], true, ready);
        cluster
            .plane
            .patch_status("pod", Some(SYSTEM), &self.agent_pod, &status)
    }

    /// Starts kube-proxy, which serves ClusterIPs for clients that are not steered.
    pub fn start_proxy(&mut self, cluster: &Cluster) -> Result<()> {
        let config = self.directory.join("kube-proxy.json");
        let content = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "mode": "nftables", "hostnameOverride": self.host.name(),
            "clientConnection": {"kubeconfig": cluster.plane.kubeconfig()},
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "clusterCIDR": "10.78.0.0/16,fd00:78::/32",
            "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
        });
        fs::write(&config, content.to_string()).context("cannot write kube-proxy's settings")?;
        let mut command = self.host.command(cluster.plane.program("kube-proxy")?);
        command.args(["--config", text(&config)]);
        self.proxy = Some(self.host.spawn("kube-proxy", command)?);
        Ok(())
    }
}
