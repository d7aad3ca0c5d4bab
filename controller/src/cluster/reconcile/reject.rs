//! What becomes of an Import that agents reject, and what its status says then.

use std::sync::Arc;

use clusterlink_crds::conditions::reasons;
use clusterlink_model::ObjectName;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{Cluster, Subject};
use crate::{
    cluster::{ports::TargetPort, rejections::Rejecting, slices},
    status::Finding,
};

/// How many nodes a message names.
const NAMED: usize = 3;

impl Cluster {
    /// The nodes whose agents are no endpoints of an Import.
    pub(super) fn rejecting(
        &mut self,
        name: &ObjectName,
        observed: &[Arc<EndpointSlice>],
    ) -> Rejecting {
        let leads = self.agents.leading_since().is_some();
        let table = leads.then_some(&*self.table);
        let noted = slices::left_out(observed);
        self.rejections.follow(name, noted, table);
        self.rejections.of(name)
    }

    /// An Import that has its port is served by those that do not reject it.
    pub(super) fn tell_rejections(&self, subject: &Subject<'_>, finding: &mut Finding) {
        let rejecting = &subject.rejecting;
        let known: Vec<_> = (rejecting.iter())
            .filter(|(node, _)| self.fleet.contains_key(*node))
            .collect();
        if known.is_empty() || !matches!(subject.port, TargetPort::Stored(_)) {
            return;
        }
        let mut others = self.fleet.values();
        finding.holds = others.any(|one| one.serves() && !rejecting.contains_key(&one.node));
        let (reason, end) = if finding.holds {
            (reasons::NOT_ON_ALL_NODES, "its other agents serve it")
        } else {
            (reasons::NOT_ON_ANY_NODE, "no agent serves it")
        };
        finding.reason = reason;
        // A new lease holder does not know yet what the one before it was told.
        let is_told = known.iter().all(|(_, reason)| reason.is_some());
        let said_before = subject.said_before(finding).filter(|_| !is_told);
        finding.message = said_before.map_or_else(
            || format!("Import {}: {}; {end}", subject.name, words(&known)),
            str::to_owned,
        );
    }
}

impl Subject<'_> {
    /// What the object's status says already, of the same reason.
    fn said_before(&self, finding: &Finding) -> Option<&str> {
        let status = self.import.status.as_ref()?;
        let mut all = status.conditions.iter();
        let same = all.find(|one| one.type_ == finding.kind && one.reason == finding.reason)?;
        Some(&same.message)
    }
}

fn words(rejecting: &[(&Arc<str>, &Option<Arc<str>>)]) -> String {
    let named = rejecting.iter().take(NAMED).map(|(node, reason)| {
        let reason = reason.as_deref();
        let reason = reason.unwrap_or("its agent rejects the Import");
        format!("on node {node}: {reason}")
    });
    let mut words: Vec<_> = named.collect();
    match rejecting.len().saturating_sub(NAMED) {
        0 => {}
        1 => words.push("on one more node".to_owned()),
        more => words.push(format!("on {more} more nodes")),
    }
    words.join("; ")
}
