//! `clusterlink`: what operators type. The binary is a line; everything is here, where the parts can
//! be tested and `create` can be used by others.

#![forbid(unsafe_code)]

mod admin;
mod cleanup;
pub mod create;
mod flows;
mod options;
mod run;
mod show;
mod status;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Shares services between peers.
#[derive(Debug, Parser)]
#[command(name = "clusterlink", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a fabric's certificate authority, or the certificate of a peer.
    #[command(subcommand)]
    Create(create::CreateCommand),
    /// Run a standalone peer: controller, agent and gateway in one process.
    Run(Box<run::RunArgs>),
    /// Show what a running peer knows: other peers, imports, exports, policies, problems.
    Status(status::StatusArgs),
    /// Show connections: open ones, and the last that ended, with the reason.
    Flows(flows::FlowsArgs),
    /// Remove what a crashed peer left on this host; refuses while it runs.
    Cleanup(cleanup::CleanupArgs),
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether nothing is left half done when the reader of the output goes away.
    fn only_prints(&self) -> bool {
        matches!(
            self,
            Self::Status(_) | Self::Flows(_) | Self::Completions { .. }
        )
    }
}

/// How a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Tables for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

/// Parses the command line, runs the command, and maps errors to exit codes.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.command.only_prints() {
        // `clusterlink status | head` ends with head, as everybody expects.
        sigpipe::reset();
    }
    let result = match cli.command {
        Command::Create(command) => command.run(),
        Command::Run(args) => return run::run(*args),
        Command::Status(args) => status::run(&args),
        Command::Flows(args) => flows::run(&args),
        Command::Cleanup(args) => cleanup::run(&args),
        Command::Completions { shell } => {
            let name = "clusterlink";
            clap_complete::generate(shell, &mut Cli::command(), name, &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clusterlink: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
