//! Two and more gateways on loopback, with origins told by the test instead of a kernel.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

mod relay;
mod returning;
mod revocation;
mod service_path;
mod support;
