//! What the controller makes of Imports in a cluster, against a real API server.

mod cluster;
mod controller;
mod garbage;

use anyhow::{Context, Result, ensure};
use clusterlink_controller::cluster::{Kind, Verb};
use clusterlink_tests::story;
use clusterlink_tests::wait::{always, wait_for, wait_until};
use serde_json::{Value, json};

use controller::SYSTEM;

use cluster::{Cluster, NAMESPACE, SOON, import, our_labels, service};

#[test]
fn an_import_gets_a_service_and_slices_and_leaves_nothing_when_it_is_deleted() -> Result<()> {
    story("imports-life", |scene| {
        let mut cluster = Cluster::new(scene)?;
        cluster.plane.apply(&[import("web", 9000, false)])?;
        let made = cluster.wait_served("web")?;
        ensure!(made["spec"]["ports"][0]["targetPort"] == 9000, "{made}");
        ensure!(made["spec"].get("selector").is_none(), "{made}");
        let slices = cluster.slices("web")?;
        let families: Vec<_> = slices.iter().map(|slice| &slice["addressType"]).collect();
        ensure!(families == ["IPv4", "IPv6"], "{slices:?}");
        let slice = &slices[0];
        let endpoint = &slice["endpoints"][0];
        ensure!(endpoint["addresses"] == json!(["192.0.2.1"]), "{slice}");
        ensure!(
            endpoint["nodeName"] == "n1" && endpoint["zone"] == "z1",
            "{slice}"
        );
        ensure!(
            endpoint["hints"]["forZones"] == json!([{"name": "z1"}]),
            "{slice}"
        );
        ensure!(
            slice["ports"] == json!([{"name": "", "port": 9000, "protocol": "TCP"}]),
            "{slice}"
        );
        let counts = cluster.controller()?.counts.clone();
        cluster.wait_quiet()?;
        let writes = |verb, kind| counts.get(verb, kind);
        ensure!(writes(Verb::Create, Kind::Service) == 1, "{counts:?}");
        ensure!(writes(Verb::Create, Kind::EndpointSlice) == 2, "{counts:?}");
        ensure!(counts.total() == 3, "nothing else is written: {counts:?}");

        // One agent's readiness is one write for each family.
        cluster.set_ready("n2", false)?;
        wait_for("one endpoint is ready", SOON, || {
            Ok(cluster.ready("web")? == 1)
        })?;
        cluster.set_ready("n2", true)?;
        wait_for("two endpoints are ready", SOON, || {
            Ok(cluster.ready("web")? == 2)
        })?;
        ensure!(cluster.wait_quiet()? == 3 + 2 * 2, "{counts:?}");

        // A restarted controller finds everything as it should be.
        cluster.controller = None;
        cluster.start()?;
        cluster.wait_served("web")?;
        ensure!(
            cluster.wait_quiet()? == 0,
            "{:?}",
            cluster.controller()?.counts
        );

        cluster.kubectl(&["delete", "import", "web"])?;
        wait_for("agents are asked for the address", SOON, || {
            Ok(cluster.controller()?.agents.asked().len() == 2)
        })?;
        ensure!(cluster.served("web")?.is_none(), "it is still served");
        let kept = cluster
            .find("service", "web")?
            .context("the Service has gone too early")?;
        ensure!(kept["metadata"]["deletionTimestamp"].is_string(), "{kept}");
        cluster.controller()?.agent_says("n1", &[], true)?;
        cluster.wait_quiet()?;
        ensure!(
            cluster.find("service", "web")?.is_some(),
            "one agent has not let go yet"
        );
        cluster.wait_gone("web")?;

        // Deleted while nobody watches.
        cluster.plane.apply(&[import("web", 0, false)])?;
        cluster.wait_served("web")?;
        cluster.controller = None;
        cluster.kubectl(&["delete", "import", "web"])?;
        cluster.start()?;
        cluster.wait_gone("web")
    })
}

#[test]
fn a_service_of_the_same_name_is_somebody_elses_until_it_is_given_to_us() -> Result<()> {
    story("imports-ownership", |scene| {
        let cluster = Cluster::new(scene)?;
        let ports = json!([{"name": "x", "port": 81}]);
        let spec = json!({"selector": {"app": "web"}, "ports": ports});
        cluster
            .plane
            .apply(&[service("web", &spec), import("web", 0, false)])?;
        let message = cluster.wait_service("web", "ServiceNotOwned")?;
        ensure!(message.contains("shop/web"), "{message}");
        ensure!(cluster.wait_quiet()? == 0, "a foreign Service is touched");

        // Given the labels, with a selector, with foreign slices, then rightly.
        cluster.patch("service", "web", &our_labels("web"))?;
        cluster.wait_service("web", "ServiceHasSelector")?;
        cluster.plane.apply(&[json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "theirs", "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "endpoints": [], "ports": [],
        })])?;
        cluster.patch("service", "web", &json!({"spec": {"selector": null}}))?;
        let message = cluster.wait_service("web", "ServiceHasForeignSlices")?;
        ensure!(message.contains("theirs"), "{message}");
        ensure!(cluster.wait_quiet()? == 0, "a Service is adopted too early");
        cluster.kubectl(&["delete", "endpointslice", "theirs"])?;
        let adopted = cluster.wait_served("web")?;
        ensure!(adopted["spec"]["ports"][0]["port"] == 80, "{adopted}");

        // Edited by hand: what is ours is repaired, what is theirs stays.
        cluster.patch("service", "web", &json!({
            "metadata": {"labels": {"team": "a", "clusterlink.net/import-name": "x"}, "annotations": {"note": "b"}},
            "spec": {"selector": {"app": "web"}},
        }))?;
        wait_for("the edit is repaired", SOON, || {
            let now = cluster.find("service", "web")?.context("it is gone")?;
            let labels = &now["metadata"]["labels"];
            let theirs = labels["team"] == "a" && now["metadata"]["annotations"]["note"] == "b";
            always(theirs, format_args!("what is theirs is changed: {now}"))?;
            Ok(labels["clusterlink.net/import-name"] == "web"
                && now["spec"].get("selector").is_none())
        })?;
        cluster.kubectl(&[
            "delete",
            "endpointslices",
            "-l",
            "clusterlink.net/import-name=web",
        ])?;
        cluster.wait_served("web")?;

        // Deleted by hand: made again with the same address, once the agents have let go of it.
        let before = cluster.wait_served("web")?;
        cluster.kubectl(&["delete", "service", "web", "--wait=false"])?;
        cluster.wait_service("web", "ServiceTerminating")?;
        wait_for("another Service is there", SOON, || {
            cluster.let_go()?;
            let now = cluster.find("service", "web")?;
            Ok(now.is_some_and(|now| now["metadata"]["uid"] != before["metadata"]["uid"]))
        })?;
        let after = cluster.wait_served("web")?;
        ensure!(
            after["spec"]["clusterIPs"] == before["spec"]["clusterIPs"],
            "{after}"
        );

        // Deleted by hand while its address is given to another Service.
        cluster.kubectl(&["delete", "service", "web", "--wait=false"])?;
        let free = json!({"metadata": {"finalizers": null}});
        cluster.wait_service("web", "ServiceTerminating")?;
        let thief = service(
            "thief",
            &json!({"clusterIP": after["spec"]["clusterIP"], "ports": [{"port": 80}]}),
        );
        let thief = cluster.plane.write_manifests("thief", &[thief])?;
        let thief = thief.to_str().context("a path in ASCII")?;
        ensure!(
            !cluster
                .plane
                .kubectl(&["create", "-f", thief])?
                .status
                .success(),
            "the address is held"
        );
        // The controller is away while somebody forces it.
        let mut cluster = cluster;
        cluster.controller = None;
        cluster.patch("service", "web", &free)?;
        cluster.plane.run(&["create", "-f", thief])?;
        cluster.start()?;
        let again = cluster.wait_served("web")?;
        ensure!(
            again["spec"]["clusterIP"] != after["spec"]["clusterIP"],
            "{again}"
        );

        // Handed away: first the reference goes, the finalizer once the agents have let go.
        cluster.patch(
            "service",
            "web",
            &json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "them"}}}),
        )?;
        cluster.wait_service("web", "ServiceHandedAway")?;
        wait_for("reference and slices are gone", SOON, || {
            let now = cluster.find("service", "web")?.context("it is gone")?;
            let owned = now["metadata"].get("ownerReferences").is_some();
            let finalized = now["metadata"].get("finalizers").is_some();
            always(finalized, "the finalizer went before the agents let go")?;
            Ok(!owned && cluster.slices("web")?.is_empty())
        })?;
        ensure!(cluster.served("web")?.is_none(), "it is still served");
        wait_for("the finalizer is gone", SOON, || {
            cluster.let_go()?;
            let now = cluster.find("service", "web")?.context("it is gone")?;
            Ok(now["metadata"].get("finalizers").is_none())
        })?;
        ensure!(
            cluster.controller()?.agents.asked().len() == 2,
            "another replica may still name the addresses"
        );
        let quiet = cluster.wait_quiet()?;
        cluster.patch(
            "service",
            "web",
            &json!({"spec": {"sessionAffinity": "ClientIP"}}),
        )?;
        ensure!(cluster.wait_quiet()? == quiet, "it is still touched");

        // Handed back, while agents are still asked too.
        cluster.patch("service", "web", &our_labels("web"))?;
        cluster.wait_served("web")?;
        cluster.patch(
            "service",
            "web",
            &json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "them"}}}),
        )?;
        cluster.wait_service("web", "ServiceHandedAway")?;
        cluster.patch("service", "web", &our_labels("web"))?;
        cluster.wait_served("web")?;
        ensure!(
            cluster.controller()?.agents.asked().is_empty(),
            "agents are still asked"
        );
        Ok(())
    })
}

#[test]
fn a_target_port_has_one_holder_and_heals_when_it_goes() -> Result<()> {
    story("imports-ports", |scene| {
        let mut cluster = Cluster::new(scene)?;
        let port_of = |cluster: &Cluster, name: &str| -> Result<Value> {
            let object = cluster
                .find("import", name)?
                .context("there is no Import")?;
            ensure!(
                object["spec"]["targetPort"] != object["status"]["targetPort"]
                    || object["spec"]["targetPort"] != 0,
                "spec is written"
            );
            Ok(object["status"]["targetPort"].clone())
        };
        let kind = "ImportTargetPortValid";
        cluster.plane.apply(&[import("first", 9000, false)])?;
        cluster.wait_served("first")?;
        cluster
            .plane
            .apply(&[import("second", 9000, false), import("chosen", 0, false)])?;
        let message = cluster.wait_condition("second", kind, "Conflict")?;
        ensure!(message.contains("shop/first"), "{message}");
        cluster.wait_condition("chosen", kind, "Allocated")?;
        cluster.wait_served("chosen")?;
        let chosen = port_of(&cluster, "chosen")?;
        ensure!(
            chosen
                .as_u64()
                .is_some_and(|port| (10_000..30_000).contains(&port)),
            "{chosen}"
        );
        ensure!(
            port_of(&cluster, "second")?.is_null(),
            "the loser has a port"
        );
        ensure!(
            cluster.slices("second")?.is_empty(),
            "the loser has endpoints"
        );

        cluster.kubectl(&["delete", "import", "first"])?;
        cluster.wait_condition("second", kind, "Valid")?;
        cluster.wait_served("second")?;
        ensure!(port_of(&cluster, "second")? == 9000, "it has another port");

        for (name, port, reason) in [
            ("low", 80, "Reserved"),
            ("node-port", 30_100, "Reserved"),
            ("own", 4443, "Reserved"),
        ] {
            cluster.plane.apply(&[import(name, port, false)])?;
            let message = cluster.wait_condition(name, kind, reason)?;
            ensure!(message.contains(&port.to_string()), "{message}");
        }
        // Mended by hand.
        cluster.patch("import", "low", &json!({"spec": {"targetPort": 9080}}))?;
        cluster.wait_condition("low", kind, "Valid")?;
        cluster.wait_served("low")?;

        // A restart changes no port.
        cluster.controller = None;
        cluster.start()?;
        cluster.wait_served("chosen")?;
        ensure!(
            port_of(&cluster, "chosen")? == chosen,
            "it has another port"
        );

        // A name that no Service can have is refused at once.
        for name in ["1web", &"w".repeat(64)] {
            let file = cluster
                .plane
                .write_manifests("misnamed", &[import(name, 0, false)])?;
            let file = file.to_str().context("a path in ASCII")?;
            let output = cluster.plane.kubectl(&["create", "-f", file])?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(
                !output.status.success() && said.contains("metadata.name"),
                "{said}"
            );
        }
        Ok(())
    })
}

#[test]
fn a_merged_import_joins_the_service_of_its_name_and_follows_it() -> Result<()> {
    story("imports-merge", |scene| {
        let cluster = Cluster::new(scene)?;
        let says = |peers: &[&str]| -> Result<()> {
            for node in ["n1", "n2"] {
                cluster.controller()?.agent_says(node, peers, true)?;
            }
            Ok(())
        };
        cluster.plane.apply(&[import("web", 9000, true)])?;
        let message = cluster.wait_service("web", "MergeServiceNotFound")?;
        ensure!(message.contains("shop/web"), "{message}");

        let spec = |port: u16, name: &str| json!({"selector": {"app": "web"}, "ports": [{"name": name, "port": port, "targetPort": 8080}]});
        cluster.plane.apply(&[service("web", &spec(80, "http"))])?;
        cluster.wait_service("web", "Valid")?;
        let wait_ports = |name: &str, port: u16| {
            wait_until(&format!("the slice has port {name} {port}"), SOON, || {
                let slices = cluster.slices("web")?;
                let [slice] = &slices[..] else {
                    anyhow::bail!("slices: {slices:?}")
                };
                let ports = &slice["ports"];
                ensure!(
                    *ports == json!([{"name": name, "port": port, "protocol": "TCP"}]),
                    "{ports}"
                );
                ensure!(
                    slice["metadata"]["labels"]["kubernetes.io/service-name"] == "web",
                    "{slice}"
                );
                Ok(Some(slice.clone()))
            })
        };
        wait_ports("http", 9000)?;
        ensure!(cluster.ready("web")? == 0, "no source is usable yet");
        says(&["east"])?;
        wait_for("its endpoints are ready", SOON, || {
            Ok(cluster.ready("web")? == 2)
        })?;
        let served = cluster
            .served("web")?
            .context("agents are not told of it")?;
        ensure!(
            served.addresses.is_empty() && served.target_port.is_some(),
            "{served:?}"
        );
        says(&["west"])?;
        wait_for("its endpoints are not ready", SOON, || {
            Ok(cluster.ready("web")? == 0)
        })?;
        says(&["east"])?;

        // The Service changes.
        cluster.patch(
            "service",
            "web",
            &json!({"spec": {"ports": [{"name": "web", "port": 80}]}}),
        )?;
        wait_ports("web", 9000)?;
        cluster.patch(
            "service",
            "web",
            &json!({"spec": {"ports": [{"name": "web", "port": 81}]}}),
        )?;
        cluster.wait_service("web", "PortNotFound")?;
        wait_for("its slices are gone", SOON, || {
            Ok(cluster.slices("web")?.is_empty())
        })?;
        cluster.patch(
            "import",
            "web",
            &json!({"spec": {"port": 81, "targetPort": 9001}}),
        )?;
        wait_ports("web", 9001)?;
        let theirs = cluster.find("service", "web")?.context("it is gone")?;
        ensure!(
            theirs["metadata"].get("finalizers").is_none(),
            "a Service that is not ours is touched"
        );

        // Without the label it is in the Service's way, and the target port stays.
        cluster.patch(
            "import",
            "web",
            &json!({"metadata": {"labels": {"import.clusterlink.net/merge": null}}}),
        )?;
        cluster.wait_service("web", "ServiceNotOwned")?;
        wait_for("its slices are gone", SOON, || {
            Ok(cluster.slices("web")?.is_empty())
        })?;
        cluster.kubectl(&["delete", "service", "web"])?;
        says(&["east"])?;
        let own = cluster.wait_served("web")?;
        ensure!(own["spec"]["ports"][0]["targetPort"] == 9001, "{own}");

        // And back: its own Service goes first.
        cluster.patch(
            "import",
            "web",
            &json!({"metadata": {"labels": {"import.clusterlink.net/merge": "true"}}}),
        )?;
        cluster.wait_service("web", "MergeServiceNotFound")?;
        wait_for("its own Service is gone", SOON, || {
            says(&["east"])?;
            Ok(cluster.find("service", "web")?.is_none())
        })?;
        cluster.plane.apply(&[service(
            "web",
            &json!({"clusterIP": "None", "ports": [{"port": 81}]}),
        )])?;
        cluster.wait_service("web", "MergeServiceHeadless")?;
        cluster.kubectl(&["delete", "service", "web"])?;
        cluster.plane.apply(&[service("web", &spec(81, "x"))])?;
        wait_ports("x", 9001)?;

        // Agents go and come.
        for node in ["n1", "n2"] {
            cluster.set_ready(node, false)?;
        }
        wait_for("no agent is ready", SOON, || Ok(cluster.ready("web")? == 0))?;
        for node in ["n1", "n2"] {
            cluster.set_ready(node, true)?;
        }
        wait_for("both are", SOON, || Ok(cluster.ready("web")? == 2))?;
        let delete = ["-n", SYSTEM, "delete", "pod", "agent-n2"];
        cluster
            .plane
            .run(&[&delete[..], &["--force", "--grace-period=0"]].concat())?;
        wait_for("one is left", SOON, || Ok(cluster.ready("web")? == 1))?;
        cluster.agent("n2")?;
        wait_for("both are again", SOON, || Ok(cluster.ready("web")? == 2))?;

        // With both families there is a slice of each.
        cluster.patch(
            "service",
            "web",
            &json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}}),
        )?;
        wait_for("there are slices of both families", SOON, || {
            Ok(cluster.slices("web")?.len() == 2 && cluster.ready("web")? == 2)
        })?;

        // As many agents as local endpoints, or as the annotation says.
        cluster.patch(
            "import",
            "web",
            &json!({"metadata": {"annotations": {"import.clusterlink.net/merge-endpoints": "1"}}}),
        )?;
        wait_for("one agent is left", SOON, || Ok(cluster.ready("web")? == 1))?;
        cluster.kubectl(&["delete", "import", "web"])?;
        wait_for("its slices are gone", SOON, || {
            Ok(cluster.slices("web")?.is_empty())
        })?;
        ensure!(
            cluster.find("service", "web")?.is_some(),
            "the Service of others is gone"
        );
        Ok(())
    })
}

#[test]
fn the_lease_holder_writes_and_another_takes_over_without_writing_anything_twice() -> Result<()> {
    story("imports-leader", |scene| {
        let mut cluster = Cluster::new(scene)?;
        let follower = cluster.follower()?;
        cluster
            .plane
            .apply(&[import("web", 0, false), import("gone", 0, false)])?;
        cluster.wait_served("web")?;
        cluster.wait_served("gone")?;
        let served = |controller: &controller::Controller| controller.served().imports;
        wait_for("the follower serves the same", SOON, || {
            Ok(served(&follower) == served(cluster.controller()?))
        })?;
        ensure!(follower.counts.total() == 0, "a follower writes");

        // The leader is gone in the middle of things.
        cluster.controller()?.lead(false);
        cluster.kubectl(&["delete", "import", "gone"])?;
        cluster.plane.apply(&[import("new", 0, false)])?;
        cluster.patch(
            "service",
            "web",
            &json!({"metadata": {"labels": {"clusterlink.net/import-name": null}}}),
        )?;
        cluster.wait_quiet()?;
        ensure!(cluster.find("service", "new")?.is_none(), "nobody leads");
        let before = cluster.wait_quiet()?;
        follower.lead(true);
        let old = cluster.controller.replace(follower);
        cluster.wait_served("web")?;
        cluster.wait_served("new")?;
        cluster.wait_gone("gone")?;
        cluster.wait_quiet()?;
        let counts = &cluster.controller()?.counts;
        // The label; Service and slices made; Service and slices deleted, and the finalizer.
        ensure!(counts.total() == 1 + 3 + 4, "{counts:?}");
        let old = old.context("there was a leader")?;
        ensure!(old.counts.total() == before, "the old leader writes");
        Ok(())
    })
}
