//! The status of a policy of either kind.

use crate::status::PolicyStatus;

/// `PolicyValid`, with what is in force under the policy's name and what its author may not mean.
pub(super) fn render(
    found: &PolicyStatus,
    observed: &clusterlink_crds::PolicyStatus,
) -> clusterlink_crds::PolicyStatus {
    clusterlink_crds::PolicyStatus {
        conditions: super::conditions(&found.conditions, &observed.conditions),
    }
}
