//! Policies that are to be translated again. An invalid one is never wider than what its author
//! last wrote validly: an allow is withdrawn, a deny stays in force.

use std::sync::Arc;

use clusterlink_crds::PolicySpec;
use clusterlink_model::{Action, ObjectName, Policy, PolicyName, Resource, ResourceKey};
use jiff::Timestamp;

use super::{Index, Settled};
use crate::{
    status::{Finding, PolicyStatus, board::PolicyObject, dated},
    translate::policy,
    valid_denies::Reading,
};

/// What is to be in force under a policy's name.
struct Ruling {
    in_force: Option<Arc<Policy>>,
    finding: Finding,
    warnings: Vec<String>,
    generation: Option<i64>,
    stale: bool,
}

impl Index {
    /// Takes in valid denies that another process has stored: at the start all of them, later those
    /// that were valid while this process did not see it, and whose manifests are no good by now.
    pub(super) fn read_denies(&mut self, reading: &Reading) {
        let first = !self.denies.is_read();
        for policy in &reading.denies {
            let name = &policy.name;
            let news = first || (self.denies.get(name).is_none() && self.is_doubtful(name));
            if news {
                self.denies.insert_from_before(policy);
                self.dirty.policies.insert(name.clone());
            }
        }
        self.denies.read(reading.number);
    }

    /// Whether what a policy's author wants is not known, or may not be.
    fn is_doubtful(&self, name: &PolicyName) -> bool {
        match self.policy_spec(name) {
            Some((spec, _)) => policy::translate(name, spec).is_err(),
            None => {
                let (kind, object) = kind_and_object(name);
                self.may_be_unreadable(kind, &object)
            }
        }
    }

    pub(super) fn settle_policies(&mut self, now: Timestamp, settled: &mut Settled) {
        for name in std::mem::take(&mut self.dirty.policies) {
            let ruling = self.rule(&name);
            let key = ResourceKey::Policy(name.clone());
            let mut board = self.status.lock();
            let Some(ruling) = ruling else {
                settled.changes.push((key, None));
                board.policy(name, None);
                continue;
            };
            let before = board.policies.get(&name);
            let status = PolicyStatus {
                name: name.clone(),
                in_force: ruling.in_force.as_ref().map(|policy| policy.action),
                warnings: ruling.warnings,
                conditions: dated(
                    vec![ruling.finding],
                    before.map_or(&[], |status| &status.conditions),
                    now,
                    ruling.generation,
                ),
                stale: ruling.stale,
            };
            settled
                .changes
                .push((key, ruling.in_force.map(Resource::Policy)));
            let object = self.policy_object(&name);
            board.policy(name, Some((status, object)));
        }
        if let Err(error) = self.denies.save() {
            // In force it is all the same; what is at risk is only that a restart forgets it.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot store valid denies"
            );
            settled.retry = true;
        }
    }

    /// Decides on one policy and remembers its last valid deny; `None` if there is none.
    fn rule(&mut self, name: &PolicyName) -> Option<Ruling> {
        let Some((spec, generation)) = self.policy_spec(name) else {
            return self.rule_absent(name);
        };
        let translated = policy::translate(name, spec);
        self.denies.seen(name);
        match translated {
            Ok(policy::Valid { policy, warnings }) => {
                let policy = Arc::new(policy);
                match policy.action {
                    Action::Deny => self.denies.insert(&policy),
                    Action::Allow => self.denies.remove(name),
                }
                let finding = policy::valid(&warnings);
                Some(Ruling {
                    in_force: Some(policy),
                    finding,
                    warnings,
                    generation,
                    stale: false,
                })
            }
            Err(why) => {
                let in_force = self.denies.get(name).cloned();
                let finding = policy::invalid(name, &why, in_force.as_ref().map(|p| p.action));
                let stale = in_force.is_some();
                Some(Ruling {
                    in_force,
                    finding,
                    warnings: Vec::new(),
                    generation,
                    stale,
                })
            }
        }
    }

    /// A deny that was stored by an earlier process stays while its manifest may be unreadable;
    /// otherwise a policy that the source does not give is deleted.
    fn rule_absent(&mut self, name: &PolicyName) -> Option<Ruling> {
        let (kind, object) = kind_and_object(name);
        if self.denies.is_from_before(name) && self.may_be_unreadable(kind, &object) {
            self.held_policies.insert(name.clone());
            let in_force = self.denies.get(name).cloned();
            let finding = policy::unreadable(name);
            return Some(Ruling {
                in_force,
                finding,
                warnings: Vec::new(),
                generation: None,
                stale: true,
            });
        }
        self.denies.remove(name);
        None
    }

    /// The object that is spoken of; none while only a deny of before is known.
    fn policy_object(&self, name: &PolicyName) -> Option<PolicyObject> {
        match name {
            PolicyName::Namespaced(object) => {
                let policy = self.access_policies.get(object)?;
                Some(PolicyObject::Namespaced(Arc::clone(policy)))
            }
            PolicyName::Privileged(object) => {
                let name = ObjectName::new("", object.clone());
                let policy = self.privileged_access_policies.get(&name)?;
                Some(PolicyObject::Privileged(Arc::clone(policy)))
            }
        }
    }

    fn policy_spec(&self, name: &PolicyName) -> Option<(&PolicySpec, Option<i64>)> {
        match name {
            PolicyName::Namespaced(object) => {
                let policy = self.access_policies.get(object)?;
                Some((&policy.spec, policy.metadata.generation))
            }
            PolicyName::Privileged(object) => {
                let policy = self
                    .privileged_access_policies
                    .get(&ObjectName::new("", object.clone()))?;
                Some((&policy.spec.0, policy.metadata.generation))
            }
        }
    }
}

/// How problems name a policy.
fn kind_and_object(name: &PolicyName) -> (&'static str, String) {
    match name {
        PolicyName::Namespaced(object) => ("AccessPolicy", object.to_string()),
        PolicyName::Privileged(object) => ("PrivilegedAccessPolicy", object.to_string()),
    }
}
