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

#[cfg(test)]
mod tests {
    use clusterlink_controller::status::{
        ExportStatus, ImportStatus, PeerObjectStatus, PolicyStatus, SourceStatus, WorkloadStatus,
    };
    use clusterlink_model::{Action, Backend, LbScheme, ObjectName, PolicyName};

    use super::*;

    #[test]
    fn every_kind_of_object_reaches_the_status() {
        let name = ObjectName::new("shop", "web");
        let status = ControllerStatus {
            generation: 1,
            complete: true,
            problems: Vec::new(),
            imports: vec![Arc::new(ImportStatus {
                name: name.clone(),
                port: 80,
                addresses: vec![[10, 114, 0, 1].into()],
                scheme: LbScheme::RoundRobin,
                target_port: Some(12_000),
                sources: vec![SourceStatus {
                    peer: "east".to_owned(),
                    export_name: "web".to_owned(),
                    export_namespace: "shop".to_owned(),
                    invalid: None,
                }],
                conditions: Vec::new(),
                stale: false,
            })],
            exports: vec![Arc::new(ExportStatus {
                name: name.clone(),
                host: "web".to_owned(),
                port: 80,
                backend: Backend::Import(name.clone()),
                conditions: Vec::new(),
                stale: false,
            })],
            peers: vec![Arc::new(PeerObjectStatus {
                name: name.clone(),
                peer: "east".parse().ok(),
                gateways: Vec::new(),
                labels: None,
                conditions: Vec::new(),
                stale: true,
            })],
            policies: vec![Arc::new(PolicyStatus {
                name: PolicyName::Namespaced(name.clone()),
                in_force: Some(Action::Deny),
                warnings: Vec::new(),
                conditions: Vec::new(),
                stale: false,
            })],
            workloads: vec![Arc::new(WorkloadStatus {
                name: name.clone(),
                service_account: "default".into(),
                cgroup: Some("web".into()),
                addresses: Vec::new(),
                conditions: Vec::new(),
                stale: false,
            })],
        };
        let report = translate(&status);
        assert_eq!(report.problems, []);
        assert_eq!(report.imports[0].sources[0].export_name, "web");
        assert_eq!(report.exports[0].name, name);
        assert!(report.peers[0].stale);
        assert_eq!(report.policies[0].in_force, Some(Action::Deny));
        assert_eq!(report.workloads[0].cgroup.as_deref(), Some("web"));
    }
}
