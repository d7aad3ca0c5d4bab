//! A control plane with Imports in a namespace, and the Services that there have to be.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clusterlink_tests::Scene;
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::manifests::{import, source};
use clusterlink_tests::wait::wait_for;
use serde_json::{Value, json};

const NAMESPACE: &str = "shop";

/// How long it may take on a busy machine until what was applied is so.
const PATIENCE: Duration = Duration::from_secs(60);

/// A control plane without agents.
pub(crate) struct Shop {
    pub(crate) plane: ControlPlane,
}

impl Shop {
    pub(crate) fn new(scene: &Scene) -> Result<Self> {
        let plane = ControlPlane::start(&scene.host("api")?)?;
        plane.install_clusterlink()?;
        plane.run(&["create", "namespace", NAMESPACE])?;
        Ok(Self { plane })
    }

    pub(crate) fn import(&self, name: &str, port: u16) -> Result<()> {
        self.plane.apply(&[manifest(name, port)]).map(drop)
    }

    pub(crate) fn imports(&self, names: &[String]) -> Result<()> {
        let manifests: Vec<_> = names.iter().map(|name| manifest(name, 80)).collect();
        self.plane.apply(&manifests).map(drop)
    }

    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        let arguments = ["delete", "import", name, "-n", NAMESPACE];
        self.plane.run(&arguments).map(drop)
    }

    pub(crate) fn wait_service(&self, name: &str) -> Result<()> {
        wait_for(&format!("there is a Service {name}"), PATIENCE, || {
            self.plane.exists(&["service", name, "-n", NAMESPACE])
        })
    }

    /// Waits until there are these Services, with these ports, and no others, and until every Import
    /// says that all is well.
    pub(crate) fn wait_services(&self, expected: &[(&str, u16)]) -> Result<()> {
        let expected: BTreeMap<String, u64> = expected
            .iter()
            .map(|(name, port)| ((*name).to_owned(), (*port).into()))
            .collect();
        wait_for("there is a Service for each Import", PATIENCE, || {
            let list = self.plane.get(&["services,imports", "-n", NAMESPACE])?;
            let items = list["items"].as_array().context("no list")?;
            let (services, imports): (Vec<_>, Vec<_>) =
                items.iter().partition(|one| one["kind"] == "Service");
            let found = services.iter().map(|service| {
                let name = service["metadata"]["name"].as_str().unwrap_or_default();
                let port = service["spec"]["ports"][0]["port"].as_u64();
                (name.to_owned(), port.unwrap_or_default())
            });
            let found: BTreeMap<_, _> = found.collect();
            ensure!(found == expected, "there are {found:?}");
            for import in imports {
                told_well(import)?;
            }
            Ok(true)
        })
    }

    pub(crate) fn uid(&self, name: &str) -> Result<Value> {
        let import = self.plane.get(&["import", name, "-n", NAMESPACE])?;
        Ok(import["metadata"]["uid"].clone())
    }

    /// Waits until the Service belongs to the Import that there is now, which is not the one of before.
    pub(crate) fn wait_owner(&self, name: &str, before: &Value) -> Result<()> {
        let now = self.uid(name)?;
        ensure!(now != *before, "it was not made anew");
        wait_for("the Service has its new owner", PATIENCE, || {
            let service = self.plane.get(&["service", name, "-n", NAMESPACE])?;
            let owner = &service["metadata"]["ownerReferences"][0]["uid"];
            ensure!(*owner == now, "its owner is {owner}");
            Ok(true)
        })
    }
}

fn manifest(name: &str, port: u16) -> Value {
    let sources = [source("east", "shop", "web")];
    let mut import = import(NAMESPACE, name, port, &sources);
    import["spec"]["lbScheme"] = json!("static");
    import
}

fn told_well(import: &Value) -> Result<()> {
    let name = &import["metadata"]["name"];
    let conditions = import["status"]["conditions"].as_array();
    let conditions = conditions.with_context(|| format!("{name} has no conditions"))?;
    for condition in conditions {
        ensure!(
            condition["status"] == "True"
                && condition["observedGeneration"] == import["metadata"]["generation"],
            "{name}: {condition}"
        );
    }
    Ok(())
}
