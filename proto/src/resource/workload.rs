use std::sync::Arc;

use clusterlink_model::{Workload, WorkloadAttributes};

use crate::{
    invalid::Invalid,
    parts::{address_list, addresses, present},
    wire,
};

impl From<&Workload> for wire::Workload {
    fn from(workload: &Workload) -> Self {
        let attributes = &workload.attributes;
        Self {
            name: Some((&workload.name).into()),
            service_account: attributes.service_account.as_ref().to_owned(),
            labels: attributes.labels.clone(),
            namespace: attributes.namespace.as_ref().to_owned(),
            cgroup: workload.cgroup.as_deref().map(str::to_owned),
            addresses: address_list(&workload.addresses),
            uids: (workload.uids.iter())
                .map(|uid| uid.as_ref().to_owned())
                .collect(),
            node: workload.node.as_deref().map(str::to_owned),
            host_network: workload.host_network,
        }
    }
}

impl TryFrom<wire::Workload> for Workload {
    type Error = Invalid;

    fn try_from(workload: wire::Workload) -> Result<Self, Invalid> {
        Ok(Self {
            name: present("name", workload.name)?.into(),
            attributes: Arc::new(WorkloadAttributes {
                namespace: workload.namespace.into(),
                service_account: workload.service_account.into(),
                labels: workload.labels,
            }),
            cgroup: workload.cgroup.map(Into::into),
            addresses: addresses("addresses", &workload.addresses)?,
            uids: workload.uids.into_iter().map(Into::into).collect(),
            node: workload.node.map(Into::into),
            host_network: workload.host_network,
        })
    }
}
