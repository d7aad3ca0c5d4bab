//! The status of an Export.

use crate::status::ExportStatus;

/// `ExportValid`, as it was found.
pub(super) fn render(
    found: &ExportStatus,
    observed: &clusterlink_crds::ExportStatus,
) -> clusterlink_crds::ExportStatus {
    clusterlink_crds::ExportStatus {
        conditions: super::conditions(&found.conditions, &observed.conditions),
    }
}
