use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use super::*;

/// A verb on a resource, as it is granted.
type Grant = (Reach, String, String, Option<String>, String);

fn manifests(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/rbac")
        .join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// All that a role grants, one verb at a time.
fn granted(role: &Value) -> BTreeSet<Grant> {
    let reach = match role["kind"].as_str() {
        Some("ClusterRole") => Reach::Cluster,
        Some("Role") => Reach::System,
        _ => return BTreeSet::new(),
    };
    let mut grants = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        let names = texts(&rule["resourceNames"]);
        let names = if names.is_empty() {
            vec![None]
        } else {
            names.into_iter().map(Some).collect()
        };
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for name in &names {
                    for verb in texts(&rule["verbs"]) {
                        let grant = (reach, group.clone(), resource.clone(), name.clone(), verb);
                        assert!(grants.insert(grant.clone()), "{grant:?} is granted twice");
                    }
                }
            }
        }
    }
    grants
}

fn wanted() -> BTreeSet<Grant> {
    let grants = RIGHTS.iter().flat_map(|right| {
        right.verbs.iter().map(|verb| {
            (
                right.reach,
                right.group.to_owned(),
                right.resource.to_owned(),
                right.name.map(str::to_owned),
                (*verb).to_owned(),
            )
        })
    });
    grants.collect()
}

#[test]
fn the_manifests_grant_exactly_what_is_needed() {
    let documents = manifests("controller.yaml");
    let granted: BTreeSet<Grant> = documents.iter().flat_map(granted).collect();
    let wanted = wanted();
    let surplus: Vec<_> = granted.difference(&wanted).collect();
    let missing: Vec<_> = wanted.difference(&granted).collect();
    assert!(surplus.is_empty(), "granted for nothing: {surplus:#?}");
    assert!(missing.is_empty(), "not granted: {missing:#?}");
}

#[test]
fn no_right_is_a_wildcard_and_secrets_are_read_by_name_in_the_system_namespace() {
    for (reach, group, resource, name, verb) in wanted() {
        assert!(![&group, &resource, &verb].contains(&&"*".to_owned()));
        if resource == "secrets" {
            // Whoever makes a Secret cannot be held to a name; what is made cannot be read by that.
            assert!(name.is_some() || verb == "create");
            assert_eq!(reach, Reach::System);
        }
    }
    for file in ["controller.yaml", "agent.yaml", "users.yaml"] {
        let text = serde_json::to_string(&manifests(file)).unwrap();
        assert!(!text.contains("\"*\""), "{file}");
    }
}

#[test]
fn the_roles_are_bound_to_the_controllers_account_alone() {
    let documents = manifests("controller.yaml");
    for binding in documents.iter().filter(|one| {
        matches!(
            one["kind"].as_str(),
            Some("RoleBinding" | "ClusterRoleBinding")
        )
    }) {
        let role = &binding["roleRef"]["name"];
        assert!(
            documents
                .iter()
                .any(|one| one["metadata"]["name"] == *role && one["rules"].is_array())
        );
        let subjects = binding["subjects"].as_array().unwrap();
        assert_eq!(subjects.len(), 1);
        assert_eq!(subjects[0]["kind"], "ServiceAccount");
        assert_eq!(subjects[0]["name"], "clusterlink-controller");
        assert_eq!(subjects[0]["namespace"], "clusterlink-system");
    }
}

#[test]
fn agents_have_an_account_without_rights_and_without_a_token_by_itself() {
    let documents = manifests("agent.yaml");
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[0]["kind"], "ServiceAccount");
    assert_eq!(documents[0]["automountServiceAccountToken"], false);
}

#[test]
fn users_of_a_namespace_share_by_the_roles_that_they_have() {
    let label = |role: &str| format!("rbac.authorization.k8s.io/aggregate-to-{role}");
    let mut read = BTreeSet::new();
    let mut written = BTreeSet::new();
    let mut by_admins = BTreeSet::new();
    for role in manifests("users.yaml") {
        let labels = &role["metadata"]["labels"];
        let resources = role["rules"][0]["resources"].clone();
        if labels[label("view")] == "true" {
            assert_eq!(
                role["rules"][0]["verbs"],
                serde_json::json!(["get", "list", "watch"])
            );
            read.extend(texts(&resources));
        } else if labels[label("edit")] == "true" {
            assert_eq!(labels[label("admin")], "true");
            written.extend(texts(&resources));
        } else {
            assert_eq!(labels[label("admin")], "true");
            by_admins.extend(texts(&resources));
        }
    }
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        read,
        set(&[
            "accesspolicies",
            "exports",
            "imports",
            "peers",
            "privilegedaccesspolicies"
        ])
    );
    assert_eq!(written, set(&["accesspolicies", "exports", "imports"]));
    assert_eq!(by_admins, set(&["peers"]));
}

#[test]
fn the_page_for_administrators_explains_every_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes.md");
    let page = fs::read_to_string(path).unwrap();
    for right in RIGHTS {
        let resource = match right.name {
            Some(name) => format!("`{}` {name}", right.resource),
            None => format!("`{}`", right.resource),
        };
        let row = format!(
            "| {resource} | {} | {} |",
            right.verbs.join(", "),
            right.why
        );
        assert!(
            page.contains(&row),
            "docs/kubernetes.md lacks the row\n{row}"
        );
    }
}
