//! The controller in this process, as the agent sees it.

use std::sync::{Arc, Mutex, PoisonError};

use clusterlink_agent::control::{Control, ControlReport, Updates};
use clusterlink_controller::{ControllerStatus, Handle, Subscription};
use clusterlink_model::Update;

/// The controller's status side.
pub(super) struct DirectoryControl {
    handle: Mutex<Option<Handle>>,
}

/// The controller's update side.
pub(super) struct DirectoryUpdates(Subscription);

impl DirectoryControl {
    /// The two sides of a running controller.
    pub(super) fn split(handle: Handle) -> (DirectoryUpdates, Arc<Self>) {
        let updates = DirectoryUpdates(handle.subscribe());
        (
            updates,
            Arc::new(Self {
                handle: Mutex::new(Some(handle)),
            }),
        )
    }

    /// Stops the controller; what it began to write is written.
    pub(super) async fn shutdown(&self) {
        let handle = self
            .handle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(handle) = handle {
            handle.shutdown().await;
        }
    }
}

impl Updates for DirectoryUpdates {
    async fn next(&mut self) -> Option<Update> {
        self.0.next().await
    }
}

impl Control for DirectoryControl {
    fn report(&self) -> ControlReport {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let status = handle.as_ref().map(Handle::status).unwrap_or_default();
        drop(handle);
        translate(&status)
    }
}

/// Both sides have the same form in JSON, which the tests below hold them to.
fn translate(status: &ControllerStatus) -> ControlReport {
    serde_json::to_value(status)
        .and_then(serde_json::from_value)
        .unwrap_or_else(|error| ControlReport {
            problems: vec![clusterlink_agent::control::Problem {
                message: format!("the controller's status cannot be shown: {error}"),
                ..Default::default()
            }],
            ..ControlReport::default()
        })
}
