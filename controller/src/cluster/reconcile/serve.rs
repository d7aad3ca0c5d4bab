//! An Import with a Service of its own.

use clusterlink_crds::{
    conditions::{IMPORT_SERVICE_VALID, reasons},
    labels,
};
use clusterlink_model::ObjectName;
use k8s_openapi::api::core::v1::Service;

use super::{
    Cluster, Served, Subject,
    plan::{Plan, delete_slices, service_key},
};
use crate::{
    cluster::{
        desired::Write,
        ownership::{self, Standing},
        placement, service, slices,
    },
    status::Finding,
    translate::import,
};

impl Cluster {
    /// An Import with a Service of its own.
    pub(super) fn serve(
        &mut self,
        subject: &Subject<'_>,
        plan: &mut Plan,
    ) -> (Option<Served>, Finding) {
        let Subject { name, observed, .. } = *subject;
        self.merging.remove(name);
        let invalid = |reason, what: &str| {
            let message = format!("Import {name}: {what}");
            (
                None,
                Finding::invalid(IMPORT_SERVICE_VALID, reason, message),
            )
        };
        let Some(service) = &observed.service else {
            let before = self.addresses.get(name).map_or(&[][..], Vec::as_slice);
            plan.insert(service_key(name), subject.create(before));
            self.releases.forget(name, subject.now);
            return invalid(reasons::SERVICE_PENDING, "its Service is being made");
        };
        let foreign = observed.foreign_slices.first();
        let foreign = foreign.and_then(|slice| slice.metadata.name.as_deref());
        let standing = ownership::standing(name, service, foreign);
        if standing != Standing::Ours {
            delete_slices(&observed.slices, plan);
        }
        if !matches!(standing, Standing::Leaving | Standing::HandedAway) {
            self.releases.forget(name, subject.now);
        }
        match standing {
            Standing::Ours => self.serve_ours(subject, service, foreign, plan),
            Standing::Leaving => {
                // The next one is to have the same.
                self.addresses
                    .insert(name.clone(), service::address_texts(service));
                self.let_leave(subject.name, service, subject.now, plan);
                invalid(
                    reasons::SERVICE_TERMINATING,
                    &format!(
                        "Service {name} is being deleted; it is made again once every agent has let go of its address"
                    ),
                )
            }
            Standing::HandedAway => {
                self.hand_away(name, service, subject.now, plan);
                invalid(reasons::SERVICE_HANDED_AWAY, &handed_away(name))
            }
            Standing::Adoptable => {
                if let Some(patch) = subject.wanted().correct(service) {
                    plan.insert(service_key(name), Write::Patch { patch });
                }
                invalid(
                    reasons::SERVICE_PENDING,
                    &format!("Service {name} is being adopted"),
                )
            }
            Standing::NotAdoptable { reason, message } => invalid(reason, &message),
            Standing::Foreign => invalid(reasons::SERVICE_NOT_OWNED, &not_owned(name)),
        }
    }

    fn serve_ours(
        &mut self,
        subject: &Subject<'_>,
        service: &Service,
        foreign: Option<&str>,
        plan: &mut Plan,
    ) -> (Option<Served>, Finding) {
        let name = subject.name;
        self.addresses
            .insert(name.clone(), service::address_texts(service));
        if let Some(patch) = subject.wanted().correct(service) {
            plan.insert(service_key(name), Write::Patch { patch });
        }
        let placed = (self.roster).place(name, placement::MOST, &subject.rejecting);
        let wanted = subject.stored_port().map(|target_port| {
            let wanted = slices::Wanted {
                import: name,
                uid: subject.uid,
                families: slices::families(service),
                port_name: "",
                target_port,
                endpoints: (placed.agents.into_iter())
                    .map(|agent| (agent, true))
                    .collect(),
                left_out: placed.left_out,
            };
            wanted.slices()
        });
        subject.plan_slices(wanted, plan);
        let addresses = service::addresses(service);
        // Before the Service bears both, its address could become another's while it is steered.
        let is_bound = ownership::has_finalizer(service)
            && service
                .metadata
                .owner_references
                .iter()
                .flatten()
                .any(|owner| owner.uid == subject.uid);
        if !is_bound || addresses.is_empty() {
            let message = format!("Import {name}: Service {name} is being corrected");
            return (
                None,
                Finding::invalid(IMPORT_SERVICE_VALID, reasons::SERVICE_PENDING, message),
            );
        }
        self.releases.reclaim(name, &addresses);
        let served = Served {
            addresses,
            target_port: subject.stored_port(),
        };
        let finding = match foreign {
            None => import::addressable(name, subject.import, String::new()),
            Some(slice) => Finding::invalid(
                IMPORT_SERVICE_VALID,
                reasons::SERVICE_HAS_FOREIGN_SLICES,
                format!(
                    "Import {name}: EndpointSlice {slice} of somebody else joins its Service, so connections that are not steered may end there: delete the slice"
                ),
            ),
        };
        (Some(served), finding)
    }
}

fn not_owned(name: &ObjectName) -> String {
    format!(
        "a Service {name} exists that was not made for this Import, and is left alone: rename the Import, delete the Service, or give it the labels {}",
        our_labels(name)
    )
}

fn handed_away(name: &ObjectName) -> String {
    format!(
        "Service {name} was handed away, since its label {} is not {} any more; it is left alone once every agent has let go of its address. To have it back, give it the labels {}",
        labels::MANAGED_BY,
        labels::MANAGER,
        our_labels(name)
    )
}

fn our_labels(name: &ObjectName) -> String {
    ownership::import_labels(name)
        .map(|(key, value)| format!("{key}: {value}"))
        .join(", ")
}
