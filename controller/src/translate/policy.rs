//! AccessPolicy and PrivilegedAccessPolicy → Policy.

use clusterlink_crds::{
    PolicyAction, PolicySpec, WorkloadSetOrSelector,
    conditions::{POLICY_VALID, reasons},
    labels::attributes,
};
use clusterlink_model::{Action, Policy, PolicyName, Selector};

use crate::status::Finding;

mod selector;

/// What a policy does that trusts every peer's word on its clients.
const ANY_PEER: &str = "selects attributes of clients of any peer";

/// A valid policy and what its author may not have meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Valid {
    pub(crate) policy: Policy,
    pub(crate) warnings: Vec<String>,
}

/// Why a policy is not valid.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    reason: &'static str,
    message: String,
}

/// Checks and translates one policy.
pub(crate) fn translate(name: &PolicyName, spec: &PolicySpec) -> Result<Valid, Invalid> {
    let from = side("spec.from", &spec.from)?;
    let to = side("spec.to", &spec.to)?;
    let warnings = warnings(&from, &to);
    let action = match spec.action {
        PolicyAction::Allow => Action::Allow,
        PolicyAction::Deny => Action::Deny,
    };
    Ok(Valid {
        policy: Policy {
            name: name.clone(),
            action,
            from,
            to,
        },
        warnings,
    })
}

/// The finding on a valid policy.
pub(crate) fn valid(warnings: &[String]) -> Finding {
    let mut finding = Finding::valid(POLICY_VALID, warnings.join("; "));
    if warnings.iter().any(|warning| warning.contains(ANY_PEER)) {
        finding.reason = reasons::CLIENT_WITHOUT_PEER;
    }
    finding
}

/// The finding on an invalid policy: an allow is withdrawn, a deny stays.
pub(crate) fn invalid(name: &PolicyName, why: &Invalid, in_force: Option<Action>) -> Finding {
    let consequence = match in_force {
        Some(Action::Deny) => {
            "its last valid version, a deny, stays in force until this is corrected or deleted"
        }
        Some(Action::Allow) | None => "nothing is in force under this name until this is corrected",
    };
    let reason = if in_force == Some(Action::Deny) {
        reasons::DENY_KEPT
    } else {
        why.reason
    };
    Finding::invalid(
        POLICY_VALID,
        reason,
        format!("{name}: {}; {consequence}", why.message),
    )
}

/// The finding on a deny that is known from before this process, while its manifest is unreadable.
pub(crate) fn unreadable(name: &PolicyName) -> Finding {
    let message = format!(
        "{name}: its manifest cannot be read (see the problems); its last valid version, a deny, stays in force until the manifest is corrected or deleted"
    );
    Finding::invalid(POLICY_VALID, reasons::DENY_KEPT, message)
}

fn side(path: &str, items: &[WorkloadSetOrSelector]) -> Result<Vec<Selector>, Invalid> {
    if items.is_empty() {
        return Err(invalid_field(format!(
            "{path} is empty: give at least one item; workloadSelector: {{}} selects everything"
        )));
    }
    items
        .iter()
        .enumerate()
        .map(|(number, item)| one(&format!("{path}[{number}]"), item))
        .collect()
}

fn one(path: &str, item: &WorkloadSetOrSelector) -> Result<Selector, Invalid> {
    let sets = item.workload_sets.as_deref().unwrap_or_default();
    match (&item.workload_selector, sets) {
        (Some(labels), []) => {
            selector::translate(&format!("{path}.workloadSelector"), labels).map_err(invalid_field)
        }
        (None, [first, ..]) => Err(Invalid {
            reason: reasons::WORKLOAD_SET_UNKNOWN,
            message: format!(
                "{path}.workloadSets names {first:?}, but no workload sets are predefined: use workloadSelector"
            ),
        }),
        (Some(_), [_, ..]) => Err(invalid_field(format!(
            "{path} has both workloadSelector and workloadSets: keep exactly one"
        ))),
        (None, []) => Err(invalid_field(format!(
            "{path} has neither workloadSelector nor workloadSets: give one; workloadSelector: {{}} selects everything"
        ))),
    }
}

fn invalid_field(message: String) -> Invalid {
    Invalid {
        reason: reasons::POLICY_INVALID,
        message,
    }
}

fn warnings(from: &[Selector], to: &[Selector]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (number, item) in from.iter().enumerate() {
        if selector::selects(item, attributes::CLIENT)
            && !selector::selects(item, "peer.clusterlink.net/")
        {
            warnings.push(format!(
                "spec.from[{number}] {ANY_PEER}: each peer attests its own clients, so add {} to say whose word counts",
                attributes::PEER_NAME
            ));
        }
        for key in selector::unknown_keys(item, "export.clusterlink.net/") {
            warnings.push(never_set("from", number, key));
        }
    }
    for (number, item) in to.iter().enumerate() {
        for key in selector::unknown_keys(item, attributes::CLIENT) {
            warnings.push(never_set("to", number, key));
        }
    }
    warnings
}

fn never_set(side: &str, number: usize, key: &str) -> String {
    format!(
        "spec.{side}[{number}] uses the key {key:?}, which no connection has there: In and Exists never match, NotIn and DoesNotExist always do"
    )
}

#[cfg(test)]
mod tests;
