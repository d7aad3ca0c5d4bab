//! How long an agent's stream may go on.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{LivePods, auth::Identity};

/// Watches for what ends a stream from outside.
#[derive(Debug)]
pub(super) struct Guard {
    pod_uid: Arc<str>,
    expires: Instant,
    live: watch::Receiver<LivePods>,
    live_is_told: bool,
    /// The pod was among the live ones.
    seen: bool,
    /// When it has to be.
    seen_until: Instant,
    stop: CancellationToken,
}

impl Guard {
    pub(super) fn new(
        identity: &Identity,
        live: watch::Receiver<LivePods>,
        unseen_pod: Duration,
        stop: CancellationToken,
    ) -> Self {
        let left = (identity.expires.duration_since(SystemTime::now())).unwrap_or_default();
        let now = Instant::now();
        // Tokens live for hours; one that says centuries must not overflow the clock.
        let longest = Duration::from_secs(10 * 365 * 24 * 3_600);
        Self {
            pod_uid: Arc::clone(&identity.pod_uid),
            expires: now + left.min(longest),
            live,
            live_is_told: true,
            seen: false,
            seen_until: now + unseen_pod,
            stop,
        }
    }

    /// Waits until the stream has to end, and says why. May be cancelled.
    pub(super) async fn over(&mut self) -> Status {
        loop {
            let pod =
                (self.live.borrow_and_update().as_ref()).map(|live| live.contains(&self.pod_uid));
            self.seen |= pod == Some(true);
            if pod == Some(false) && (self.seen || Instant::now() >= self.seen_until) {
                return Status::permission_denied("the pod that the token is bound to is gone");
            }
            tokio::select! {
                () = self.stop.cancelled() => {
                    return Status::unavailable("the controller stops: connect again");
                }
                () = sleep_until(self.expires) => {
                    return Status::unauthenticated("the token has expired: connect with a new one");
                }
                () = sleep_until(self.seen_until), if pod == Some(false) => {}
                changed = self.live.changed(), if self.live_is_told => {
                    self.live_is_told = changed.is_ok();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
