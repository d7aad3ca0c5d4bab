//! A control plane with nodes and agents' Pods, and a controller.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clusterlink_model::ObjectName;
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::{Host, Scene};
use serde_json::{Value, json};

use crate::imports::controller::{Controller, SYSTEM};

pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const NAMESPACE: &str = "shop";

/// A control plane with two nodes and their agents, and a controller.
pub(crate) struct Cluster {
    host: Host,
    pub(crate) plane: ControlPlane,
    pub(crate) controller: Option<Controller>,
}

impl Cluster {
    pub(crate) fn new(scene: &Scene) -> Result<Self> {
        let host = scene.host("cluster")?;
        let plane = ControlPlane::start(&host)?;
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        plane.define_kinds(&root.join("../deploy/crds"))?;
        for namespace in [NAMESPACE, SYSTEM] {
            plane.run(&["create", "namespace", namespace])?;
        }
        plane.run(&["-n", SYSTEM, "create", "serviceaccount", "default"])?;
        let mut cluster = Self {
            host,
            plane,
            controller: None,
        };
        for node in ["n1", "n2"] {
            cluster.agent(node)?;
        }
        cluster.start()?;
        Ok(cluster)
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        let controller = Controller::start(&self.plane, self.host.namespace(), true)?;
        self.controller = Some(controller);
        Ok(())
    }

    /// Another controller, which does not hold the lease.
    pub(crate) fn follower(&self) -> Result<Controller> {
        Controller::start(&self.plane, self.host.namespace(), false)
    }

    pub(crate) fn controller(&self) -> Result<&Controller> {
        self.controller
            .as_ref()
            .context("the controller is stopped")
    }

    /// Adds a node with a ready agent, whose addresses end with the node's number.
    pub(crate) fn agent(&self, node: &str) -> Result<()> {
        let number = &node[1..];
        let pod = format!("agent-{node}");
        self.plane.apply(&[
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": node, "labels": {"topology.kubernetes.io/zone": format!("z{number}")}},
            }),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": &pod, "namespace": SYSTEM, "labels": {"app.kubernetes.io/name": "clusterlink-agent"}},
                "spec": {
                    "nodeName": node, "hostNetwork": true, "automountServiceAccountToken": false,
                    "containers": [{"name": "agent", "image": "agent"}],
                },
            }),
        ])?;
        self.set_ready(node, true)
    }

    pub(crate) fn set_ready(&self, node: &str, ready: bool) -> Result<()> {
        let number = &node[1..];
        let address = format!("192.0.2.{number}");
        let all = json!([{"ip": address}, {"ip": format!("2001:db8::{number}")}]);
        let status = json!({"status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            "hostIP": address, "hostIPs": all,
            "podIP": address, "podIPs": all,
        }});
        let pod = format!("agent-{node}");
        let patch = status.to_string();
        self.plane
            .run(&[
                "-n",
                SYSTEM,
                "patch",
                "pod",
                &pod,
                "--subresource=status",
                "--type=merge",
                "-p",
                &patch,
            ])
            .map(drop)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-n", NAMESPACE];
        all.extend(arguments);
        self.plane.run(&all)
    }

    pub(crate) fn patch(&self, kind: &str, name: &str, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        self.kubectl(&["patch", kind, name, "--type=merge", "-p", &patch])
            .map(drop)
    }

    /// An object that may be missing.
    pub(crate) fn find(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let text = self.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"])?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text)?))
    }

    pub(crate) fn slices(&self, import: &str) -> Result<Vec<Value>> {
        let selector = format!("clusterlink.net/import-name={import}");
        let list = self
            .plane
            .get(&["-n", NAMESPACE, "endpointslices", "-l", &selector])?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until an Import's condition has the reason, and gives its message.
    pub(crate) fn wait_condition(&self, import: &str, kind: &str, reason: &str) -> Result<String> {
        wait_until(&format!("{import} has {kind} {reason}"), SOON, || {
            let object = self
                .find("import", import)?
                .context("there is no such Import")?;
            let conditions = object["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let condition = conditions.iter().find(|one| one["type"] == kind);
            let condition = condition.with_context(|| format!("no condition in {object}"))?;
            ensure!(condition["reason"] == reason, "it is {condition}");
            Ok(Some(
                condition["message"].as_str().unwrap_or_default().to_owned(),
            ))
        })
    }

    pub(crate) fn wait_service(&self, import: &str, reason: &str) -> Result<String> {
        self.wait_condition(import, "ImportServiceValid", reason)
    }

    /// Waits until the Import is served at the cluster addresses of its Service.
    pub(crate) fn wait_served(&self, import: &str) -> Result<Value> {
        self.wait_service(import, "Valid")?;
        wait_until(&format!("{import} is served"), SOON, || {
            let service = self
                .find("service", import)?
                .context("there is no Service")?;
            let served = self.served(import)?.context("agents are not told of it")?;
            let found = json!(served.addresses);
            ensure!(found == service["spec"]["clusterIPs"], "it is at {found}");
            ensure!(served.target_port.is_some(), "it has no target port");
            ensure!(
                self.ready(import)? == 2,
                "slices: {:?}",
                self.slices(import)?
            );
            Ok(Some(service))
        })
    }

    pub(crate) fn served(&self, import: &str) -> Result<Option<clusterlink_model::Import>> {
        let name = ObjectName::new(NAMESPACE, import);
        let imports = self.controller()?.served().imports;
        Ok(imports.get(&name).map(|import| (**import).clone()))
    }

    /// How many agents are ready for an Import, in the slices of every family.
    pub(crate) fn ready(&self, import: &str) -> Result<usize> {
        let slices = self.slices(import)?;
        let ready = |slice: &Value| {
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            endpoints
                .filter(|one| one["conditions"]["ready"] == true)
                .count()
        };
        Ok(slices.iter().map(ready).min().unwrap_or(0))
    }

    /// Lets the agents of both nodes say that they steer no released address.
    pub(crate) fn let_go(&self) -> Result<()> {
        for node in ["n1", "n2"] {
            self.controller()?.agent_says(node, &[], true)?;
        }
        Ok(())
    }

    pub(crate) fn wait_gone(&self, import: &str) -> Result<()> {
        wait_for(&format!("nothing of {import} is left"), SOON, || {
            self.let_go()?;
            Ok(self.find("service", import)?.is_none() && self.slices(import)?.is_empty())
        })
    }

    /// Waits until nothing has been written for a while, and gives the number of writes.
    pub(crate) fn wait_quiet(&self) -> Result<u64> {
        let counts = &self.controller()?.counts;
        let mut last = (counts.total(), std::time::Instant::now());
        wait_until("nothing is written", SOON, || {
            let now = counts.total();
            if now != last.0 {
                last = (now, std::time::Instant::now());
            }
            Ok((last.1.elapsed() > Duration::from_millis(700)).then_some(now))
        })
    }
}

pub(crate) fn import(name: &str, target_port: u16, merge: bool) -> Value {
    let labels = if merge {
        json!({"import.clusterlink.net/merge": "true"})
    } else {
        json!({})
    };
    json!({
        "apiVersion": "clusterlink.net/v1alpha1", "kind": "Import",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "port": 80, "targetPort": target_port,
            "sources": [{"peer": "east", "exportName": "web", "exportNamespace": "default"}],
        },
    })
}

pub(crate) fn service(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    })
}

pub(crate) fn our_labels(name: &str) -> Value {
    json!({"metadata": {"labels": {
        "app.kubernetes.io/managed-by": "clusterlink.net",
        "clusterlink.net/import-name": name,
        "clusterlink.net/import-namespace": NAMESPACE,
    }}})
}
