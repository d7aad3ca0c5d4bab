//! Conditions in the status of objects.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::kubernetes::ControlPlane;
use crate::wait::wait_for;

/// How soon a status has to say what is so; writes of one object are a second apart.
pub const SOON: Duration = Duration::from_secs(20);

/// A condition of an object.
#[derive(Clone, Debug)]
pub struct On {
    /// The kind of the object.
    pub kind: &'static str,
    /// Its namespace; empty for a kind without.
    pub namespace: String,
    /// Its name.
    pub name: &'static str,
    /// The type of the condition.
    pub condition: &'static str,
}

/// The state that a condition has to get into: status, reason and a part of the message.
pub type Wanted<'a> = (&'a str, &'a str, &'a str);

impl On {
    /// The condition, which has to speak of the object as it is now.
    pub fn find(&self, objects: &[Value]) -> Result<Value> {
        let is = |object: &&Value| {
            object["kind"] == self.kind
                && object["metadata"]["name"] == self.name
                && object["metadata"]["namespace"].as_str().unwrap_or_default() == self.namespace
        };
        let object = objects.iter().find(is).context("the object is missing")?;
        let conditions = object["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let found = conditions.find(|one| one["type"] == self.condition);
        let found = found.context("it has no such condition")?;
        ensure!(
            found["observedGeneration"] == object["metadata"]["generation"],
            "it speaks of generation {} while the object is of {}",
            found["observedGeneration"],
            object["metadata"]["generation"]
        );
        Ok(found.clone())
    }

    /// Whether the condition is as wanted; if not, how it is.
    pub fn check(&self, objects: &[Value], (status, reason, message): Wanted<'_>) -> Result<()> {
        let found = self.find(objects)?;
        ensure!(
            found["status"] == status
                && found["reason"] == reason
                && found["message"]
                    .as_str()
                    .unwrap_or_default()
                    .contains(message),
            "wanted {status} {reason} {message:?}, found {found}"
        );
        Ok(())
    }
}

/// All objects of our kinds, in all namespaces.
pub fn objects(plane: &ControlPlane) -> Result<Vec<Value>> {
    let list = plane.get(&["clusterlink", "--all-namespaces"])?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// Waits until every condition is as wanted, and names the first that is not.
pub fn wait_all(plane: &ControlPlane, rows: &[(&str, &On, Wanted<'_>)]) -> Result<()> {
    wait_for("the conditions are as wanted", SOON, || {
        let objects = objects(plane)?;
        for (row, on, wanted) in rows {
            on.check(&objects, *wanted)
                .with_context(|| (*row).to_owned())?;
        }
        Ok(true)
    })
}
