//! An Import that joins a Service of somebody else.

use std::sync::Arc;

use clusterlink_crds::conditions::IMPORT_SERVICE_VALID;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{
    Cluster, Served, Subject,
    plan::{Plan, delete_slices},
};
use crate::{
    cluster::{merge, ownership, slices},
    status::Finding,
    translate::import,
};

impl Cluster {
    /// An Import that joins a Service.
    pub(super) fn join(
        &mut self,
        subject: &Subject<'_>,
        plan: &mut Plan,
    ) -> (Option<Served>, Finding) {
        let Subject {
            name,
            observed,
            import,
            ..
        } = *subject;
        self.merging.insert(name.clone());
        let service = observed.service.as_deref();
        let own = service.filter(|service| ownership::is_claimed(name, service));
        self.give_up_service(name, own, subject.now, plan);
        let service = service.filter(|_| own.is_none());
        let joined = match merge::join(name, import, service, &observed.foreign_slices) {
            Ok(joined) => joined,
            Err((reason, message)) => {
                delete_slices(&observed.slices, plan);
                let message = format!("Import {name}: {message}");
                return (
                    None,
                    Finding::invalid(IMPORT_SERVICE_VALID, reason, message),
                );
            }
        };
        let sources = import::valid_sources(import);
        let placed = (self.roster).place(name, joined.count, &subject.rejecting);
        let endpoints = placed.agents.into_iter().map(|agent| {
            let said = self.table.get(&agent.node);
            let usable = match said.filter(|said| said.pod == agent.pod) {
                Some(said) => merge::is_usable(&sources, &said.report),
                // A new lease holder has not heard of it yet: what held before goes on.
                None => was_ready(&observed.slices, &agent.node),
            };
            (agent, usable)
        });
        let endpoints = endpoints.collect();
        let wanted = subject.stored_port().map(|target_port| {
            let wanted = slices::Wanted {
                import: name,
                uid: subject.uid,
                families: joined.families,
                port_name: &joined.port_name,
                target_port,
                endpoints,
                left_out: placed.left_out,
            };
            wanted.slices()
        });
        subject.plan_slices(wanted, plan);
        let served = Served {
            addresses: Vec::new(),
            target_port: subject.stored_port(),
        };
        (
            Some(served),
            import::addressable(name, import, joined.remark),
        )
    }
}

fn was_ready(slices: &[Arc<EndpointSlice>], node: &str) -> bool {
    let mut endpoints = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.any(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        endpoint.node_name.as_deref() == Some(node)
            && conditions.and_then(|all| all.ready).unwrap_or(true)
    })
}
