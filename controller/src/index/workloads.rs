//! Workloads that are to be translated again.

use clusterlink_model::{Resource, ResourceKey};
use jiff::Timestamp;

use super::{Index, Provider, Settled};
use crate::{
    status::{WorkloadStatus, dated},
    translate::workload,
};

impl Index {
    pub(super) fn settle_workloads(&mut self, now: Timestamp, settled: &mut Settled) {
        let names = std::mem::take(&mut self.dirty.workloads);
        let mut board = self.status.lock();
        for name in names {
            let key = ResourceKey::Workload(name.clone());
            let pod = self.pods.get(&name);
            let translated = pod.and_then(|pod| Some((pod, workload::translate(&name, pod)?)));
            let Some((pod, (mut workload, finding))) = translated else {
                settled.changes.push((key, None));
                board.workloads.set(name, None);
                continue;
            };
            if matches!(self.provider, Provider::Cluster(_)) {
                // A kubelet makes the cgroups: whoever may write a Pod must not choose one.
                workload.cgroup = None;
            }
            let before = board.workloads.get(&name);
            let status = WorkloadStatus {
                name: name.clone(),
                service_account: workload.attributes.service_account.clone(),
                cgroup: workload.cgroup.clone(),
                addresses: workload.addresses.clone(),
                conditions: dated(
                    vec![finding],
                    before.map_or(&[], |status| &status.conditions),
                    now,
                    pod.metadata.generation,
                ),
                stale: false,
            };
            settled
                .changes
                .push((key, Some(Resource::Workload(workload.into()))));
            board.workloads.set(name, Some(status));
        }
    }
}
