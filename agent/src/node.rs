//! The process `clusterlink-agent`: a node of a cluster, told by its controller what there is.

mod args;
mod settings;
pub mod upstream;

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser as _;
use clusterlink_process::{USAGE, limits, logging, signals};
use clusterlink_proto::NodeReport;
use tokio::sync::watch;
use tracing::info;

use self::{
    args::{CleanupArgs, Cli, Command},
    settings::Settings,
};
use crate::{
    app::{self, NodeLink, Parts},
    boot,
    last_state::{LastContact, LastState, Origin, Stored},
    lock::StateDir,
    released::{Released, ReleasedFile},
    state::Steered,
};

/// Parses the command line, runs until a signal, and maps errors to exit codes.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Cleanup(args)) => cleanup(&args),
        None => match Settings::check(cli.run) {
            Ok(settings) => serve(settings),
            Err(problems) => {
                for problem in problems {
                    eprintln!("clusterlink-agent: {problem}");
                }
                return ExitCode::from(USAGE);
            }
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clusterlink-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: Settings) -> anyhow::Result<()> {
    let Settings {
        filter,
        log_format,
        agent,
        credentials,
        upstream,
    } = settings;
    logging::start(filter, log_format);
    limits::raise_open_files();
    info!(?agent, ?upstream, "the effective settings");
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let stop = signals::stop_on_signals("`clusterlink-agent cleanup` removes what is left")?;
        let lock = StateDir::lock(&agent.state_dir)?;
        let boot = boot::id().context("cannot read which boot of the node this is")?;
        let origin = Origin {
            boot: boot.clone(),
            peer: agent.local.name.clone(),
            node: upstream.node.clone(),
        };
        let stored = Stored::read(&agent.state_dir, origin);
        // Until the node was looked at, it is not ready.
        let (report, reports) = watch::channel(Arc::new(NodeReport {
            software: upstream.software.clone(),
            waits_for: vec!["the start of the agent".to_owned()],
            ..NodeReport::default()
        }));
        let steered = Steered::default();
        let released_file = ReleasedFile::open(&agent.state_dir, boot.clone());
        let released = Released::new(released_file.addresses());
        let inputs = upstream::Inputs {
            boot: boot.clone(),
            kept: stored.snapshot().cloned(),
            report: reports,
            steered: steered.subscribe(),
            released: released.clone(),
        };
        let upstream = upstream::connect(&upstream, inputs);
        let updates = LastState::new(stored, upstream.updates);
        let link = NodeLink {
            report,
            heard: upstream.heard,
            steered,
            released,
            released_file,
            last_contact: LastContact::open(&agent.state_dir, boot),
            keeper: updates.keeper(),
            lookup: upstream.lookup,
        };
        let result = app::run(agent, Parts::node(credentials, updates, link), stop).await;
        drop(lock);
        result.map_err(anyhow::Error::from)
    });
    runtime.shutdown_background();
    result
}

/// The gateway's workers have threads of their own: nothing here delays a connection.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")
}

/// Removes what agents left on this node, and says what that was.
fn cleanup(args: &CleanupArgs) -> anyhow::Result<()> {
    let directory = &args.dirs.state_dir;
    let is_new = !directory.exists();
    let removed = runtime()?.block_on(async {
        let _lock = StateDir::lock(directory)?;
        anyhow::Ok(app::cleanup(directory, args.dirs.bpf_dir.as_deref(), &args.dirs.admin).await?)
    })?;
    if is_new {
        std::fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    if removed.is_empty() {
        println!("nothing to remove");
    }
    for item in removed {
        println!("removed {item}");
    }
    Ok(())
}
