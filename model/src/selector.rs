//! Label selectors with the semantics of `metav1.LabelSelector`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Labels or attributes: key to value.
pub type Labels = BTreeMap<String, String>;

/// A label selector; an empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// All of these must hold (`matchLabels` are `In` with one value).
    pub requirements: Vec<Requirement>,
}

/// One requirement on one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The attribute's key.
    pub key: String,
    /// How its value is compared.
    pub operator: Operator,
}

/// The operators of a label selector requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// The key is present with one of these values.
    In(Vec<String>),
    /// The key is absent, or present with none of these values.
    NotIn(Vec<String>),
    /// The key is present.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

impl Selector {
    /// Whether all requirements hold for the attributes that `value_of` looks up.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = value_of(&requirement.key);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
                Operator::NotIn(values) => !value.is_some_and(|v| values.iter().any(|w| w == v)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(labels: &[(&str, &str)], requirements: &[(&str, Operator)]) -> bool {
        let labels: Labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let requirements = requirements.iter().map(|(key, operator)| Requirement {
            key: (*key).to_owned(),
            operator: operator.clone(),
        });
        let selector = Selector {
            requirements: requirements.collect(),
        };
        selector.matches(|key| labels.get(key).map(String::as_str))
    }

    #[test]
    fn operators_mean_what_they_mean_in_kubernetes() {
        let values = || vec!["web".to_owned(), "db".to_owned()];
        for (operator, with_web, with_other, without) in [
            (Operator::In(values()), true, false, false),
            (Operator::NotIn(values()), false, true, true),
            (Operator::Exists, true, true, false),
            (Operator::DoesNotExist, false, false, true),
        ] {
            let requirement = [("app", operator.clone())];
            assert_eq!(
                matches(&[("app", "web")], &requirement),
                with_web,
                "{operator:?}"
            );
            assert_eq!(
                matches(&[("app", "cache")], &requirement),
                with_other,
                "{operator:?}"
            );
            assert_eq!(
                matches(&[("tier", "web")], &requirement),
                without,
                "{operator:?}"
            );
        }
    }

    #[test]
    fn an_empty_selector_matches_everything_and_several_requirements_must_all_hold() {
        assert!(matches(&[], &[]));
        assert!(matches(&[("app", "web")], &[]));
        let both = [("app", Operator::Exists), ("tier", Operator::Exists)];
        assert!(!matches(&[("app", "web")], &both));
        assert!(matches(&[("app", "web"), ("tier", "gold")], &both));
    }
}
