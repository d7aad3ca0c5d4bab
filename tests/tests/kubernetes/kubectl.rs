//! What `kubectl get` and `kubectl explain` print of our kinds, compared with files of the repository.
//!
//! `CLUSTERLINK_REGENERATE=1 cargo xtask test what_kubectl_prints` writes the files anew.

mod table;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clusterlink_tests::conditions::{SOON, objects};
use clusterlink_tests::controller::SYSTEM;
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::manifests::{
    access_policy, everything, export, import, matching, peer, privileged_policy, service, source,
};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::{Controller, story};
use serde_json::{Value, json};

/// What writes the files instead of comparing them.
const REGENERATE: &str = "CLUSTERLINK_REGENERATE";

/// The kinds, with the fields that are explained by themselves.
const EXPLAINED: [(&str, &[&str]); 5] = [
    ("export", &["spec", "status"]),
    (
        "import",
        &["spec", "spec.sources", "status", "status.sources"],
    ),
    ("peer", &["spec", "spec.gateways", "status"]),
    ("accesspolicy", &["spec", "spec.from", "status"]),
    ("privilegedaccesspolicy", &["spec", "status"]),
];

#[test]
fn what_kubectl_prints_is_what_is_kept_in_the_repository() -> Result<()> {
    story("kubernetes-kubectl", |scene| {
        let plane = ControlPlane::start(&scene.host("api")?)?;
        plane.install_clusterlink()?;
        let mut wrong = Vec::new();
        for (kind, fields) in EXPLAINED {
            let text = explained(&plane, kind, fields)?;
            wrong.extend(differs(&format!("explain-{kind}.txt"), &text)?);
        }
        let controller = Controller::start(&scene.host("controller")?, &plane)?;
        let manifests = manifests()?;
        plane.apply(&manifests)?;
        wait_for("every object has a status", SOON, || {
            let objects = objects(&plane)?;
            let told = |one: &&Value| one["status"]["conditions"].is_array();
            let told = objects.iter().filter(told).count();
            // The Service is no object of ours.
            ensure!(told == manifests.len() - 1, "{told} have one");
            Ok(true)
        })?;
        wait_for("the Import is served", SOON, || {
            let import = plane.get(&["import", "web", "-n", "default"])?;
            let conditions = import["status"]["conditions"].as_array();
            let well = |one: &Value| one["status"] == "True";
            Ok(conditions.is_some_and(|all| all.len() == 2 && all.iter().all(well)))
        })?;
        // What agents tell is put in by hand, once nobody corrects it.
        ensure!(controller.stop()?.success(), "it stops in good order");
        reached(&plane)?;
        let text = listed(&plane)?;
        wrong.extend(differs("get.txt", &text)?);
        ensure!(
            wrong.is_empty(),
            "kubectl prints something else; if that is meant, run `{REGENERATE}=1 cargo xtask test what_kubectl_prints`, \
             which writes tests/kubectl anew, and look at the difference:\n{}",
            wrong.join("\n")
        );
        Ok(())
    })
}

fn manifests() -> Result<Vec<Value>> {
    let gateway = |address: &str| address.parse().context("an address");
    let mut reserved = import("default", "reserved", 80, &[source("east", "shop", "web")]);
    reserved["spec"]["targetPort"] = json!(443);
    let sources = [source("west", "shop", "web"), source("east", "shop", "web")];
    let mut web = import("default", "web", 80, &sources);
    web["spec"]["targetPort"] = json!(20_001);
    web["spec"]["lbScheme"] = json!("static");
    let unknown = json!({"workloadSets": ["everything"]});
    let client = matching("client.clusterlink.net/namespace", "shop");
    Ok(vec![
        service("default", "shared", 80),
        export("default", "shared", 80),
        export("default", "missing", 80),
        reserved,
        web,
        peer(
            "east",
            &[gateway("192.0.2.1:4443")?, gateway("192.0.2.2:4443")?],
        ),
        peer("west", &[gateway("192.0.2.3:4443")?]),
        access_policy(
            "default",
            "allow-all",
            "allow",
            &everything(),
            &everything(),
        ),
        access_policy("default", "trusting", "allow", &client, &everything()),
        access_policy("default", "unknown-set", "deny", &unknown, &everything()),
        privileged_policy("deny-all", "deny", &everything(), &everything()),
    ])
}

/// East is reached, and its export is accepted.
fn reached(plane: &ControlPlane) -> Result<()> {
    let status = json!({"status": {
        "lastSeen": "2020-01-01T00:00:00Z", "rtt": "12.5ms", "version": "clusterlink 0.1.0",
        "conditions": [{
            "type": "PeerReachable", "status": "True", "reason": "Reachable",
            "message": "Peer clusterlink-system/east is reached from 2 of 2 nodes",
            "lastTransitionTime": "2020-01-01T00:00:00Z", "observedGeneration": 1,
        }],
    }});
    plane.patch_status("peer", Some(SYSTEM), "east", &status)?;
    let import = plane.get(&["import", "web", "-n", "default"])?;
    let mut sources = import["status"]["sources"].clone();
    sources[0]["reachable"] = json!(false);
    sources[1]["reachable"] = json!(true);
    sources[1]["accepted"] = json!(true);
    let status = json!({"status": {"sources": sources}});
    plane.patch_status("import", Some("default"), "web", &status)
}

/// `kubectl get` of every kind, narrow and wide.
fn listed(plane: &ControlPlane) -> Result<String> {
    let mut text = String::new();
    for kind in [
        "exports",
        "imports",
        "peers",
        "accesspolicies",
        "privilegedaccesspolicies",
    ] {
        for wide in [&[][..], &["-o", "wide"]] {
            let arguments = [&["get", kind, "--all-namespaces"], wide].concat();
            let printed = table::without_ages(&plane.run(&arguments)?)?;
            writeln!(text, "$ kubectl {}\n{printed}", arguments.join(" "))?;
        }
    }
    Ok(text)
}

/// `kubectl explain` of a kind: all of its fields, then some of them with what they mean.
fn explained(plane: &ControlPlane, kind: &str, fields: &[&str]) -> Result<String> {
    let mut text = String::new();
    let mut add = |arguments: &[&str]| -> Result<()> {
        // The API server publishes what a definition says a moment after it serves the kind.
        let printed = wait_until("the kind is explained", SOON, || {
            plane.run(arguments).map(Some)
        })?;
        let lines = printed.trim().lines().map(str::trim_end);
        let printed = lines.collect::<Vec<_>>().join("\n");
        writeln!(text, "$ kubectl {}\n{printed}\n", arguments.join(" "))?;
        Ok(())
    };
    add(&["explain", kind, "--recursive"])?;
    for field in fields {
        add(&["explain", &format!("{kind}.{field}")])?;
    }
    Ok(text)
}

/// The first line of a file that is not as printed, if there is one; or writes the file.
fn differs(file: &str, printed: &str) -> Result<Option<String>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubectl");
    let path = directory.join(file);
    if std::env::var_os(REGENERATE).is_some_and(|value| value == "1") {
        fs::create_dir_all(&directory)?;
        fs::write(&path, printed).with_context(|| format!("cannot write {}", path.display()))?;
        return Ok(None);
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if kept == printed {
        return Ok(None);
    }
    let (mut kept, mut printed) = (kept.lines(), printed.lines());
    let mut number = 1;
    loop {
        let (was, is) = (kept.next(), printed.next());
        if was != is || was.is_none() {
            let (was, is) = (was.unwrap_or("the end"), is.unwrap_or("the end"));
            return Ok(Some(format!(
                "tests/kubectl/{file}:{number}\n- {was}\n+ {is}"
            )));
        }
        number += 1;
    }
}
