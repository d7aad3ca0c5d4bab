//! The rights that the shipped Roles grant, one verb at a time.

use std::fmt;

use anyhow::{Context, Result, ensure};
use clusterlink_tests::conditions::SOON;
use clusterlink_tests::controller::SYSTEM;
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::wait::wait_for;
use serde_json::{Value, json};

pub(crate) const ACCOUNT: &str = "system:serviceaccount:clusterlink-system:clusterlink-controller";
const ROLE: &str = "clusterlink-controller";

/// One verb on one resource.
#[derive(Clone, Debug)]
pub(crate) struct Right {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) name: Option<String>,
    /// The Role is that of the system namespace, else the ClusterRole.
    system: bool,
    /// The rules of the role with this right, and without.
    whole: Value,
    without: Value,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        self.name.iter().try_for_each(|name| write!(f, " {name}"))
    }
}

/// All rights of the controller's account.
pub(crate) fn granted(plane: &ControlPlane) -> Result<Vec<Right>> {
    let mut rights = Vec::new();
    for system in [false, true] {
        let role = plane.call("GET", &path(system), None)?;
        let rules = role["rules"].as_array().context("a role without rules")?;
        for (number, rule) in rules.iter().enumerate() {
            let one = |field: &str| -> Result<Option<String>> {
                let all = rule[field].as_array().map_or(&[][..], Vec::as_slice);
                ensure!(
                    all.len() < 2,
                    "a rule of several {field} has to be split here: {rule}"
                );
                Ok(all.first().and_then(Value::as_str).map(str::to_owned))
            };
            let verbs = rule["verbs"].as_array().context("a rule without verbs")?;
            for verb in verbs {
                rights.push(Right {
                    verb: verb.as_str().context("a verb is a text")?.to_owned(),
                    group: one("apiGroups")?.unwrap_or_default(),
                    resource: one("resources")?.context("a rule without resource")?,
                    name: one("resourceNames")?,
                    system,
                    whole: role["rules"].clone(),
                    without: without(rules, number, verb),
                });
            }
        }
    }
    Ok(rights)
}

fn without(rules: &[Value], number: usize, verb: &Value) -> Value {
    let mut rules = rules.to_vec();
    if let Some(verbs) = rules[number]["verbs"].as_array_mut() {
        verbs.retain(|one| one != verb);
        if verbs.is_empty() {
            rules.remove(number);
        }
    }
    Value::Array(rules)
}

fn path(system: bool) -> String {
    let api = "/apis/rbac.authorization.k8s.io/v1";
    if system {
        format!("{api}/namespaces/{SYSTEM}/roles/{ROLE}")
    } else {
        format!("{api}/clusterroles/{ROLE}")
    }
}

impl Right {
    /// Grants everything, or everything but this, and waits until the API server goes by it.
    pub(crate) fn set(&self, plane: &ControlPlane, granted: bool) -> Result<()> {
        let rules = if granted { &self.whole } else { &self.without };
        plane.call("PATCH", &path(self.system), Some(&json!({"rules": rules})))?;
        let question = Question {
            user: ACCOUNT,
            namespace: SYSTEM,
            verb: &self.verb,
            group: &self.group,
            resource: &self.resource,
            name: self.name.as_deref(),
        };
        wait_for("the API server goes by the role", SOON, || {
            Ok(is_allowed(plane, &question)? == granted)
        })
    }
}

/// Whether somebody may do something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) user: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) name: Option<&'a str>,
}

/// What the API server answers.
pub(crate) fn is_allowed(plane: &ControlPlane, question: &Question<'_>) -> Result<bool> {
    let resource = question.resource;
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": question.user, "resourceAttributes": {
            "namespace": question.namespace, "verb": question.verb, "group": question.group,
            "resource": resource, "subresource": subresource, "name": question.name,
        }},
    });
    let url = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = plane.call("POST", url, Some(&review))?;
    Ok(answer["status"]["allowed"] == true)
}
