//! What the controller writes into status, against a real API server, with the account and the rights
//! that ship.

mod rows;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clusterlink_tests::conditions::{On, SOON, objects, wait_all};
use clusterlink_tests::controller::SYSTEM;
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::manifests::{
    access_policy, everything, export, import, matching, peer, service, source,
};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::{Controller, ControllerOptions, Scene, story};
use serde_json::{Value, json};

use rows::{Cure, Row, namespaces, rows};

/// A cluster with our kinds in it.
fn cluster(scene: &Scene) -> Result<ControlPlane> {
    let plane = ControlPlane::start(&scene.host("api")?)?;
    plane.install_clusterlink()?;
    Ok(plane)
}

#[test]
fn every_condition_is_false_with_its_cure_and_true_once_that_is_applied() -> Result<()> {
    story("kubernetes-conditions", |scene| {
        let plane = cluster(scene)?;
        let controller = Controller::start(&scene.host("controller")?, &plane)?;
        let rows = rows();
        plane.apply(&namespaces(rows.len()))?;
        // One after the other: of two Imports the older one keeps its port.
        for row in &rows {
            for wrong in &row.wrong {
                plane.apply(std::slice::from_ref(wrong))?;
            }
        }
        let told = rows.iter().map(|row| (row.row, &row.on, row.told));
        wait_all(&plane, &told.collect::<Vec<_>>())?;
        let before = objects(&plane)?;
        for row in &rows {
            match &row.cure {
                Cure::Apply(cure) => drop(plane.apply(std::slice::from_ref(cure))?),
                Cure::Delete(kind, name) => {
                    plane.run(&["delete", kind, name, "-n", &row.on.namespace])?;
                }
            }
        }
        let well = rows
            .iter()
            .map(|row| (row.row, &row.on, ("True", row.well, "")));
        wait_all(&plane, &well.collect::<Vec<_>>())?;
        let after = objects(&plane)?;
        for row in &rows {
            let time = |objects: &[Value]| -> Result<String> {
                let condition = row.on.find(objects)?;
                let time = condition["lastTransitionTime"].as_str();
                time.map(str::to_owned).context("no lastTransitionTime")
            };
            ensure!(
                time(&before)? <= time(&after)?,
                "{}: it went back in time",
                row.row
            );
        }
        events_tell_of_it(&plane, &rows)?;
        ensure!(
            controller.metric(
                "clusterlink_controller_status_writes_total",
                &["result=\"Failed\""]
            )? == 0.0
        );
        Ok(())
    })
}

/// What turned bad and good again is in the Events of the object, once each.
fn events_tell_of_it(plane: &ControlPlane, rows: &[Row]) -> Result<()> {
    wait_for("Events tell of it", SOON, || {
        let list = plane.get(&["events.events.k8s.io", "--all-namespaces"])?;
        let events = list["items"].as_array().cloned().unwrap_or_default();
        for row in rows {
            // Another condition of the object may turn well for the same reason.
            let of_it = format!("{} is ", row.on.condition);
            let of = |kind: &str, reason: &str| {
                let is = |event: &&Value| {
                    let regarding = &event["regarding"];
                    regarding["kind"] == row.on.kind
                        && regarding["name"] == row.on.name
                        && regarding["namespace"].as_str().unwrap_or_default() == row.on.namespace
                        && event["type"] == kind
                        && event["reason"] == reason
                        && event["note"]
                            .as_str()
                            .is_some_and(|note| note.starts_with(&of_it))
                };
                events.iter().filter(is).count()
            };
            let told = (of("Warning", row.told.1), of("Normal", row.well));
            ensure!(told == (1, 1), "{}: {told:?} Events", row.row);
        }
        Ok(true)
    })
}

#[test]
fn a_peer_of_which_no_agent_tells_is_unknown_and_a_source_says_which_peer_is_missing() -> Result<()>
{
    story("kubernetes-peers", |scene| {
        let plane = cluster(scene)?;
        let _controller = Controller::start(&scene.host("controller")?, &plane)?;
        let sources = [
            source("east", "shop", "web"),
            source("", "shop", "web"),
            source("west", "shop", "Web"),
        ];
        plane.apply(&[import("default", "web", 80, &sources)])?;
        let told = |index: usize| -> Result<(bool, String, String)> {
            let import = plane.get(&["import", "web", "-n", "default"])?;
            let source = &import["status"]["sources"][index];
            let text = |field: &str| source[field].as_str().unwrap_or_default().to_owned();
            let valid = source["valid"]
                .as_bool()
                .context("it says nothing of the source")?;
            Ok((valid, text("reason"), text("message")))
        };
        let wait = |index, valid, reason: &str, message: &str| {
            wait_for(&format!("source {index} is {reason:?}"), SOON, || {
                let told = told(index)?;
                ensure!(
                    told.0 == valid && told.1 == reason && told.2.contains(message),
                    "{told:?}"
                );
                Ok(true)
            })
        };
        wait(
            0,
            false,
            "PeerNotFound",
            "no Peer east is in namespace clusterlink-system",
        )?;
        wait(1, false, "SourceInvalid", "peer is empty: fill it in")?;
        wait(2, false, "SourceInvalid", "exportName is \"Web\"")?;
        // A Peer elsewhere does not count; one in the system namespace does.
        let mut elsewhere = peer("east", &[]);
        elsewhere["metadata"]["namespace"] = json!("default");
        plane.apply(&[elsewhere])?;
        let gateway = "192.0.2.1:4443".parse()?;
        plane.apply(&[peer("east", &[gateway])])?;
        wait(0, true, "", "")?;
        let on = On {
            kind: "Peer",
            namespace: SYSTEM.to_owned(),
            name: "east",
            condition: "PeerReachable",
        };
        let wanted = ("Unknown", "NoAgents", "see that the agents run");
        wait_all(&plane, &[("no agents", &on, wanted)])?;
        plane.run(&["delete", "peer", "east", "-n", SYSTEM])?;
        wait(0, false, "PeerNotFound", "create it")
    })
}

#[test]
fn nothing_is_written_when_nothing_changed() -> Result<()> {
    story("kubernetes-quiet", |scene| {
        let mut plane = cluster(scene)?;
        let host = scene.host("controller")?;
        let mut options = ControllerOptions::named("controller");
        // The lease must outlive the time that the API server is away.
        options.flags = vec!["--lease-duration=30s".into(), "--renew-deadline=20s".into()];
        let controller = Controller::start_with(&host, &plane, &options)?;
        let mut all = Vec::new();
        for number in 0..20 {
            let name = format!("web-{number}");
            all.push(export("default", &name, 80));
            all.push(import(
                "default",
                &name,
                80,
                &[source("east", "shop", "web")],
            ));
            all.push(access_policy(
                "default",
                &name,
                "allow",
                &everything(),
                &everything(),
            ));
        }
        all.push(export("default", "alone", 80));
        all.push(peer("east", &["192.0.2.1:4443".parse()?]));
        plane.apply(&all)?;
        wait_for("every object has a status", SOON, || {
            let objects = objects(&plane)?;
            let told = objects
                .iter()
                .filter(|one| one["status"]["conditions"].is_array());
            ensure!(
                objects.len() == all.len() && told.count() == all.len(),
                "{}",
                objects.len()
            );
            Ok(true)
        })?;
        // The peer came last, and with it the sources of the imports.
        let quiet = settled(&plane, &controller)?;
        ensure!(
            controller.status_writes()? <= all.len() as f64 * 2.0,
            "{} writes of {} objects",
            controller.status_writes()?,
            all.len()
        );
        // Applied again as they are: no change, no write.
        plane.apply(&all)?;
        unchanged(&plane, &controller, &quiet)?;
        // A controller that starts anew finds all as it should be.
        ensure!(controller.stop()?.success(), "it stops in good order");
        let controller = Controller::start_with(&host, &plane, &options)?;
        wait_for("it leads", SOON, || controller.leads())?;
        unchanged(&plane, &controller, &quiet)?;
        ensure!(
            controller.status_writes()? == 0.0,
            "{}",
            controller.log_tail()
        );
        // So does one whose API server was away, and it notices what changed meanwhile.
        plane.stop_api_server()?;
        plane.start_api_server()?;
        plane.apply(&[service("default", "alone", 80)])?;
        let on = On {
            kind: "Export",
            namespace: "default".to_owned(),
            name: "alone",
            condition: "ExportValid",
        };
        wait_all(&plane, &[("after the restart", &on, ("True", "Valid", ""))])?;
        // The answer to the write may arrive after the watch has told of it.
        wait_for("one write is counted", SOON, || {
            Ok(controller.status_writes()? == 1.0)
        })?;
        unchanged(&plane, &controller, &settled(&plane, &controller)?)?;
        ensure!(controller.status_writes()? == 1.0, "more is written");
        // Whoever edits a status is corrected.
        let patch = r#"{"status":{"conditions":[]}}"#;
        let arguments = [
            "patch",
            "export",
            "alone",
            "--subresource=status",
            "--type=merge",
            "-p",
            patch,
        ];
        plane.run(&arguments)?;
        wait_all(&plane, &[("after an edit", &on, ("True", "Valid", ""))])
    })
}

/// Names and versions of all objects.
fn versions(plane: &ControlPlane) -> Result<Vec<String>> {
    let version = |object: &Value| {
        let metadata = &object["metadata"];
        format!(
            "{} {} {}",
            object["kind"], metadata["name"], metadata["resourceVersion"]
        )
    };
    Ok(objects(plane)?.iter().map(version).collect())
}

/// Waits until the versions stay the same for longer than any write takes, and gives them.
fn settled(plane: &ControlPlane, controller: &Controller) -> Result<Vec<String>> {
    let mut before = (versions(plane)?, controller.status_writes()?);
    let mut since = Instant::now();
    wait_until("no status is written any more", SOON, || {
        let now = (versions(plane)?, controller.status_writes()?);
        if now != before {
            before = now;
            since = Instant::now();
        }
        Ok((since.elapsed() > Duration::from_secs(3)).then(|| before.0.clone()))
    })
}

fn unchanged(plane: &ControlPlane, controller: &Controller, before: &[String]) -> Result<()> {
    let after = settled(plane, controller)?;
    ensure!(
        after == before,
        "some objects were written: {before:#?} {after:#?}"
    );
    Ok(())
}

#[test]
fn an_object_that_no_longer_decodes_leaves_the_others_unaffected() -> Result<()> {
    story("kubernetes-undecodable", |scene| {
        let plane = cluster(scene)?;
        // Stored while the definition still said less than it does now.
        let loose = json!([
            {"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/lbScheme/enum"},
        ]);
        let arguments = [
            "patch",
            "crd",
            "imports.clusterlink.net",
            "--type=json",
            "-p",
        ];
        plane.run(&[&arguments[..], &[&loose.to_string()]].concat())?;
        let mut old = import("default", "old", 80, &[]);
        old["spec"]["lbScheme"] = json!("newest-first");
        wait_for("the definition is loose", SOON, || {
            plane.apply(&[old.clone()]).map(|_| true)
        })?;
        plane.install_definitions()?;
        let controller = Controller::start(&scene.host("controller")?, &plane)?;
        plane.apply(&[import("default", "new", 80, &[])])?;
        let on = On {
            kind: "Import",
            namespace: "default".to_owned(),
            name: "new",
            condition: "ImportTargetPortValid",
        };
        wait_all(
            &plane,
            &[("another import", &on, ("True", "Allocated", ""))],
        )?;
        let undecodable = "clusterlink_controller_undecodable_objects";
        ensure!(controller.metric(undecodable, &[])? == 1.0);
        ensure!(
            controller.log()?.contains("default/old"),
            "{}",
            controller.log_tail()
        );
        wait_for("an Event tells of it", SOON, || {
            let list = plane.get(&["events.events.k8s.io", "-n", "default"])?;
            let mut events = list["items"].as_array().into_iter().flatten();
            Ok(events.any(|event| {
                event["reason"] == "Undecodable" && event["regarding"]["name"] == "old"
            }))
        })?;
        let old = plane.get(&["import", "old", "-n", "default"])?;
        ensure!(old["status"].is_null(), "nobody knows what it is: {old}");
        // Corrected, it is as any other.
        let cure = r#"{"spec":{"lbScheme":"static"}}"#;
        plane.run(&["patch", "import", "old", "--type=merge", "-p", cure])?;
        let on = On { name: "old", ..on };
        wait_all(&plane, &[("corrected", &on, ("True", "Allocated", ""))])?;
        ensure!(controller.metric(undecodable, &[])? == 0.0);
        Ok(())
    })
}

trait Definitions {
    fn install_definitions(&self) -> Result<()>;
}

impl Definitions for ControlPlane {
    /// Applies the definitions as they ship, over what was done to them.
    fn install_definitions(&self) -> Result<()> {
        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds");
        self.run(&["apply", "--server-side", "--force-conflicts", "-f", crds])
            .map(drop)
    }
}

#[test]
fn of_two_controllers_one_writes_and_the_other_takes_over() -> Result<()> {
    story("kubernetes-leaders", |scene| {
        let plane = cluster(scene)?;
        let start = |name: &str| -> Result<Controller> {
            Controller::start_with(&scene.host(name)?, &plane, &ControllerOptions::named(name))
        };
        let first = start("first")?;
        wait_for("the first leads", SOON, || first.leads())?;
        let second = start("second")?;
        let holder = || -> Result<String> {
            let lease = plane.get(&["lease", "clusterlink-controller", "-n", SYSTEM])?;
            Ok(lease["spec"]["holderIdentity"]
                .as_str()
                .unwrap_or_default()
                .to_owned())
        };
        ensure!(holder()?.starts_with("first/10.77.0."), "{}", holder()?);
        ensure!(holder()?.ends_with(":4445"), "{}", holder()?);
        plane.apply(&[export("default", "one", 80)])?;
        let on = |name| On {
            kind: "Export",
            namespace: "default".to_owned(),
            name,
            condition: "ExportValid",
        };
        let wait = |name: &'static str| {
            let wanted = ("False", "ServiceNotFound", "");
            wait_all(&plane, &[(name, &on(name), wanted)])
        };
        wait("one")?;
        ensure!(
            !second.leads()? && second.status_writes()? == 0.0,
            "{}",
            second.log_tail()
        );
        // Killed: the other one waits for the end of the lease.
        first.kill9()?;
        plane.apply(&[export("default", "two", 80)])?;
        wait("two")?;
        ensure!(second.leads()?);
        ensure!(holder()?.starts_with("second/"), "{}", holder()?);
        ensure!(
            second.status_writes()? == 1.0,
            "what the first wrote is not written again"
        );
        // Stopped in good order: the next one need not wait.
        let third = start("third")?;
        ensure!(!third.leads()?);
        ensure!(second.stop()?.success());
        let since = Instant::now();
        wait_for("the third leads", SOON, || third.leads())?;
        ensure!(
            since.elapsed() < Duration::from_secs(2),
            "it took {:?}",
            since.elapsed()
        );
        plane.apply(&[export("default", "three", 80)])?;
        wait("three")
    })
}

#[test]
fn the_name_of_the_peer_is_read_from_its_certificate_and_nowhere_else() -> Result<()> {
    story("kubernetes-identity", |scene| {
        let plane = cluster(scene)?;
        let host = scene.host("controller")?;
        let mut options = ControllerOptions::named("controller");
        options.peer_name = None;
        let mut controller = Controller::spawn(&host, &plane, &options)?;
        let status = controller.process().wait(SOON)?;
        ensure!(
            !status.success() && controller.log()?.contains("clusterlink-peer"),
            "{}",
            controller.log_tail()
        );
        let certificate = scene.directory().join("cert.pem");
        let made = rcgen::generate_simple_self_signed(["here".to_owned()])?;
        std::fs::write(&certificate, made.cert.pem())?;
        let file = format!("--from-file=cert.pem={}", certificate.display());
        plane.run(&[
            "create",
            "secret",
            "generic",
            "clusterlink-peer",
            "-n",
            SYSTEM,
            &file,
        ])?;
        plane.run(&["create", "secret", "generic", "other", "-n", SYSTEM, &file])?;
        let controller = Controller::start_with(&host, &plane, &options)?;
        ensure!(
            controller.log()?.contains("peer=here"),
            "{}",
            controller.log_tail()
        );
        // The account that it has cannot read any other Secret.
        let account = plane.kubeconfig_of(SYSTEM, "clusterlink-controller")?;
        let account = account.display().to_string();
        for (secret, may) in [("clusterlink-peer", true), ("other", false)] {
            let arguments = [
                "get",
                "secret",
                secret,
                "-n",
                SYSTEM,
                "--kubeconfig",
                &account,
            ];
            let output = plane.kubectl(&arguments)?;
            ensure!(output.status.success() == may, "{secret}: {output:?}");
        }
        Ok(())
    })
}

#[test]
fn a_wrong_flag_ends_it_with_all_of_them_named() -> Result<()> {
    story("kubernetes-flags", |scene| {
        let host = scene.host("controller")?;
        let program = clusterlink_tests::tools::clusterlink_controller()?;
        let arguments = ["--listen", "here", "--target-ports", "9-1"];
        let output = host.output(program, &arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(2) {
            bail!("{:?}: {said}", output.status);
        }
        ensure!(
            said.contains("--listen") && said.contains("--target-ports"),
            "{said}"
        );
        Ok(())
    })
}

#[test]
fn a_policy_that_trusts_every_peer_is_valid_with_a_warning() -> Result<()> {
    story("kubernetes-warning", |scene| {
        let plane = cluster(scene)?;
        let _controller = Controller::start(&scene.host("controller")?, &plane)?;
        let from = matching("client.clusterlink.net/namespace", "shop");
        let policy = access_policy("default", "trusting", "allow", &from, &everything());
        plane.apply(&[policy])?;
        let on = On {
            kind: "AccessPolicy",
            namespace: "default".to_owned(),
            name: "trusting",
            condition: "PolicyValid",
        };
        let wanted = ("True", "ClientWithoutPeer", "add peer.clusterlink.net/name");
        wait_all(&plane, &[("trusting", &on, wanted)])
    })
}
