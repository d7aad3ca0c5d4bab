//! What every process of ours has in common, whatever it does: logs, limits, settings of which all
//! wrong ones are told at once, a stop on signals, and readiness with names.
#![forbid(unsafe_code)]

pub mod limits;
pub mod logging;
pub mod readiness;
pub mod settings;
pub mod signals;

/// The exit code for wrong flags, as clap has it.
pub const USAGE: u8 = 2;
