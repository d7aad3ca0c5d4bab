use clusterlink_model::{Action, Operator, Policy, PolicyName, Requirement, Selector};

use crate::{
    invalid::Invalid,
    parts::present,
    wire::{self, policy::Name},
};

impl From<&Policy> for wire::Policy {
    fn from(policy: &Policy) -> Self {
        let name = match &policy.name {
            PolicyName::Privileged(name) => Name::Privileged(name.as_ref().to_owned()),
            PolicyName::Namespaced(name) => Name::Namespaced(name.into()),
        };
        let action = match policy.action {
            Action::Allow => wire::Action::Allow,
            Action::Deny => wire::Action::Deny,
        };
        Self {
            name: Some(name),
            action: action.into(),
            from: policy.from.iter().map(Into::into).collect(),
            to: policy.to.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Policy> for Policy {
    type Error = Invalid;

    fn try_from(policy: wire::Policy) -> Result<Self, Invalid> {
        let action = wire::Action::try_from(policy.action)
            .map_err(|error| Invalid::unknown("action", error.0))?;
        let from: Result<_, _> = policy.from.into_iter().map(TryInto::try_into).collect();
        let to: Result<_, _> = policy.to.into_iter().map(TryInto::try_into).collect();
        Ok(Self {
            name: match present("name", policy.name)? {
                Name::Privileged(name) => PolicyName::Privileged(name.into()),
                Name::Namespaced(name) => PolicyName::Namespaced(name.into()),
            },
            action: match action {
                wire::Action::Unspecified => return Err(Invalid::missing("action")),
                wire::Action::Allow => Action::Allow,
                wire::Action::Deny => Action::Deny,
            },
            from: from?,
            to: to?,
        })
    }
}

impl From<&Selector> for wire::Selector {
    fn from(selector: &Selector) -> Self {
        Self {
            requirements: selector.requirements.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Selector> for Selector {
    type Error = Invalid;

    fn try_from(selector: wire::Selector) -> Result<Self, Invalid> {
        let all: Result<_, _> = (selector.requirements.into_iter())
            .map(TryInto::try_into)
            .collect();
        Ok(Self { requirements: all? })
    }
}

impl From<&Requirement> for wire::Requirement {
    fn from(requirement: &Requirement) -> Self {
        let (operator, values) = match &requirement.operator {
            Operator::In(values) => (wire::Operator::In, values.clone()),
            Operator::NotIn(values) => (wire::Operator::NotIn, values.clone()),
            Operator::Exists => (wire::Operator::Exists, Vec::new()),
            Operator::DoesNotExist => (wire::Operator::DoesNotExist, Vec::new()),
        };
        Self {
            key: requirement.key.clone(),
            operator: operator.into(),
            values,
        }
    }
}

impl TryFrom<wire::Requirement> for Requirement {
    type Error = Invalid;

    /// Values that mean nothing are refused: they could only narrow what is known here.
    fn try_from(requirement: wire::Requirement) -> Result<Self, Invalid> {
        let operator = wire::Operator::try_from(requirement.operator)
            .map_err(|error| Invalid::unknown("operator", error.0))?;
        let values = requirement.values;
        let without_values = |operator| {
            if values.is_empty() {
                Ok(operator)
            } else {
                Err(Invalid::new("values", "only In and NotIn have values"))
            }
        };
        let operator = match operator {
            wire::Operator::Unspecified => return Err(Invalid::missing("operator")),
            wire::Operator::Exists => without_values(Operator::Exists)?,
            wire::Operator::DoesNotExist => without_values(Operator::DoesNotExist)?,
            wire::Operator::In => Operator::In(values),
            wire::Operator::NotIn => Operator::NotIn(values),
        };
        Ok(Self {
            key: requirement.key,
            operator,
        })
    }
}
