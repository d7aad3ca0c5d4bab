//! Logs on standard error.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, fmt};

/// What is logged, and how.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// What is logged: error, warn, info, debug or trace, or directives such as
    /// `info,clusterlink_gateway=debug`.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "CLUSTERLINK_LOG_LEVEL",
        default_value = "info"
    )]
    pub log_level: String,
    /// How log lines look.
    #[arg(
        long,
        value_name = "FORMAT",
        env = "CLUSTERLINK_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Checks the log level.
pub fn filter(args: &LogArgs) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&args.log_level).with_context(|| {
        format!(
            "--log-level {:?} is none of error, warn, info, debug, trace and no directive",
            args.log_level
        )
    })
}

/// Starts logging; to be called once.
pub fn start(filter: EnvFilter, format: LogFormat) {
    let logs = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}
