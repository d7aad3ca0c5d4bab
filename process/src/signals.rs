//! A stop on request, and at once when asked twice.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// The first SIGTERM or SIGINT asks to stop, the second ends the process at once; `remark` says
/// what that may leave behind.
///
/// # Errors
/// When the process cannot listen for signals.
pub fn stop_on_signals(remark: &'static str) -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            if asked.is_cancelled() {
                warn!("asked twice: leaving at once; {remark}");
                std::process::exit(130);
            }
            asked.cancel();
        }
    });
    Ok(stop)
}
