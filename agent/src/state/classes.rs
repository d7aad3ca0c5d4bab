//! Identity classes: workloads with equal attributes are judged equally, so that the kernel needs
//! one row of verdicts for all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use clusterlink_model::{
    WorkloadAttributes,
    class::{FIRST_WORKLOAD, Numbers},
};

use crate::datapath::CLASS_HOST;

/// The classes in use, the host's always among them.
#[derive(Debug)]
pub(super) struct Classes {
    numbers: Numbers<Arc<WorkloadAttributes>>,
    all: BTreeMap<u32, Option<Arc<WorkloadAttributes>>>,
}

impl Classes {
    /// Only the host's class.
    pub(super) fn new() -> Self {
        Self {
            numbers: Numbers::starting_at(FIRST_WORKLOAD),
            all: BTreeMap::from([(CLASS_HOST, None)]),
        }
    }

    /// Class to attributes; `None` is the host.
    pub(super) fn all(&self) -> &BTreeMap<u32, Option<Arc<WorkloadAttributes>>> {
        &self.all
    }

    /// The class of workloads with these attributes, and whether it is new.
    pub(super) fn of(&mut self, attributes: &Arc<WorkloadAttributes>) -> (u32, bool) {
        let class = self
            .numbers
            .assign(attributes)
            .expect("there are fewer workloads than numbers");
        (
            class,
            self.all.insert(class, Some(attributes.clone())).is_none(),
        )
    }

    /// The class of workloads with these attributes, if there are any.
    pub(super) fn known(&self, attributes: &Arc<WorkloadAttributes>) -> Option<u32> {
        self.numbers.number(attributes)
    }

    /// Forgets the classes that are not `used`, and returns them.
    pub(super) fn retain(&mut self, used: &BTreeSet<u32>) -> Vec<u32> {
        let is_used = |class: &u32| *class == CLASS_HOST || used.contains(class);
        let unused: Vec<u32> = self
            .all
            .keys()
            .filter(|class| !is_used(class))
            .copied()
            .collect();
        for &class in &unused {
            self.all.remove(&class);
            self.numbers.release_number(class);
        }
        unused
    }
}
