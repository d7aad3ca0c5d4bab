//! The rules of every condition: made wrong, and put right.

use clusterlink_tests::conditions::{On, Wanted};
use clusterlink_tests::manifests::{
    access_policy, everything, export, external_name, import, privileged_policy, service,
};
use serde_json::{Value, json};

/// What is wrong at first, how that is told, and what puts it right.
pub(crate) struct Row {
    pub(crate) row: &'static str,
    pub(crate) wrong: Vec<Value>,
    pub(crate) on: On,
    pub(crate) told: Wanted<'static>,
    pub(crate) cure: Cure,
    /// The reason of the condition once it is True.
    pub(crate) well: &'static str,
}

pub(crate) enum Cure {
    Apply(Value),
    Delete(&'static str, &'static str),
}

/// The namespace of a row.
pub(crate) fn at(number: usize) -> String {
    format!("row-{number}")
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add =
        |row, kind, name, condition, told, well, make: &dyn Fn(&str) -> (Vec<Value>, Cure)| {
            let namespace = at(rows.len());
            let (wrong, cure) = make(&namespace);
            let namespaced = kind != "PrivilegedAccessPolicy";
            rows.push(Row {
                row,
                wrong,
                on: On {
                    kind,
                    namespace: if namespaced { namespace } else { String::new() },
                    name,
                    condition,
                },
                told,
                cure,
                well,
            });
        };
    add(
        "export of a Service that is not there",
        "Export",
        "web",
        "ExportValid",
        (
            "False",
            "ServiceNotFound",
            "no Service and no Import is named",
        ),
        "Valid",
        &|ns| {
            (
                vec![export(ns, "web", 80)],
                Cure::Apply(service(ns, "web", 80)),
            )
        },
    );
    add(
        "export of a port that the Service does not have",
        "Export",
        "web",
        "ExportValid",
        ("False", "PortNotFound", "has no port 80 (it has 81/TCP)"),
        "Valid",
        &|ns| {
            let wrong = vec![service(ns, "web", 81), export(ns, "web", 80)];
            (wrong, Cure::Apply(service(ns, "web", 80)))
        },
    );
    add(
        "export of a host in another namespace",
        "Export",
        "web",
        "ExportValid",
        ("False", "HostInvalid", "write the name alone"),
        "Valid",
        &|ns| {
            let mut wrong = export(ns, "web", 80);
            wrong["spec"]["host"] = json!("other/web");
            (
                vec![service(ns, "web", 80), wrong],
                Cure::Apply(export(ns, "web", 80)),
            )
        },
    );
    add(
        "export of an ExternalName that is not there yet",
        "Export",
        "web",
        "ExportValid",
        ("False", "ServiceNotFound", "create it"),
        "Valid",
        &|ns| {
            let external = external_name(ns, "web", 80, "web.example");
            (vec![export(ns, "web", 80)], Cure::Apply(external))
        },
    );
    add(
        "import with a target port of the system",
        "Import",
        "web",
        "ImportTargetPortValid",
        ("False", "Reserved", "443"),
        "Allocated",
        &|ns| {
            let mut wrong = import(ns, "web", 80, &[]);
            wrong["spec"]["targetPort"] = json!(443);
            (vec![wrong], Cure::Apply(import(ns, "web", 80, &[])))
        },
    );
    add(
        "import with a target port of the NodePort range",
        "Import",
        "web",
        "ImportTargetPortValid",
        ("False", "Reserved", "30000"),
        "Valid",
        &|ns| {
            let with_port = |port| {
                let mut import = import(ns, "web", 80, &[]);
                import["spec"]["targetPort"] = json!(port);
                import
            };
            (vec![with_port(30_000)], Cure::Apply(with_port(20_001)))
        },
    );
    add(
        "import with a target port that another holds",
        "Import",
        "later",
        "ImportTargetPortValid",
        ("False", "Conflict", "first"),
        "Valid",
        &|ns| {
            let with_port = |name| {
                let mut import = import(ns, name, 80, &[]);
                import["spec"]["targetPort"] = json!(20_002);
                import
            };
            (
                vec![with_port("first"), with_port("later")],
                Cure::Delete("import", "first"),
            )
        },
    );
    add(
        "policy with a selector that is none",
        "AccessPolicy",
        "bad",
        "PolicyValid",
        (
            "False",
            "PolicyInvalid",
            "nothing is in force under this name",
        ),
        "Valid",
        &|ns| {
            let wrong = json!({"workloadSelector": {"matchExpressions": [
                {"key": "peer.clusterlink.net/name", "operator": "In", "values": []}]}});
            let policy = |to: &Value| access_policy(ns, "bad", "allow", &everything(), to);
            (vec![policy(&wrong)], Cure::Apply(policy(&everything())))
        },
    );
    add(
        "policy with a set that is not predefined",
        "AccessPolicy",
        "bad",
        "PolicyValid",
        ("False", "WorkloadSetUnknown", "names \"everything\""),
        "Valid",
        &|ns| {
            let set = json!({"workloadSets": ["everything"]});
            let policy = |from: &Value| access_policy(ns, "bad", "allow", from, &everything());
            (vec![policy(&set)], Cure::Apply(policy(&everything())))
        },
    );
    add(
        "privileged policy with a set that is not predefined",
        "PrivilegedAccessPolicy",
        "bad",
        "PolicyValid",
        ("False", "WorkloadSetUnknown", "names \"everything\""),
        "Valid",
        &|_| {
            let set = json!({"workloadSets": ["everything"]});
            let policy = |from: &Value| privileged_policy("bad", "deny", from, &everything());
            (vec![policy(&set)], Cure::Apply(policy(&everything())))
        },
    );
    rows
}

pub(crate) fn namespaces(count: usize) -> Vec<Value> {
    let namespace =
        |number| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": at(number)}});
    (0..count).map(namespace).collect()
}
