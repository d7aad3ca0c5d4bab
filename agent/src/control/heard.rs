//! Signs of life of the controller.

use tokio::{sync::watch, time::Instant};

/// When the controller was last heard from *with all that it knows being told to this node*: not
/// before the snapshot of a stream is complete. What the node steers depends on it.
#[derive(Clone, Debug)]
pub struct Heard(watch::Receiver<Instant>);

impl Heard {
    /// The time that `times` holds now stands for no contact; every later one does.
    pub fn new(mut times: watch::Receiver<Instant>) -> Self {
        times.mark_unchanged();
        Self(times)
    }

    /// A contact since the last call.
    pub(crate) fn take(&mut self) -> Option<Instant> {
        let new = self.0.has_changed().unwrap_or(false);
        new.then(|| *self.0.borrow_and_update())
    }
}
