//! What is to be ours no more: deleted, or let go, once no node steers its address.

use clusterlink_model::ObjectName;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;

use super::{
    Cluster, Observed,
    plan::{Plan, delete_slices, service_key},
};
use crate::cluster::{
    desired::Write,
    ownership::{self, Standing},
    service,
};

impl Cluster {
    /// An Import that is gone, or cannot have anything.
    pub(super) fn remove(
        &mut self,
        name: &ObjectName,
        observed: &Observed,
        now: Timestamp,
        plan: &mut Plan,
    ) {
        self.merging.remove(name);
        self.ports.release(name);
        self.addresses.remove(name);
        self.give_up_service(name, observed.service.as_deref(), now, plan);
        delete_slices(&observed.slices, plan);
    }

    /// A Service that is to be ours no more, if it ever was.
    pub(super) fn give_up_service(
        &mut self,
        name: &ObjectName,
        service: Option<&Service>,
        now: Timestamp,
        plan: &mut Plan,
    ) {
        let Some(service) = service else {
            self.releases.forget(name);
            return;
        };
        match ownership::standing(name, service, None) {
            Standing::Ours => {
                plan.insert(service_key(name), Write::delete(&service.metadata));
                self.releases.hold(name, service::addresses(service), now);
            }
            Standing::Leaving => self.let_leave(name, service, now, plan),
            Standing::HandedAway => self.hand_away(name, service, now, plan),
            Standing::Adoptable | Standing::NotAdoptable { .. } | Standing::Foreign => {
                self.releases.forget(name);
            }
        }
    }

    /// A Service that is being deleted.
    pub(super) fn let_leave(
        &mut self,
        name: &ObjectName,
        service: &Service,
        now: Timestamp,
        plan: &mut Plan,
    ) {
        if !ownership::has_finalizer(service) {
            self.releases.forget(name);
            return;
        }
        let deleted = service.metadata.deletion_timestamp.as_ref();
        let since = deleted.map_or(now, |time| time.0);
        self.releases.hold(name, service::addresses(service), since);
        if self.releases.is_free(name, now, &self.fleet, &self.table)
            && let Some(patch) = service::finalize(service)
        {
            plan.insert(service_key(name), Write::Patch { patch });
        }
    }

    /// A Service that somebody took over.
    pub(super) fn hand_away(
        &mut self,
        name: &ObjectName,
        service: &Service,
        now: Timestamp,
        plan: &mut Plan,
    ) {
        self.releases.hold(name, service::addresses(service), now);
        let free = self.releases.is_free(name, now, &self.fleet, &self.table);
        if let Some(patch) = service::let_go(service, free) {
            plan.insert(service_key(name), Write::Patch { patch });
        }
    }
}
