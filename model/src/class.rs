//! Small dense numbers for things that the kernel knows by number: imports and identity classes.
//!
//! A number means one thing until it is released on purpose, by a caller that has removed every
//! trace of it from the kernel; it survives restarts with the state that is written down.

mod numbers;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::numbers::{InvalidNumbers, Numbers, NumbersExhausted};
use crate::client::WorkloadAttributes;

/// The class of clients that are not known (yet); never numbered, always judged by the gateway.
pub const UNKNOWN: u32 = 0;
/// The class of the node's own processes.
pub const HOST: u32 = 1;
/// The least number of a class of workloads.
pub const FIRST_WORKLOAD: u32 = 2;

/// The identity classes of a node: workloads with equal attributes share one, since policy cannot
/// tell them apart. Written down and read back, every class is idle but keeps its number.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    into = "Numbers<Arc<WorkloadAttributes>>",
    try_from = "Numbers<Arc<WorkloadAttributes>>"
)]
pub struct Classes {
    numbers: Numbers<Arc<WorkloadAttributes>>,
    /// How many workloads are in each class; a class without any is idle.
    workloads: HashMap<u32, usize>,
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            numbers: Numbers::starting_at(FIRST_WORKLOAD),
            workloads: HashMap::new(),
        }
    }
}

impl From<Classes> for Numbers<Arc<WorkloadAttributes>> {
    fn from(classes: Classes) -> Self {
        classes.numbers
    }
}

impl TryFrom<Numbers<Arc<WorkloadAttributes>>> for Classes {
    type Error = InvalidNumbers;

    /// Refuses a numbering that could make a workload pass for the host.
    fn try_from(numbers: Numbers<Arc<WorkloadAttributes>>) -> Result<Self, InvalidNumbers> {
        numbers.expect_first(FIRST_WORKLOAD)?;
        Ok(Self {
            numbers,
            workloads: HashMap::new(),
        })
    }
}

impl Classes {
    /// Adds a workload: its class, which is new, shared, or was idle.
    pub fn acquire(
        &mut self,
        attributes: &Arc<WorkloadAttributes>,
    ) -> Result<u32, NumbersExhausted> {
        let class = self.numbers.assign(attributes)?;
        *self.workloads.entry(class).or_default() += 1;
        Ok(class)
    }

    /// Takes a workload out of its class. True if it was the last: the class is now idle, and
    /// keeps its number and meaning until it is retired.
    pub fn release(&mut self, class: u32) -> bool {
        match self.workloads.get_mut(&class) {
            Some(1) => self.workloads.remove(&class).is_some(),
            Some(count) => {
                *count -= 1;
                false
            }
            None => false,
        }
    }

    /// Gives up the number of an idle class, once nothing in the kernel refers to it. A class that
    /// is in use (again) stays, and the answer is false.
    pub fn retire(&mut self, class: u32) -> bool {
        !self.workloads.contains_key(&class) && self.numbers.release_number(class).is_some()
    }

    /// The class of these attributes, if there is one.
    pub fn class(&self, attributes: &WorkloadAttributes) -> Option<u32> {
        self.numbers.number(attributes)
    }

    /// What the workloads of a class have in common.
    pub fn attributes(&self, class: u32) -> Option<&Arc<WorkloadAttributes>> {
        self.numbers.key(class)
    }

    /// All classes with their attributes, idle ones too, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<WorkloadAttributes>)> + '_ {
        self.numbers.iter()
    }

    /// The classes that no workload is in, by number.
    pub fn idle(&self) -> impl Iterator<Item = u32> + '_ {
        self.numbers
            .iter()
            .map(|(class, _)| class)
            .filter(|c| !self.workloads.contains_key(c))
    }
}
