//! What outlives the controller's process and its pod, against a real API server.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clusterlink_tests::conditions::SOON;
use clusterlink_tests::controller::SYSTEM;
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::tools::text;
use clusterlink_tests::wait::wait_for;
use clusterlink_tests::{Controller, ControllerOptions, Host, story};

const CA: &str = "clusterlink-controller-ca";

#[test]
fn agents_trust_a_restarted_controller_and_another_replica_at_once() -> Result<()> {
    story("kubernetes-authority", |scene| {
        let plane = ControlPlane::start(&scene.host("api")?)?;
        plane.install_clusterlink()?;
        let (one, two) = (scene.host("one")?, scene.host("two")?);
        let options = ControllerOptions::named;
        let first = Controller::start_with(&one, &plane, &options("one"))?;
        // What the kubelet has put on a node, and does not put there again.
        let bundle = bundle(&plane, scene.directory())?;
        ensure!(trusts(&one, &bundle)?, "{}", first.log_tail());
        let second = Controller::start_with(&two, &plane, &options("two"))?;
        ensure!(trusts(&two, &bundle)?, "{}", second.log_tail());
        first.kill9()?;
        second.kill9()?;
        let again = Controller::start_with(&one, &plane, &options("one"))?;
        ensure!(trusts(&one, &bundle)?, "{}", again.log_tail());
        again.kill9()?;

        // Somebody else's, or broken: it says so and does not end, until that is cured.
        let before = plane.get(&["secret", CA, "-n", SYSTEM])?;
        let broken = r#"{"data": {"authorities.pem": "bm9uc2Vuc2U="}}"#;
        plane.run(&["patch", "secret", CA, "-n", SYSTEM, "-p", broken])?;
        let mut puzzled = Controller::spawn(&one, &plane, &options("one"))?;
        wait_for("the broken Secret is told of", SOON, || {
            let log = puzzled.log()?;
            Ok(log.contains("no certificate is in it") && log.contains("delete the Secret"))
        })?;
        let refused = puzzled.wait_ready_for(std::time::Duration::from_secs(1));
        let refused = format!("{:#}", refused.err().context("it is ready")?);
        ensure!(refused.contains(CA), "{refused}");
        let now = plane.get(&["secret", CA, "-n", SYSTEM])?;
        ensure!(
            now["data"]["authorities.pem"] == "bm9uc2Vuc2U=",
            "it is overwritten"
        );
        let cure = format!(r#"{{"data": {}}}"#, before["data"]);
        plane.run(&["patch", "secret", CA, "-n", SYSTEM, "-p", &cure])?;
        puzzled.wait_ready()?;
        ensure!(trusts(&one, &bundle)?, "{}", puzzled.log_tail());

        // The key is in the Secret and nowhere else.
        let map = plane.run(&["get", "configmap", CA, "-n", SYSTEM, "-o", "yaml"])?;
        for said in [map, puzzled.log()?] {
            ensure!(!said.contains("PRIVATE KEY"), "{said}");
        }
        Ok(())
    })
}

/// The file that an agent reads.
fn bundle(plane: &ControlPlane, directory: &Path) -> Result<PathBuf> {
    let map = plane.get(&["configmap", CA, "-n", SYSTEM])?;
    let pem = map["data"]["ca.pem"].as_str().context("no ca.pem")?;
    let file = directory.join("ca.pem");
    fs::write(&file, pem).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Whether the controller of a host shows a certificate that is good by that file.
fn trusts(host: &Host, bundle: &Path) -> Result<bool> {
    let name = format!("clusterlink-controller.{SYSTEM}.svc");
    let resolve = format!("{name}:4445:{}", host.ipv4());
    let url = format!("https://{name}:4445/");
    let output = host.output(
        "curl",
        &[
            "--silent",
            "--http2",
            "--cacert",
            text(bundle),
            "--resolve",
            &resolve,
            &url,
        ],
    )?;
    Ok(output.status.success())
}
