//! One side of a policy (`from` or `to`), compiled.

use super::attribute::Key;
use crate::selector::{Operator, Selector};

/// Matches when any of its alternatives does.
#[derive(Clone, Debug)]
pub(super) struct Matcher<K> {
    alternatives: Box<[Alternative<K>]>,
}

/// Holds when all of its requirements do.
type Alternative<K> = Box<[Requirement<K>]>;

#[derive(Clone, Debug)]
struct Requirement<K> {
    key: K,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    In(Values),
    NotIn(Values),
    Exists,
    DoesNotExist,
}

/// A sorted set of texts: a selector may list hundreds of namespaces.
#[derive(Clone, Debug)]
struct Values(Box<[Box<str>]>);

impl<K: Key> Matcher<K> {
    pub(super) fn new(selectors: &[Selector]) -> Self {
        let alternative = |selector: &Selector| {
            let requirements = selector.requirements.iter();
            requirements
                .map(|requirement| Requirement {
                    key: K::parse(&requirement.key),
                    test: Test::new(&requirement.operator),
                })
                .collect()
        };
        Self {
            alternatives: selectors.iter().map(alternative).collect(),
        }
    }
}

impl<K> Matcher<K> {
    pub(super) fn matches<'a>(&self, value_of: impl Fn(&K) -> Option<&'a str>) -> bool {
        (self.alternatives.iter())
            .any(|alternative| alternative.iter().all(|r| r.test.holds(value_of(&r.key))))
    }
}

impl Test {
    fn new(operator: &Operator) -> Self {
        match operator {
            Operator::In(values) => Self::In(Values::new(values)),
            Operator::NotIn(values) => Self::NotIn(Values::new(values)),
            Operator::Exists => Self::Exists,
            Operator::DoesNotExist => Self::DoesNotExist,
        }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|value| values.contain(value)),
            Self::NotIn(values) => !value.is_some_and(|value| values.contain(value)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
        }
    }
}

impl Values {
    fn new(values: &[String]) -> Self {
        let mut sorted: Vec<Box<str>> = values.iter().map(|v| v.as_str().into()).collect();
        sorted.sort_unstable();
        sorted.dedup();
        Self(sorted.into())
    }

    fn contain(&self, value: &str) -> bool {
        match &*self.0 {
            [only] => &**only == value,
            values => values.binary_search_by(|v| (**v).cmp(value)).is_ok(),
        }
    }
}
