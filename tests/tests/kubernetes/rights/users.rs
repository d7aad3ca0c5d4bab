//! What people may do by the roles that Kubernetes has for them.

use anyhow::{Context as _, Result, ensure};
use clusterlink_tests::conditions::SOON;
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::wait::wait_for;
use serde_json::json;

use crate::rights::granted::{Question, is_allowed};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

/// A user of the namespace `default` by each role, and two of the whole cluster.
const USERS: [(&str, &str, bool); 5] = [
    ("viewer", "view", false),
    ("editor", "edit", false),
    ("administrator", "admin", false),
    ("overseer", "view", true),
    ("steward", "admin", true),
];

/// Who may do what: resource, verbs, and the users that may; the others may not.
const ROWS: &[(&str, &[&str], &[&str])] = &[
    (
        "exports",
        READ,
        &["viewer", "editor", "administrator", "overseer", "steward"],
    ),
    (
        "imports",
        READ,
        &["viewer", "editor", "administrator", "overseer", "steward"],
    ),
    (
        "accesspolicies",
        READ,
        &["viewer", "editor", "administrator", "overseer", "steward"],
    ),
    (
        "peers",
        READ,
        &["viewer", "editor", "administrator", "overseer", "steward"],
    ),
    // It has no namespace, so nobody of a namespace sees it.
    ("privilegedaccesspolicies", READ, &["overseer", "steward"]),
    ("exports", WRITE, &["editor", "administrator", "steward"]),
    ("imports", WRITE, &["editor", "administrator", "steward"]),
    (
        "accesspolicies",
        WRITE,
        &["editor", "administrator", "steward"],
    ),
    ("peers", WRITE, &["administrator", "steward"]),
    ("privilegedaccesspolicies", WRITE, &[]),
    ("exports/status", WRITE, &[]),
    ("imports/status", WRITE, &[]),
    ("peers/status", WRITE, &[]),
];

/// Each user may do what the table says, and nothing else with our kinds.
pub(crate) fn may_do_what_their_roles_say(plane: &ControlPlane) -> Result<()> {
    for (user, role, everywhere) in USERS {
        let (kind, plural) = match everywhere {
            true => ("ClusterRoleBinding", "clusterrolebindings"),
            false => ("RoleBinding", "namespaces/default/rolebindings"),
        };
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{plural}");
        plane.call("POST", &path, Some(&binding))?;
    }
    // It puts the roles together that others only add to.
    let _manager = plane.start_controller_manager()?;
    wait_for("users may do what the table says", SOON, || {
        for (resource, verbs, may) in ROWS {
            for verb in *verbs {
                for (user, _, _) in USERS {
                    // The kind without a namespace is asked for without one.
                    let privileged = resource.starts_with("privileged");
                    let question = Question {
                        user,
                        namespace: if privileged { "" } else { "default" },
                        verb,
                        group: "clusterlink.net",
                        resource,
                        name: None,
                    };
                    let allowed = is_allowed(plane, &question)
                        .with_context(|| format!("{user} {verb} {resource}"))?;
                    ensure!(
                        allowed == may.contains(&user),
                        "{user} {verb} {resource}: {allowed}"
                    );
                }
            }
        }
        Ok(true)
    })
}
