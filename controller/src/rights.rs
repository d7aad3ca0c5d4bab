//! What the controller may do in a cluster, and what each right is for. The manifests in
//! `deploy/rbac` grant exactly this, which a test holds them to.

/// Where a right holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// In all namespaces: a rule of the ClusterRole.
    Cluster,
    /// In the system namespace only: a rule of the Role.
    System,
}

/// One right: some verbs on one resource.
#[derive(Clone, Copy, Debug)]
pub struct Right {
    /// Where.
    pub reach: Reach,
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The resource or subresource.
    pub resource: &'static str,
    /// What is done with it.
    pub verbs: &'static [&'static str],
    /// The only object; none for all of them.
    pub name: Option<&'static str>,
    /// What goes wrong without it.
    pub why: &'static str,
}

const WATCH: &[&str] = &["list", "watch"];
const APPLY_STATUS: &[&str] = &["patch"];
const OURS: &str = "clusterlink.net";

/// Every right of the controller's ServiceAccount.
pub const RIGHTS: &[Right] = &[
    cluster(OURS, "exports", WATCH, "know what is exported"),
    cluster(OURS, "imports", WATCH, "know what is imported"),
    cluster(OURS, "accesspolicies", WATCH, "know who may reach what"),
    cluster(
        OURS,
        "privilegedaccesspolicies",
        WATCH,
        "know who may reach what",
    ),
    cluster(
        OURS,
        "exports/status",
        APPLY_STATUS,
        "say whether an Export's Service and port exist",
    ),
    cluster(
        OURS,
        "imports/status",
        APPLY_STATUS,
        "lease target ports, say whether an Import can be used and its sources be reached",
    ),
    cluster(
        OURS,
        "accesspolicies/status",
        APPLY_STATUS,
        "say whether a policy is in force",
    ),
    cluster(
        OURS,
        "privilegedaccesspolicies/status",
        APPLY_STATUS,
        "say whether a policy is in force",
    ),
    cluster(
        OURS,
        "imports/finalizers",
        &["update"],
        "own the Services of Imports where OwnerReferencesPermissionEnforcement is on",
    ),
    cluster(
        "",
        "services",
        &["list", "watch", "create", "patch", "delete"],
        "resolve Exports, and make the Services of Imports",
    ),
    cluster(
        "discovery.k8s.io",
        "endpointslices",
        &["list", "watch", "create", "patch", "delete"],
        "resolve Exports, and lead the Services of Imports to the agents",
    ),
    cluster(
        "discovery.k8s.io",
        "endpointslices/restricted",
        &["create"],
        "set the addresses of EndpointSlices where the cluster restricts that",
    ),
    cluster(
        "",
        "pods",
        WATCH,
        "know whose address is whose, and which agents are ready",
    ),
    cluster("", "namespaces", WATCH, "know which namespaces there are"),
    cluster(
        "",
        "nodes",
        WATCH,
        "know the nodes' addresses, pod ranges and zones",
    ),
    cluster(
        "events.k8s.io",
        "events",
        &["create", "patch"],
        "tell people what happens to their objects",
    ),
    cluster(
        "authentication.k8s.io",
        "tokenreviews",
        &["create"],
        "find out which agent of which node connects",
    ),
    system(
        OURS,
        "peers",
        WATCH,
        None,
        "know the other peers; elsewhere a Peer does not count",
    ),
    system(
        OURS,
        "peers/status",
        APPLY_STATUS,
        None,
        "say whether a peer can be reached",
    ),
    system(
        "coordination.k8s.io",
        "leases",
        &["create"],
        None,
        "begin the election of the replica that writes",
    ),
    system(
        "coordination.k8s.io",
        "leases",
        &["get", "update"],
        Some("clusterlink-controller"),
        "take part in the election of the replica that writes",
    ),
    system(
        "",
        "configmaps",
        &["create"],
        None,
        "publish the authorities that agents trust, and keep valid denies, for the first time",
    ),
    system(
        "",
        "configmaps",
        &["patch"],
        Some("clusterlink-controller-ca"),
        "publish the authorities that agents trust",
    ),
    system(
        "",
        "configmaps",
        &["get", "update"],
        Some("clusterlink-valid-denies"),
        "keep a deny in force whose manifest became invalid, over restarts",
    ),
    system(
        "",
        "secrets",
        &["create"],
        None,
        "make the authority that all replicas share",
    ),
    system(
        "",
        "secrets",
        &["get", "update"],
        Some("clusterlink-controller-ca"),
        "share that authority with the other replicas, and renew it before it ends",
    ),
    system(
        "",
        "secrets",
        &["get"],
        Some("clusterlink-peer"),
        "read this peer's name in its certificate",
    ),
];

const fn cluster(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    why: &'static str,
) -> Right {
    Right {
        reach: Reach::Cluster,
        group,
        resource,
        verbs,
        name: None,
        why,
    }
}

const fn system(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    name: Option<&'static str>,
    why: &'static str,
) -> Right {
    Right {
        reach: Reach::System,
        group,
        resource,
        verbs,
        name,
        why,
    }
}

#[cfg(test)]
mod tests;
