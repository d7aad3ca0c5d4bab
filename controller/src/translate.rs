//! From Kubernetes objects to the model, one file per kind.
//!
//! Here invalid specs become findings, and Kubernetes types stop. The functions are pure: what
//! they need beside the object is given to them by the index.

pub(crate) mod backend;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod node;
pub(crate) mod peer;
pub(crate) mod policy;
pub(crate) mod syntax;
pub(crate) mod workload;
