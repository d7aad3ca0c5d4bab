//! `clusterlink run`: controller, agent and gateway of a standalone peer in one process.

mod args;
mod control;
mod settings;

use std::process::ExitCode;

use anyhow::Context as _;
use clusterlink_agent::{
    app::{self, Parts},
    lock::StateDir,
};
use clusterlink_controller::source::directory::Directory;
use clusterlink_process::{USAGE, limits, logging, signals};
use tracing::info;

pub(crate) use self::args::RunArgs;
use self::{control::DirectoryControl, settings::Settings};

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
    limits::raise_open_files();
    info!(?agent, ?manifests, "the effective settings");
    // The gateway's workers have threads of their own: nothing here delays a connection.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let result = runtime.block_on(async {
        let stop = signals::stop_on_signals("`clusterlink cleanup` removes what is left")?;
        let lock = StateDir::lock(&agent.state_dir)?;
        let source = Directory::open(manifests)?.remember_in(agent.state_dir.join("manifests"));
        let controller = clusterlink_controller::start(controller, source)?;
        let (updates, control) = DirectoryControl::split(controller);
        let parts = Parts::standalone(credentials, updates, control.clone());
        let result = app::run(agent, parts, stop).await;
        control.shutdown().await;
        drop(lock);
        result.map_err(anyhow::Error::from)
    });
    // A manifest that is still being read must not keep the process.
    runtime.shutdown_background();
    result
}
