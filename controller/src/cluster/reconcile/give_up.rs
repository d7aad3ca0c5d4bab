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
    release::{Asked, Release},
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
            self.releases.forget(name, now);
            return;
        };
        match ownership::standing(name, service, None) {
            Standing::Ours => {
                plan.insert(service_key(name), Write::delete(&service.metadata));
                self.releases.hold(name, release(service, now));
            }
            Standing::Leaving => self.let_leave(name, service, now, plan),
            Standing::HandedAway => self.hand_away(name, service, now, plan),
            Standing::Adoptable | Standing::NotAdoptable { .. } | Standing::Foreign => {
                self.releases.forget(name, now);
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
            self.releases.forget(name, now);
            return;
        }
        let deleted = service.metadata.deletion_timestamp.as_ref();
        let since = deleted.map_or(now, |time| time.0);
        self.releases.hold(name, release(service, since));
        if self.is_free(name, now)
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
        self.releases.hold(name, release(service, now));
        let free = self.is_free(name, now);
        if let Some(patch) = service::let_go(service, free) {
            plan.insert(service_key(name), Write::Patch { patch });
        }
    }

    fn is_free(&mut self, name: &ObjectName, now: Timestamp) -> bool {
        let asked = Asked {
            now,
            leading: self.agents.leading_since(),
            roll: &self.roll,
            table: &self.table,
        };
        self.releases.is_free(name, &asked)
    }
}

fn release(service: &Service, since: Timestamp) -> Release {
    let created = service.metadata.creation_timestamp.as_ref();
    Release {
        uid: service.metadata.uid.clone().unwrap_or_default(),
        addresses: service::addresses(service).into_iter().collect(),
        // As if it had always been there.
        created: created.map_or(Timestamp::MIN, |time| time.0),
        since,
    }
}
