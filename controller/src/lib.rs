//! The controller: reads manifests as watcher events, checks them, translates them to the model,
//! and hands every subscriber a complete snapshot and then what changed.
//!
//! ```text
//! Source (directory, API server) ─▶ index task ─▶ Subscription: resources for agents
//!                              │        ├───────▶ push server: the same, for the agents of a cluster
//!                              │        ├───────▶ ControllerStatus: conditions for people
//!                           Agents      └───────▶ cluster::Desired: Services and EndpointSlices
//! ```
//! [`start`] runs it in the current process; what it remembers over restarts (the imports' leases
//! and the last valid denies) is in the state directory. Of a cluster's controller
//! ([`start_in_cluster`]) the cluster remembers it.
#![forbid(unsafe_code)]

#[cfg(feature = "api-server")]
mod admin;
pub mod agents;
#[cfg(feature = "api-server")]
pub mod app;
#[cfg(feature = "api-server")]
pub mod authority;
pub mod cluster;
mod config;
mod index;
#[cfg(feature = "api-server")]
pub mod kept_denies;
#[cfg(feature = "api-server")]
pub mod leader;
mod leases;
#[cfg(feature = "api-server")]
mod metrics;
mod publish;
#[cfg(feature = "push")]
pub mod push;
#[cfg(feature = "api-server")]
pub mod rights;
mod run;
pub mod source;
mod state_file;
pub mod status;
mod translate;
mod valid_denies;

pub use config::Config;
pub use publish::{Subscriber, Subscription};
pub use run::{Error, Handle, start, start_in_cluster};
pub use state_file::StateFileError;
pub use status::ControllerStatus;
pub use valid_denies::{DenyPort, Kept};
