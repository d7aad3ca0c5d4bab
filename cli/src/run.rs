//! `clusterlink run`: controller, agent and gateway of a standalone peer in one process.

mod args;
mod control;
mod settings;

use std::process::ExitCode;

use anyhow::Context as _;
use clusterlink_agent::{app, lock::StateDir};
use clusterlink_controller::source::directory::Directory;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use self::args::RunArgs;
use self::{control::DirectoryControl, settings::Settings};
use crate::logging;

/// The exit code for wrong flags, as clap has it.
const USAGE: u8 = 2;

/// Runs until a signal, and maps errors to exit codes.
pub(crate) fn run(args: RunArgs) -> ExitCode {
    let settings = match Settings::check(args) {
        Ok(settings) => settings,
        Err(problems) => {
            for problem in problems {
                eprintln!("clusterlink run: {problem}");
            }
            return ExitCode::from(USAGE);
        }
    };
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clusterlink run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: Settings) -> anyhow::Result<()> {
    let Settings {
        filter,
        log_format,
        agent,
        controller,
        credentials,
        manifests,
    } = settings;
    logging::start(filter, log_format);
    info!(?agent, ?manifests, "the effective settings");
    // The gateway's workers have threads of their own: nothing here delays a connection.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let result = runtime.block_on(async {
        let stop = stop_on_signals()?;
        let lock = StateDir::lock(&agent.state_dir)?;
        let controller = clusterlink_controller::start(controller, Directory::open(manifests)?)?;
        let (updates, control) = DirectoryControl::split(controller);
        let result = app::run(agent, credentials, updates, control.clone(), stop).await;
        control.shutdown().await;
        drop(lock);
        result.map_err(anyhow::Error::from)
    });
    // A manifest that is still being read must not keep the process.
    runtime.shutdown_background();
    result
}

/// The first SIGTERM or SIGINT asks to stop, the second ends the process at once.
fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            if asked.is_cancelled() {
                warn!("asked twice: leaving at once; `clusterlink cleanup` removes what is left");
                std::process::exit(130);
            }
            asked.cancel();
        }
    });
    Ok(stop)
}
