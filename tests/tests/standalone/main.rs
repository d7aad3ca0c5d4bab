//! Plain Linux hosts that share services, told by manifests in a directory.
//!
//! One program for all of them: each more would link the same crates again.

#![forbid(unsafe_code)]

mod balancing;
mod changes;
mod cli;
mod crash;
mod demo;
mod ends;
mod failover;
mod identity;
mod manifests;
mod outage;
mod policy;
mod scale;
mod transport;
