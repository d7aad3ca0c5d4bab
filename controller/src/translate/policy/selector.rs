//! `metav1.LabelSelector` over policy attributes → selector of the model.

use clusterlink_crds::labels::attributes;
use clusterlink_model::{Operator, Requirement, Selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::translate::syntax;

/// The attributes with a fixed key.
const FIXED: [&str; 5] = [
    attributes::PEER_NAME,
    attributes::CLIENT_NAMESPACE,
    attributes::CLIENT_SERVICE_ACCOUNT,
    attributes::EXPORT_NAME,
    attributes::EXPORT_NAMESPACE,
];
/// What precedes a label's own key in an attribute key.
const LABELS: [&str; 3] = [
    attributes::PEER_LABELS,
    attributes::CLIENT_LABELS,
    attributes::EXPORT_LABELS,
];

/// Checks and translates one selector; `path` is where it stands in the manifest.
pub(super) fn translate(path: &str, selector: &LabelSelector) -> Result<Selector, String> {
    let mut requirements = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        let path = format!("{path}.matchLabels[{key:?}]");
        let values = check_values(&path, key, std::slice::from_ref(value))?;
        requirements.push(requirement(&path, key, Operator::In(values))?);
    }
    for (number, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{number}]");
        let values = expression.values.as_deref().unwrap_or_default();
        let operator = match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                return Err(format!(
                    "{path}.values is empty, but operator {} needs at least one value",
                    expression.operator
                ));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                return Err(format!(
                    "{path}.values is {values:?}, but operator {} takes none: remove them, or use In or NotIn",
                    expression.operator
                ));
            }
            "In" => Operator::In(check_values(&path, &expression.key, values)?),
            "NotIn" => Operator::NotIn(check_values(&path, &expression.key, values)?),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => {
                return Err(format!(
                    "{path}.operator is {other:?}: use In, NotIn, Exists or DoesNotExist"
                ));
            }
        };
        requirements.push(requirement(&path, &expression.key, operator)?);
    }
    Ok(Selector { requirements })
}

/// Whether any requirement is on an attribute that begins with `prefix`.
pub(super) fn selects(selector: &Selector, prefix: &str) -> bool {
    selector
        .requirements
        .iter()
        .any(|requirement| requirement.key.starts_with(prefix))
}

/// The keys that no attribute of this side ever has; a negative requirement on one always holds.
pub(super) fn unknown_keys<'a>(
    selector: &'a Selector,
    foreign: &str,
) -> impl Iterator<Item = &'a str> {
    selector
        .requirements
        .iter()
        .map(|requirement| requirement.key.as_str())
        .filter(move |key| {
            let known = FIXED.contains(key) || LABELS.iter().any(|prefix| key.starts_with(prefix));
            !known || key.starts_with(foreign)
        })
}

fn requirement(path: &str, key: &str, operator: Operator) -> Result<Requirement, String> {
    let label = LABELS.iter().find_map(|prefix| key.strip_prefix(prefix));
    if syntax::is_label_key(label.unwrap_or(key)) {
        Ok(Requirement {
            key: key.to_owned(),
            operator,
        })
    } else {
        Err(format!(
            "{path} has the key {key:?}, which is no label key: use [prefix/]name with letters, digits, '-', '_' and '.'"
        ))
    }
}

/// Names may be longer than label values; those of peers are compared in lower case, as
/// certificates are.
fn check_values(path: &str, key: &str, values: &[String]) -> Result<Vec<String>, String> {
    let folded = values.iter().map(|value| {
        if key == attributes::PEER_NAME {
            value.to_ascii_lowercase()
        } else {
            value.clone()
        }
    });
    folded
        .map(|value| {
            if syntax::is_label_value(&value)
                || (FIXED.contains(&key) && syntax::is_dns_subdomain(&value))
            {
                Ok(value)
            } else {
                Err(format!(
                    "{path} has the value {value:?}, which is no label value: use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
                ))
            }
        })
        .collect()
}
