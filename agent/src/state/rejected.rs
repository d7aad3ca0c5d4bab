//! Resources that cannot be put in force on this node, for the controller: whom the status of the node
//! alone would tell, nobody reads.

use std::collections::BTreeMap;

use clusterlink_model::{ObjectName, ResourceKey};
use clusterlink_proto::Rejected;

use super::State;

/// Workloads of which none is believed, since they claim one cgroup.
#[derive(Debug)]
pub(super) struct Conflict {
    pub(super) workloads: Vec<ObjectName>,
    pub(super) reason: String,
}

impl State {
    /// What is not in force as it was told, each resource with one reason.
    pub(super) fn rejected(&self) -> Vec<Rejected> {
        let mut all = BTreeMap::new();
        for conflict in &self.conflicts {
            for name in &conflict.workloads {
                all.insert(ResourceKey::Workload(name.clone()), &*conflict.reason);
            }
        }
        if let Some(error) = self.tables.error() {
            let imports = self.tables.unwritten_services();
            let imports = imports.filter_map(|at| self.desired.services.get(at));
            all.extend(self.import_keys(imports).map(|key| (key, error)));
            let cgroups: Vec<u64> = self.tables.unwritten_identities().collect();
            if !cgroups.is_empty() {
                let claims = self.claims();
                let unwritten = cgroups.iter().filter_map(|id| claims.get(id)).flatten();
                let keys = unwritten.map(|pod| ResourceKey::Workload(pod.name.clone()));
                all.extend(keys.map(|key| (key, error)));
            }
        }
        if let Some(error) = &self.targets_error {
            let imports = self.targets.unwritten();
            all.extend(self.import_keys(imports).map(|key| (key, &**error)));
        }
        let rejected = |(key, reason): (ResourceKey, &str)| Rejected {
            key,
            reason: reason.to_owned(),
        };
        all.into_iter().map(rejected).collect()
    }

    fn import_keys<'a>(
        &self,
        numbers: impl Iterator<Item = &'a u32>,
    ) -> impl Iterator<Item = ResourceKey> {
        let names = numbers.filter_map(|number| self.import_ids.get(number));
        names.cloned().map(ResourceKey::Import)
    }
}
