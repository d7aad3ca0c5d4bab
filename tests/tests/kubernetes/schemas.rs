//! What a real API server makes of our definitions: what it refuses, and what it stores.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use clusterlink_crds::wrong;
use clusterlink_tests::conditions::{SOON, objects};
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::manifests::{access_policy, everything, import, peer, source};
use clusterlink_tests::tools::text;
use clusterlink_tests::wait::wait_for;
use clusterlink_tests::{Controller, story};
use serde_json::{Value, json};

#[test]
fn the_api_server_refuses_what_the_schemas_refuse_and_no_more() -> Result<()> {
    story("kubernetes-schemas", |scene| {
        let plane = ControlPlane::start(&scene.host("api")?)?;
        plane.install_clusterlink()?;
        refused(&plane)?;
        every_fault_is_refused(&plane, &scene.directory().join("faults"))?;
        let _controller = Controller::start(&scene.host("controller")?, &plane)?;
        odd_ones_are_told_of(&plane)
    })
}

/// What is accepted although it leads nowhere, and where the status says so with its cure.
fn odd_ones_are_told_of(plane: &ControlPlane) -> Result<()> {
    let import = |name, sources: &[Value]| import("default", name, 80, sources);
    let service = "ImportServiceValid";
    for (row, object, place, told) in [
        (
            "sources: []",
            import("nothing", &[]),
            service,
            "spec.sources is empty, so every connection is refused: add a source",
        ),
        (
            "an empty peer",
            import("no-peer", &[source("", "shop", "web")]),
            "sources",
            "peer is empty: fill it in",
        ),
        (
            "an empty exportName",
            import("no-name", &[source("east", "shop", "")]),
            "sources",
            "exportName is empty: fill it in",
        ),
        (
            "an empty exportNamespace",
            import("no-namespace", &[source("east", "", "web")]),
            "sources",
            "exportNamespace is empty: fill it in",
        ),
        (
            "no source that is valid",
            import("no-source", &[source("", "", "")]),
            service,
            "correct them as status.sources says",
        ),
        (
            "gateways: []",
            peer("caller", &[]),
            "PeerReachable",
            "see that the agents run",
        ),
    ] {
        plane.apply(std::slice::from_ref(&object))?;
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let kind = object["kind"].as_str().unwrap_or_default();
        let arguments = [kind, text("name"), "-n", text("namespace")];
        wait_for(row, SOON, || {
            let status = &plane.get(&arguments)?["status"];
            let mut entries = match place {
                "sources" => status["sources"].as_array(),
                _ => status["conditions"].as_array(),
            }
            .into_iter()
            .flatten();
            ensure!(
                entries.any(|entry| {
                    let of_it = place == "sources" || entry["type"] == place;
                    let message = entry["message"].as_str().unwrap_or_default();
                    of_it && message.contains(told)
                }),
                "{status}"
            );
            Ok(true)
        })?;
    }
    Ok(())
}

/// What people get wrong, with a part of what the API server answers.
fn refused(plane: &ControlPlane) -> Result<()> {
    let import = || import("default", "web", 80, &[]);
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut object = import();
        edit(&mut object);
        object
    };
    let mut both = everything();
    both["workloadSets"] = json!(["a"]);
    for (what, object, answer) in [
        (
            "lbScheme: foo",
            edited(&|o| o["spec"]["lbScheme"] = json!("foo")),
            "Unsupported value: \"foo\"",
        ),
        (
            "port: 70000",
            edited(&|o| o["spec"]["port"] = json!(70_000)),
            "less than or equal to 65535",
        ),
        (
            "no sources",
            edited(&|o| drop(o["spec"].as_object_mut().map(|spec| spec.remove("sources")))),
            "spec.sources: Required value",
        ),
        (
            "merge: true without quotes",
            edited(&|o| o["metadata"]["labels"] = json!({"import.clusterlink.net/merge": true})),
            "cannot unmarshal bool",
        ),
        (
            "a name that no Service can have",
            edited(&|o| o["metadata"]["name"] = json!("1-web")),
            "metadata.name",
        ),
        (
            "both a selector and sets",
            access_policy("default", "both", "allow", &both, &everything()),
            "exactly one of workloadSelector and workloadSets",
        ),
        (
            "neither a selector nor sets",
            access_policy("default", "none", "allow", &json!({}), &everything()),
            "exactly one of workloadSelector and workloadSets",
        ),
        (
            "action: maybe",
            access_policy("default", "maybe", "maybe", &everything(), &everything()),
            "Unsupported value: \"maybe\"",
        ),
    ] {
        let file = plane.write_manifests("refused", &[object])?;
        let file = file.display().to_string();
        let output = plane.kubectl(&["apply", "--validate=false", "-f", &file])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{what} was accepted");
        ensure!(said.contains(answer), "{what}: {said}");
    }
    Ok(())
}

/// Every fault of every field, in one call: a file each, since kubectl goes on with the next file
/// whatever is wrong with one.
fn every_fault_is_refused(plane: &ControlPlane, directory: &Path) -> Result<()> {
    fs::create_dir(directory)?;
    let wrong = wrong::wrong_manifests();
    let file_of = |number: usize| format!("fault-{number}.json");
    ensure!(wrong.len() > 100, "there are only {} faults", wrong.len());
    for (number, one) in wrong.iter().enumerate() {
        let mut manifest = one.manifest.clone();
        let named = one.field == "metadata.name";
        if let Some(metadata) = manifest["metadata"].as_object_mut() {
            if !named && metadata.get("name").is_some_and(Value::is_string) {
                metadata.insert("name".to_owned(), json!(format!("fault-{number}")));
            }
            if one.kind != "PrivilegedAccessPolicy" {
                metadata.insert("namespace".to_owned(), json!("default"));
            }
        }
        fs::write(directory.join(file_of(number)), manifest.to_string())?;
    }
    let create = ["create", "--dry-run=server", "-f", text(directory)];
    let output = plane.kubectl(&create)?;
    let created = String::from_utf8_lossy(&output.stdout);
    ensure!(created.is_empty(), "accepted: {created}");
    let said = String::from_utf8_lossy(&output.stderr);
    let untold = wrong.iter().enumerate().filter(|(number, _)| {
        let file = directory.join(file_of(*number));
        !said.contains(text(&file))
    });
    let untold: Vec<_> = untold.map(|(_, one)| (&one.kind, &one.what)).collect();
    ensure!(untold.is_empty(), "nothing is said of {untold:#?}: {said}");
    for complete in wrong::complete_manifests() {
        plane.apply(&[complete])?;
    }
    let list = objects(plane)?;
    ensure!(
        list.len() == 5,
        "complete manifests were accepted: {}",
        list.len()
    );
    plane.run(&["delete", "clusterlink", "--all", "-n", "default"])?;
    plane
        .run(&["delete", "privilegedaccesspolicies", "--all"])
        .map(drop)
}
