//! What outlives the controller's process and its pod, against a real API server.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clusterlink_tests::conditions::{On, SOON, wait_all};
use clusterlink_tests::controller::SYSTEM;
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::manifests::{access_policy, everything, privileged_policy};
use clusterlink_tests::tools::text;
use clusterlink_tests::wait::wait_for;
use clusterlink_tests::{Controller, ControllerOptions, Host, story};
use serde_json::{Value, json};

const CA: &str = "clusterlink-controller-ca";
const DENIES: &str = "clusterlink-valid-denies";

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
        wait_unusable(&plane, "Secret", CA)?;
        let refused = puzzled.wait_ready_for(Duration::from_secs(1));
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

#[test]
fn a_deny_that_became_invalid_while_no_controller_ran_is_in_force_in_the_next_pod() -> Result<()> {
    story("kubernetes-kept-denies", |scene| {
        let plane = ControlPlane::start(&scene.host("api")?)?;
        plane.install_clusterlink()?;
        let start = |name: &str| -> Result<Controller> {
            Controller::start_with(&scene.host(name)?, &plane, &ControllerOptions::named(name))
        };
        let all = everything();
        let deny = access_policy("default", "lock", "deny", &all, &all);
        let lockdown = privileged_policy("lockdown", "deny", &all, &all);
        let namespaced = On {
            kind: "AccessPolicy",
            namespace: "default".to_owned(),
            name: "lock",
            condition: "PolicyValid",
        };
        let privileged = On {
            kind: "PrivilegedAccessPolicy",
            namespace: String::new(),
            name: "lockdown",
            condition: "PolicyValid",
        };
        let wait = |wanted| {
            let rows = [("a", &namespaced, wanted), ("b", &privileged, wanted)];
            wait_all(&plane, &rows)
        };
        // Each set is another generation, of which the condition has to speak.
        let edited = |policy: &Value, set: &str| {
            let mut policy = policy.clone();
            policy["spec"]["from"] = json!([{"workloadSets": [set]}]);
            policy
        };
        let break_both = |set: &str| {
            let both = [edited(&deny, set), edited(&lockdown, set)];
            plane.apply(&both)
        };

        let first = start("first")?;
        plane.apply(&[deny.clone(), lockdown.clone()])?;
        wait(("True", "Valid", ""))?;
        wait_for("both are stored", SOON, || {
            let stored = stored_denies(&plane, scene.directory())?;
            Ok(stored.contains("\"lock\"") && stored.contains("\"lockdown\""))
        })?;
        first.kill9()?;
        break_both("one")?;
        // Each has another file system than the one before: nothing but the object is left.
        let second = start("second")?;
        wait(("False", "DenyKept", "a deny, stays in force"))?;
        second.kill9()?;
        break_both("another")?;
        let third = start("third")?;
        wait(("False", "DenyKept", "a deny, stays in force"))?;

        // Corrected, nothing of it stays.
        let allow = access_policy("default", "lock", "allow", &all, &all);
        let privileged_allow = privileged_policy("lockdown", "allow", &all, &all);
        plane.apply(&[allow, privileged_allow])?;
        wait(("True", "Valid", ""))?;
        break_both("once-more")?;
        wait(("False", "WorkloadSetUnknown", "nothing is in force"))?;
        drop(third);

        // A damaged object keeps a controller from serving, and it says so.
        let broken = r#"{"binaryData": {"denies.json.gz": "bm9uc2Vuc2U="}}"#;
        plane.run(&["patch", "configmap", DENIES, "-n", SYSTEM, "-p", broken])?;
        let host = scene.host("fourth")?;
        let mut fourth = Controller::spawn(&host, &plane, &ControllerOptions::named("fourth"))?;
        wait_for("the damage is told of", SOON, || {
            Ok(fourth.log()?.contains("is damaged"))
        })?;
        wait_unusable(&plane, "ConfigMap", DENIES)?;
        let refused = fourth.wait_ready_for(Duration::from_secs(1));
        let refused = format!("{:#}", refused.err().context("it is ready")?);
        ensure!(refused.contains("the last valid denies"), "{refused}");
        plane.run(&["delete", "configmap", DENIES, "-n", SYSTEM])?;
        fourth.wait_ready()
    })
}

/// The denies that are kept, as JSON; nothing while there is no ConfigMap.
fn stored_denies(plane: &ControlPlane, directory: &Path) -> Result<String> {
    if !plane.exists(&["configmap", DENIES, "-n", SYSTEM])? {
        return Ok(String::new());
    }
    let map = plane.get(&["configmap", DENIES, "-n", SYSTEM])?;
    let packed = map["binaryData"]["denies.json.gz"].as_str();
    let file = directory.join("denies.base64");
    fs::write(&file, packed.context("no denies")?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let unpack = format!("base64 -d {} | gunzip", text(&file));
    plane.host().run("sh", &["-c", &unpack])
}

/// Waits for the Event that tells what is wrong with an object of the controller's.
fn wait_unusable(plane: &ControlPlane, kind: &str, name: &str) -> Result<()> {
    wait_for("an Event tells of it", SOON, || {
        let list = plane.get(&["events.events.k8s.io", "-n", SYSTEM])?;
        let mut events = list["items"].as_array().context("no list")?.iter();
        Ok(events.any(|event| {
            let regarding = &event["regarding"];
            event["reason"] == "Unusable" && regarding["kind"] == kind && regarding["name"] == name
        }))
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
