//! The writes that one Import needs.

use std::{collections::BTreeMap, num::NonZeroU16, sync::Arc};

use clusterlink_model::ObjectName;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::Subject;
use crate::cluster::{
    desired::{Kind, Write, WriteKey},
    ports::TargetPort,
    service, slices,
};

/// The writes by object; an object that is as it should be has none.
pub(super) type Plan = BTreeMap<WriteKey, Write>;

impl Subject<'_> {
    pub(super) fn wanted(&self) -> service::Wanted<'_> {
        let target_port = match &self.port {
            TargetPort::Stored(port) | TargetPort::Proposed(port) => Some(*port),
            TargetPort::Refused(_) => None,
        };
        service::Wanted {
            import: self.name,
            uid: self.uid,
            port: self.import.spec.port,
            target_port,
        }
    }

    pub(super) fn create(&self, addresses: &[String]) -> Write {
        let wanted = self.wanted();
        Write::Create {
            object: wanted.create(addresses),
            otherwise: (!addresses.is_empty()).then(|| wanted.create(&[])),
        }
    }

    pub(super) fn stored_port(&self) -> Option<NonZeroU16> {
        match self.port {
            TargetPort::Stored(port) => Some(port),
            TargetPort::Proposed(_) | TargetPort::Refused(_) => None,
        }
    }

    /// Without a port that may be used there are no slices to want: those that exist stay until the
    /// new port is stored, and go if there is none.
    pub(super) fn plan_slices(&self, wanted: Option<Vec<EndpointSlice>>, plan: &mut Plan) {
        let Some(wanted) = wanted else {
            if matches!(self.port, TargetPort::Refused(_)) {
                delete_slices(&self.observed.slices, plan);
            }
            return;
        };
        for slice in &wanted {
            let named = |other: &&Arc<EndpointSlice>| other.metadata.name == slice.metadata.name;
            let write = match self.observed.slices.iter().find(named) {
                None => Some(Write::Create {
                    object: serde_json::json!(slice),
                    otherwise: None,
                }),
                // It cannot be changed.
                Some(other) if other.address_type != slice.address_type => {
                    Some(Write::delete(&other.metadata))
                }
                Some(other) => slices::correct(other, slice).map(|patch| Write::Patch { patch }),
            };
            if let Some(write) = write {
                plan.insert(slice_key(slice), write);
            }
        }
        let superfluous = self.observed.slices.iter().filter(|slice| {
            !wanted
                .iter()
                .any(|other| other.metadata.name == slice.metadata.name)
        });
        for slice in superfluous {
            plan.insert(slice_key(slice), Write::delete(&slice.metadata));
        }
    }
}

pub(super) fn delete_slices(slices: &[Arc<EndpointSlice>], plan: &mut Plan) {
    for slice in slices {
        plan.insert(slice_key(slice), Write::delete(&slice.metadata));
    }
}

pub(super) fn service_key(import: &ObjectName) -> WriteKey {
    WriteKey {
        kind: Kind::Service,
        name: import.clone(),
    }
}

fn slice_key(slice: &EndpointSlice) -> WriteKey {
    let metadata = &slice.metadata;
    WriteKey {
        kind: Kind::EndpointSlice,
        name: ObjectName::new(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        ),
    }
}
