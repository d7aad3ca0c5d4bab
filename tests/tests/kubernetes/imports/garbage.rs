//! What the garbage collector of kube-controller-manager and the controller leave of an Import.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clusterlink_tests::story;
use clusterlink_tests::wait::wait_for;
use serde_json::json;

use crate::imports::cluster::{Cluster, NAMESPACE, SOON, import, service};

/// How long the collector may take; it looks for kinds twice a minute.
const COLLECTED: Duration = Duration::from_secs(90);

#[test]
fn an_import_that_is_deleted_while_no_controller_runs_leaves_nothing() -> Result<()> {
    story("imports-garbage", |scene| {
        let mut cluster = Cluster::new(scene)?;
        let _collector = cluster.plane.start_controller_manager()?;
        cluster.plane.apply(&[import("web", 9000, false)])?;
        let made = cluster.wait_served("web")?;
        let spec = json!({"clusterIP": made["spec"]["clusterIP"], "ports": [{"port": 80}]});
        let other = cluster
            .plane
            .write_manifests("other", &[service("other", &spec)])?;
        let other = other.to_str().context("a path in ASCII")?;

        cluster.controller = None;
        cluster.kubectl(&["delete", "import", "web"])?;
        wait_for("the collector has deleted all of it", COLLECTED, || {
            let left = cluster.find("service", "web")?;
            let left = left.context("the Service has gone though agents may steer its address")?;
            Ok(left["metadata"]["deletionTimestamp"].is_string()
                && cluster.slices("web")?.is_empty())
        })?;
        let taken = cluster.plane.kubectl(&["create", "-f", other])?;
        ensure!(!taken.status.success(), "the ClusterIP is free already");

        cluster.start()?;
        wait_for("agents are asked for the addresses", SOON, || {
            Ok(cluster.controller()?.agents.asked().len() == 2)
        })?;
        cluster.controller()?.agent_says("n1", &[], true)?;
        cluster.wait_quiet()?;
        ensure!(
            cluster.find("service", "web")?.is_some(),
            "one agent has not let go yet"
        );
        cluster.wait_gone("web")?;
        cluster.plane.run(&["create", "-f", other])?;
        ensure!(
            cluster.find("service", "other")?.is_some(),
            "the address is not free"
        );

        // With a controller the collector finds nothing to do, and the target port is free again.
        for name in ["next", "last"] {
            cluster.plane.apply(&[import(name, 9000, false)])?;
            let served = cluster.wait_served(name)?;
            ensure!(served["spec"]["ports"][0]["targetPort"] == 9000, "{served}");
            cluster.kubectl(&["delete", "import", name])?;
            cluster.wait_gone(name)?;
        }
        for (kind, label) in [
            ("services", "app.kubernetes.io/managed-by"),
            ("endpointslices", "endpointslice.kubernetes.io/managed-by"),
        ] {
            let ours = format!("{label}=clusterlink.net");
            let left = cluster.plane.get(&["-n", NAMESPACE, kind, "-l", &ours])?;
            ensure!(left["items"] == json!([]), "{kind} are left: {left}");
        }
        Ok(())
    })
}
