//! The custom resources of group `clusterlink.net`: their types, their condition types and
//! reasons, the labels and annotations around them, and the manifests of their definitions.
//!
//! There is no client and no runtime here. What a field means to a user is said in its
//! documentation, which `kubectl explain` shows; what a field may hold is said in its schema, which
//! the API server and the manifest directory of a standalone peer both enforce.
#![forbid(unsafe_code)]
#![expect(
    clippy::duplicated_attributes,
    reason = "each printer column of a kind repeats the names of its parameters"
)]

pub mod conditions;
mod export;
mod import;
pub mod labels;
mod manifests;
mod peer;
mod policy;
mod schema;
pub mod wrong;

pub use export::{Export, ExportSpec, ExportStatus};
pub use import::{Import, ImportSource, ImportSourceStatus, ImportSpec, ImportStatus, LbScheme};
pub use manifests::{definitions, manifests};
pub use peer::{Gateway, Peer, PeerSpec, PeerStatus};
pub use policy::{
    AccessPolicy, PolicyAction, PolicySpec, PolicyStatus, PrivilegedAccessPolicy,
    PrivilegedPolicySpec, SELECTOR_OR_SETS_RULE, WorkloadSetOrSelector,
};

/// The API group of every kind here.
pub const GROUP: &str = "clusterlink.net";

/// The one version of the group.
pub const VERSION: &str = "v1alpha1";

/// `apiVersion` of every kind here.
pub const API_VERSION: &str = "clusterlink.net/v1alpha1";
