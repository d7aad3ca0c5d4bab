//! What the controller needs each right for.

use std::time::{Duration, SystemTime};

use anyhow::{Result, bail, ensure};
use clusterlink_tests::conditions::SOON;
use clusterlink_tests::controller::SYSTEM;
use clusterlink_tests::kubernetes::{ControlPlane, Request};
use clusterlink_tests::manifests::{
    access_policy, everything, export, import, peer, privileged_policy, with_scheme,
};
use clusterlink_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::rights::granted::Right;

const DENIES: &str = "clusterlink-valid-denies";
const CA: &str = "clusterlink-controller-ca";
/// What no load-balancing scheme is called.
const UNKNOWN: &str = "newest-first";
const RESTRICTED: &str = "addresses of endpoints are restricted here";
/// Imports that are there before any right is taken away.
const PREPARED: [&str; 5] = ["ports", "slices", "goes", "goes-too", "old"];

type Act = fn(&ControlPlane) -> Result<()>;

/// When a right is used.
#[derive(Clone, Copy)]
pub(crate) enum Trigger {
    /// By a controller that runs, upon something that people do.
    Live(Act),
    /// By one that starts, after a preparation; it has `--peer-name`, or not.
    Start { before: Act, by_name: bool },
}

/// How a missing right shows.
pub(crate) struct Probe {
    pub(crate) trigger: Trigger,
    /// A part of what the controller logs, without quotes.
    pub(crate) told: String,
    /// The requests that are refused, if they are not those that the right names: admission asks
    /// for these rights, not the request itself.
    asked_by: Option<&'static [&'static str]>,
}

impl Probe {
    /// Whether it is for want of this right that a request was refused.
    pub(crate) fn is_about(&self, right: &Right, refused: &Request) -> bool {
        if let Some(resources) = self.asked_by {
            return refused.verb == "create" && resources.contains(&refused.resource.as_str());
        }
        // A name is not in the path of what is made.
        let name_fits = right.name.is_none() || right.name == refused.name;
        refused.verb == right.verb && refused.resource == right.resource && name_fits
    }
}

/// What shows that a right is needed. A right that is not known here is an error: nobody has shown
/// yet what it is for.
pub(crate) fn probe(right: &Right) -> Result<Probe> {
    let name = right.name.as_deref().unwrap_or_default();
    let start = |before| Trigger::Start {
        before,
        by_name: true,
    };
    let trigger = match (right.resource.as_str(), right.verb.as_str(), name) {
        (_, "list" | "watch", "") => start(nothing),
        ("exports/status", "patch", "") => {
            Trigger::Live(|plane| make(plane, &export("default", "status", 80)))
        }
        ("imports/status", "patch", "") => Trigger::Live(|plane| import_(plane, "status")),
        ("accesspolicies/status", "patch", "") => {
            Trigger::Live(|plane| policy(plane, "status", "allow"))
        }
        ("privilegedaccesspolicies/status", "patch", "") => Trigger::Live(|plane| {
            make(
                plane,
                &privileged_policy("status", "allow", &everything(), &everything()),
            )
        }),
        ("peers/status", "patch", "") => Trigger::Live(|plane| make(plane, &peer("status", &[]))),
        ("imports/finalizers", "update", "") => Trigger::Live(|plane| import_(plane, "owned")),
        ("services", "create", "") => Trigger::Live(|plane| import_(plane, "served")),
        ("services", "patch", "") => Trigger::Live(|plane| {
            plane
                .call(
                    "PATCH",
                    &at("imports", "ports"),
                    Some(&json!({"spec": {"port": 81}})),
                )
                .map(drop)
        }),
        ("services", "delete", "") => Trigger::Live(|plane| delete(plane, &at("imports", "goes"))),
        ("endpointslices", "create", "") => Trigger::Live(|plane| import_(plane, "led")),
        ("endpointslices", "patch", "") => Trigger::Live(|plane| {
            let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/slices-clusterlink-ipv4";
            plane
                .call("PATCH", slice, Some(&json!({"ports": []})))
                .map(drop)
        }),
        ("endpointslices", "delete", "") => {
            Trigger::Live(|plane| delete(plane, &at("imports", "goes-too")))
        }
        ("endpointslices/restricted", "create", "") => {
            Trigger::Live(|plane| import_(plane, "restricted"))
        }
        ("events", "create", "") => {
            Trigger::Live(|plane| make(plane, &export("default", "event", 80)))
        }
        ("events", "patch", "") => Trigger::Live(tell_again),
        ("tokenreviews", "create", "") => Trigger::Live(connect),
        ("leases", "create", "") => Trigger::Live(|plane| {
            let lease = "clusterlink-controller";
            delete(
                plane,
                &format!("/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/{lease}"),
            )
        }),
        // The holder renews it all the time.
        ("leases", "get" | "update", "clusterlink-controller") => Trigger::Live(nothing),
        ("configmaps", "create", "") => Trigger::Live(|plane| {
            delete(plane, &core("configmaps", DENIES))?;
            policy(plane, "kept-anew", "deny")
        }),
        ("configmaps", "update", DENIES) => Trigger::Live(|plane| {
            wait_stored(plane)?;
            policy(plane, "kept", "deny")
        }),
        ("configmaps", "get", DENIES) => start(nothing),
        ("configmaps", "patch", CA) => start(nothing),
        ("secrets", "create", "") => start(|plane| delete(plane, &core("secrets", CA))),
        ("secrets", "get", CA) => start(nothing),
        ("secrets", "update", CA) => start(age_authority),
        ("secrets", "get", "clusterlink-peer") => Trigger::Start {
            before: nothing,
            by_name: false,
        },
        _ => bail!("nobody has shown what this right is for: add a probe"),
    };
    let (told, asked_by): (_, Option<&'static [&'static str]>) = match right.resource.as_str() {
        "imports/finalizers" => (
            "cannot set blockOwnerDeletion".to_owned(),
            Some(&["services", "endpointslices"]),
        ),
        "endpointslices/restricted" => (RESTRICTED.to_owned(), Some(&["endpointslices"])),
        resource => (format!("cannot {} resource {resource} ", right.verb), None),
    };
    Ok(Probe {
        trigger,
        told,
        asked_by,
    })
}

/// Makes the API server as strict as some clusters are: whoever sets the addresses of endpoints needs
/// a right for that.
pub(crate) fn strict(plane: &ControlPlane) -> Result<()> {
    let api = "/apis/admissionregistration.k8s.io/v1";
    let may = "authorizer.group('discovery.k8s.io').resource('endpointslices').subresource('restricted')\
               .namespace(request.namespace).check('create').allowed()";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "restricted-endpoints"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["discovery.k8s.io"], "apiVersions": ["v1"],
                "operations": ["CREATE"], "resources": ["endpointslices"],
            }]},
            "validations": [{"expression": may, "message": RESTRICTED, "reason": "Forbidden"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "restricted-endpoints"},
        "spec": {"policyName": "restricted-endpoints", "validationActions": ["Deny"]},
    });
    plane.call(
        "POST",
        &format!("{api}/validatingadmissionpolicies"),
        Some(&policy),
    )?;
    plane.call(
        "POST",
        &format!("{api}/validatingadmissionpolicybindings"),
        Some(&binding),
    )?;
    Ok(())
}

/// What has to be there before a right is taken away, and that all of it works.
pub(crate) fn prepare(plane: &ControlPlane) -> Result<()> {
    for name in PREPARED.iter().filter(|name| **name != "old") {
        import_(plane, name)?;
    }
    store_undecodable(plane)?;
    policy(plane, "kept-first", "deny")?;
    wait_stored(plane)?;
    wait_for("the Imports are served", SOON, || {
        let slices = plane.call(
            "GET",
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            None,
        )?;
        let slices = slices["items"].to_string();
        Ok(PREPARED
            .iter()
            .all(|name| slices.contains(&format!("\"{name}-clusterlink-ipv4\""))))
    })
}

fn nothing(_: &ControlPlane) -> Result<()> {
    Ok(())
}

fn import_(plane: &ControlPlane, name: &str) -> Result<()> {
    make(plane, &import("default", name, 80, &[]))
}

fn policy(plane: &ControlPlane, name: &str, action: &str) -> Result<()> {
    make(
        plane,
        &access_policy("default", name, action, &everything(), &everything()),
    )
}

/// An Import as an older definition may have let it in, of which an Event tells; then it is mended.
fn store_undecodable(plane: &ControlPlane) -> Result<()> {
    let schemes =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/lbScheme/enum";
    let loose = json!([{"op": "remove", "path": schemes}]).to_string();
    let crd = "imports.clusterlink.net";
    plane.run(&["patch", "crd", crd, "--type=json", "-p", &loose])?;
    let old = with_scheme(import("default", "old", 80, &[]), UNKNOWN);
    wait_for("the definition is loose", SOON, || {
        make(plane, &old).map(|()| true)
    })?;
    wait_for("an Event tells of it", SOON, || {
        let events = plane.call(
            "GET",
            "/apis/events.k8s.io/v1/namespaces/default/events",
            None,
        )?;
        let mut events = events["items"].as_array().into_iter().flatten();
        Ok(events.any(|event| event["reason"] == "Undecodable"))
    })?;
    set_scheme(plane, "static")
}

/// The same thing happens to an object again, which one Event tells of.
fn tell_again(plane: &ControlPlane) -> Result<()> {
    set_scheme(plane, UNKNOWN)
}

fn set_scheme(plane: &ControlPlane, scheme: &str) -> Result<()> {
    let patch = json!({"spec": {"lbScheme": scheme}});
    plane
        .call("PATCH", &at("imports", "old"), Some(&patch))
        .map(drop)
}

/// An agent connects. Its token is good, but not bound to a pod.
fn connect(plane: &ControlPlane) -> Result<()> {
    let token = plane.run(&[
        "create",
        "token",
        "clusterlink-agent",
        "-n",
        SYSTEM,
        "--audience=clusterlink-controller",
    ])?;
    let lease =
        format!("/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/clusterlink-controller");
    let lease = plane.call("GET", &lease, None)?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let address = holder.rsplit('/').next().unwrap_or_default();
    let url = format!("https://{address}/clusterlink.push.v1.Push/Subscribe");
    let token = format!("authorization: Bearer {}", token.trim());
    // The answer does not matter: what the controller asks of the API server does.
    plane.host().run(
        "curl",
        &[
            "--silent",
            "--insecure",
            "--http2",
            "--max-time",
            "20",
            "--output",
            "/dev/null",
            "--header",
            &token,
            "--header",
            "content-type: application/grpc",
            "--header",
            "te: trailers",
            "--data-raw",
            "",
            &url,
        ],
    )?;
    Ok(())
}

/// An authority more than half of whose life is over.
fn age_authority(plane: &ControlPlane) -> Result<()> {
    let day = Duration::from_secs(24 * 3600);
    let now = SystemTime::now();
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.not_before = (now - 400 * day).into();
    params.not_after = (now + 330 * day).into();
    let pem = params.self_signed(&key)?.pem() + &key.serialize_pem();
    let found = plane.kubectl(&["delete", "secret", CA, "-n", SYSTEM, "--ignore-not-found"])?;
    ensure!(found.status.success(), "{found:?}");
    make(
        plane,
        &json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": CA, "namespace": SYSTEM},
            "stringData": {"authorities.pem": pem},
        }),
    )
}

fn wait_stored(plane: &ControlPlane) -> Result<()> {
    wait_for("valid denies are stored", SOON, || {
        plane
            .call("GET", &core("configmaps", DENIES), None)
            .map(|_| true)
    })
}

/// Makes an object.
fn make(plane: &ControlPlane, object: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let root = if version == "v1" { "/api" } else { "/apis" };
    let plural = match kind.to_lowercase() {
        kind if kind.ends_with("policy") => kind.replace("policy", "policies"),
        kind => format!("{kind}s"),
    };
    let namespace = text(&object["metadata"]["namespace"]);
    let path = if namespace.is_empty() {
        format!("{root}/{version}/{plural}")
    } else {
        format!("{root}/{version}/namespaces/{namespace}/{plural}")
    };
    plane.call("POST", &path, Some(object)).map(drop)
}

fn delete(plane: &ControlPlane, path: &str) -> Result<()> {
    plane.call("DELETE", path, None).map(drop)
}

/// An object of ours.
fn at(plural: &str, name: &str) -> String {
    format!("/apis/clusterlink.net/v1alpha1/namespaces/default/{plural}/{name}")
}

/// An object of the system namespace.
fn core(plural: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{SYSTEM}/{plural}/{name}")
}
