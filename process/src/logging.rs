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

/// What the kernel programs log.
#[derive(Clone, Copy, Debug, Args)]
pub struct KernelLogArgs {
    /// What the kernel programs log of single connects, as target `clusterlink::kernel`: debug
    /// has those that policy refuses, trace those that are steered too. Each line costs a connect
    /// about 0.1 µs.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "CLUSTERLINK_KERNEL_LOG_LEVEL",
        default_value = "error"
    )]
    pub kernel_log_level: KernelLogLevel,
}

/// What the kernel programs log, decided when they are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KernelLogLevel {
    /// Nothing.
    Off,
    /// What should not happen.
    Error,
    /// What an operator should look at.
    Warn,
    /// What a user could notice.
    Info,
    /// Each connect that is refused by policy.
    Debug,
    /// Each connect.
    Trace,
}

impl KernelLogLevel {
    /// The number that the programs know it by.
    pub fn number(self) -> u8 {
        self as u8
    }
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

/// Lets through what the kernel programs were asked for, whatever the log level is.
pub fn with_kernel(filter: EnvFilter, args: &KernelLogArgs) -> anyhow::Result<EnvFilter> {
    let level = args.kernel_log_level.to_possible_value();
    let level = level.expect("no level is hidden");
    let kernel = format!("clusterlink::kernel={}", level.get_name()).parse()?;
    Ok(filter.add_directive(kernel))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_the_numbers_of_the_kernel_programs() {
        let numbers: Vec<_> = KernelLogLevel::value_variants()
            .iter()
            .map(|level| level.number())
            .collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_the_kernel_programs_log_passes_every_filter() {
        let text = |level: &str, kernel_log_level| {
            let args = KernelLogArgs { kernel_log_level };
            let filter = with_kernel(EnvFilter::new(level), &args);
            filter.expect("a filter").to_string()
        };
        let quiet = text("error", KernelLogLevel::Trace);
        assert!(quiet.contains("clusterlink::kernel=trace"), "{quiet}");
        let loud = text("trace", KernelLogLevel::Off);
        assert!(loud.contains("clusterlink::kernel=off"), "{loud}");
    }
}
