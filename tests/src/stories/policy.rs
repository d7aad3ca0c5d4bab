//! Who may reach what, decided by the manifests of both sides.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Share, Stage, wait_flow};
use crate::manifests::{
    access_policy, allow_all, everything, matching, privileged_policy, with_label,
    with_service_account,
};
use crate::place::Place;
use crate::world::{NAMESPACE, Verdict, verdict, wait_verdict};

/// What a client may see of a connection that its own side lets through and the other does not.
pub const REFUSED_BY_THE_OTHER: [Verdict; 2] = [Verdict::Reset, Verdict::Refused];

/// What the other side denied is remembered for half a second.
pub const FORGOTTEN: Duration = Duration::from_millis(500);

/// An allow on one side alone does not let anybody through.
pub fn both_sides_have_to_allow(stage: &impl Stage, web: SocketAddr) -> Result<()> {
    let client = stage.workload("both", |pod| pod)?;
    let allow = [allow_all(NAMESPACE)];
    let (west, east) = (stage.west(), stage.east());
    let refused = [stage.refused()];
    east.apply("allow.yaml", &allow)?;
    stage.sees("allowed at east only", &client, web, &refused)?;
    west.apply("allow.yaml", &allow)?;
    stage.sees("allowed on both sides", &client, web, &[Verdict::Served])?;
    east.withdraw("allow.yaml")?;
    stage.sees("allowed at west only", &client, web, &REFUSED_BY_THE_OTHER)?;
    east.apply("allow.yaml", &allow)?;
    let what = "allowed on both sides again";
    let deadline = stage.soon() + FORGOTTEN;
    wait_verdict(what, deadline, &client, web, &[Verdict::Served])?;
    west.withdraw("allow.yaml")?;
    stage.sees("allowed at east only again", &client, web, &refused)?;
    east.withdraw("allow.yaml")
}

/// Privileged deny beats privileged allow, and so on down to the default.
pub fn each_tier_beats_the_next(stage: &impl Stage, web: SocketAddr) -> Result<()> {
    let client = stage.workload("tiers", |pod| pod)?;
    stage.east().apply("allow.yaml", &[allow_all(NAMESPACE)])?;
    let all = everything();
    let namespaced = |name, action| access_policy(NAMESPACE, name, action, &all, &all);
    let privileged = |name, action| privileged_policy(name, action, &all, &all);
    let refused = stage.refused();
    let tiers = [
        (
            "namespaced allow",
            namespaced("a", "allow"),
            Verdict::Served,
        ),
        ("namespaced deny", namespaced("b", "deny"), refused),
        (
            "privileged allow",
            privileged("c", "allow"),
            Verdict::Served,
        ),
        ("privileged deny", privileged("d", "deny"), refused),
    ];
    let file = |number: usize| format!("tier-{number}.yaml");
    let west = stage.west();
    stage.sees("without any policy", &client, web, &[refused])?;
    for (number, (tier, policy, wanted)) in tiers.iter().enumerate() {
        west.apply(&file(number), std::slice::from_ref(policy))?;
        stage.sees(&format!("with a {tier}"), &client, web, &[*wanted])?;
    }
    // The same on the way back, each tier taken away again.
    for number in (1..tiers.len()).rev() {
        west.withdraw(&file(number))?;
        let (tier, _, wanted) = &tiers[number - 1];
        let what = format!("with no more than a {tier}");
        stage.sees(&what, &client, web, &[*wanted])?;
    }
    west.withdraw(&file(0))?;
    stage.east().withdraw("allow.yaml")
}

/// An attribute, a value that the client has, one that it has not, and whether a deny of the first
/// spares another workload, which has no labels and no service account of its own.
type Row = (&'static str, &'static str, &'static str, bool);

const ATTRIBUTES: [Row; 6] = [
    (
        "client.clusterlink.net/namespace",
        NAMESPACE,
        "elsewhere",
        false,
    ),
    (
        "client.clusterlink.net/service-account",
        "cart-account",
        "till-account",
        true,
    ),
    ("client.clusterlink.net/labels.app", "cart", "till", true),
    (
        "client.clusterlink.net/labels.app.kubernetes.io/name",
        "cart-frontend",
        "cart",
        true,
    ),
    ("peer.clusterlink.net/name", "west", "east", false),
    ("peer.clusterlink.net/labels.zone", "north", "south", false),
];

/// A deny at either side selects by namespace, service account, label, peer name and peer label.
pub fn a_deny_selects_by_every_attribute_of_the_client(
    stage: &impl Stage,
    web: SocketAddr,
) -> Result<()> {
    let client = stage.workload("selected", |pod| {
        let pod = with_label(pod, "app", "cart");
        let pod = with_label(pod, "app.kubernetes.io/name", "cart-frontend");
        with_service_account(pod, "cart-account")
    })?;
    let other = stage.workload("other", |pod| pod)?;
    stage.allow_all()?;
    let served = [Verdict::Served];
    stage.sees("nothing denied", &client, web, &served)?;
    stage.sees("nothing denied", &other, web, &served)?;
    let patience = stage.soon() + FORGOTTEN;
    for side in [stage.west(), stage.east()] {
        for (key, value, mismatch, spares_other) in ATTRIBUTES {
            let row = format!("a deny of {key}={value} at {}", side.peer());
            let deny = |value| {
                let from = matching(key, value);
                [access_policy(
                    NAMESPACE,
                    "deny",
                    "deny",
                    &from,
                    &everything(),
                )]
            };
            side.apply("deny.yaml", &deny(value))?;
            stage.sees(&row, &client, web, &REFUSED_BY_THE_OTHER)?;
            let seen = verdict(&other, web)?;
            ensure!(
                (seen == Verdict::Served) == spares_other,
                "{row}: the other workload saw {seen:?}"
            );
            side.apply("deny.yaml", &deny(mismatch))?;
            let what = format!("{row}, of another value");
            wait_verdict(&what, patience, &client, web, &served)?;
        }
        side.withdraw("deny.yaml")?;
    }
    stage.allow_nothing()
}

/// Two workloads of one host are told apart.
pub fn two_workloads_of_one_host_have_verdicts_of_their_own(
    stage: &impl Stage,
    web: SocketAddr,
) -> Result<()> {
    let cart = stage.workload("cart", |pod| with_label(pod, "app", "cart"))?;
    let till = stage.workload("till", |pod| with_label(pod, "app", "till"))?;
    stage.east().apply("allow.yaml", &[allow_all(NAMESPACE)])?;
    let only = |app| {
        let from = matching("client.clusterlink.net/labels.app", app);
        [access_policy(
            NAMESPACE,
            "only",
            "allow",
            &from,
            &everything(),
        )]
    };
    let refused = stage.refused();
    stage.west().apply("only.yaml", &only("cart"))?;
    stage.sees("cart is allowed", &cart, web, &[Verdict::Served])?;
    ensure!(verdict(&till, web)? == refused, "till is not allowed");
    stage.west().apply("only.yaml", &only("till"))?;
    stage.sees("till is allowed", &till, web, &[Verdict::Served])?;
    let seen = verdict(&cart, web)?;
    ensure!(seen == refused, "cart is not allowed any more: {seen:?}");
    stage.west().withdraw("only.yaml")?;
    stage.east().withdraw("allow.yaml")
}

/// A process of a host has no attributes but its peer's.
pub fn the_hosts_own_process_has_the_peers_attributes_only(
    stage: &impl Stage,
    host: &Place,
    web: SocketAddr,
) -> Result<()> {
    stage.east().apply("allow.yaml", &[allow_all(NAMESPACE)])?;
    let seen = verdict(host, web)?;
    ensure!(seen == Verdict::Refused, "without any policy: {seen:?}");
    let not_in = json!({"workloadSelector": {"matchExpressions": [
        {"key": "client.clusterlink.net/namespace", "operator": "NotIn", "values": [NAMESPACE]},
    ]}});
    let name = matching("peer.clusterlink.net/name", "west");
    let namespace = matching("client.clusterlink.net/namespace", NAMESPACE);
    let policies = [
        ("everything", everything(), Verdict::Served),
        ("a namespace", namespace, Verdict::Refused),
        ("its peer's name", name, Verdict::Served),
        ("not a namespace", not_in, Verdict::Served),
    ];
    for (what, from, wanted) in policies {
        let allow = access_policy(NAMESPACE, "host", "allow", &from, &everything());
        stage.west().apply("host.yaml", &[allow])?;
        let what = format!("an allow of {what}");
        wait_verdict(&what, stage.soon(), host, web, &[wanted])?;
    }
    stage.west().withdraw("host.yaml")?;
    stage.east().withdraw("allow.yaml")
}

/// A client that no manifest tells of is refused even where everything is allowed.
pub fn a_client_that_nobody_knows_is_refused(stage: &impl Stage, web: &Share) -> Result<()> {
    let known = stage.workload("known", |pod| pod)?;
    stage.allow_all()?;
    stage.sees(
        "a known one is served",
        &known,
        web.address,
        &[Verdict::Served],
    )?;
    let accepted = web.server.accepted()?;
    let unknown = stage.stranger()?;
    let seen = verdict(&unknown, web.address)?;
    ensure!(REFUSED_BY_THE_OTHER.contains(&seen), "{seen:?}");
    ensure!(
        web.server.accepted()? == accepted,
        "the backend was reached"
    );
    let why = "the flow log says why";
    wait_flow(stage.west(), why, stage.soon(), |flow| {
        flow["reason"] == "identity-unknown"
    })?;
    stage.allow_nothing()
}
