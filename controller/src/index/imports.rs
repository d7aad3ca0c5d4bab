//! Imports that are to be translated again, and the leases that they hold.

use std::{collections::BTreeMap, error::Error, num::NonZeroU16, sync::Arc};

use clusterlink_crds::conditions::{IMPORT_SERVICE_VALID, IMPORT_TARGET_PORT_VALID, reasons};
use clusterlink_model::{Import, ObjectName, Resource, ResourceKey};
use jiff::Timestamp;

use super::{Index, Provider, Settled};
use crate::{
    cluster::ports,
    leases::Leases,
    state_file::StateFileError,
    status::{Finding, ImportStatus, dated},
    translate::{backend, import},
};

/// What an Import becomes.
struct Judged {
    object: Arc<clusterlink_crds::Import>,
    /// `None` if it is not handed out.
    import: Option<Import>,
    /// The target port that is to be, where it is not handed out yet.
    proposed_port: Option<NonZeroU16>,
    findings: Vec<Finding>,
}

impl Index {
    pub(super) fn settle_imports(&mut self, now: Timestamp, settled: &mut Settled) {
        let mut judged: BTreeMap<ObjectName, Option<Judged>> = BTreeMap::new();
        while !self.dirty.imports.is_empty() {
            let mut names: Vec<_> = std::mem::take(&mut self.dirty.imports)
                .into_iter()
                .collect();
            names.sort_by_cached_key(|name| self.turn(name));
            for name in names {
                let result = self.judge_import(&name, now);
                self.dirty
                    .exports
                    .extend(self.exports_by_host.get(&name).cloned());
                judged.insert(name, result);
            }
            // What was freed may be what others wait for.
            let mut woken = match &mut self.provider {
                Provider::Leases(leases) => leases.take_woken(),
                Provider::Cluster(cluster) => cluster.take_woken(),
            };
            self.dirty.imports.append(&mut woken);
        }
        match &mut self.provider {
            Provider::Leases(leases) => {
                if let Err(error) = leases.save() {
                    settled.retry = true;
                    self.withhold_unsaved(&mut judged, &error);
                }
            }
            Provider::Cluster(cluster) => settled.wake = cluster.finish(now),
        }
        let mut board = self.status.lock();
        for (name, judged) in judged {
            let key = ResourceKey::Import(name.clone());
            let Some(Judged {
                object,
                import,
                proposed_port,
                findings,
            }) = judged
            else {
                settled.changes.push((key, None));
                board.import(name, None);
                continue;
            };
            let before = board.imports.get(&name);
            let status = ImportStatus {
                name: name.clone(),
                port: object.spec.port,
                addresses: import
                    .as_ref()
                    .map_or_else(Vec::new, |import| import.addresses.clone()),
                scheme: import::scheme(object.spec.lb_scheme),
                target_port: import
                    .as_ref()
                    .and_then(|import| import.target_port)
                    .or(proposed_port)
                    .map(NonZeroU16::get),
                sources: import::sources(&object),
                conditions: dated(
                    findings,
                    before.map_or(&[], |status| &status.conditions),
                    now,
                    object.metadata.generation,
                ),
                stale: false,
            };
            settled
                .changes
                .push((key, import.map(|import| Resource::Import(import.into()))));
            board.import(name, Some((status, &object)));
        }
    }

    /// In which order Imports get leases: those first that only give theirs back, then those that
    /// ask for a certain port, and among them the oldest.
    fn turn(&self, name: &ObjectName) -> (u8, u64, ObjectName) {
        let Some(object) = self.imports.get(name) else {
            return (0, 0, name.clone());
        };
        let explicit = object.spec.target_port.is_some_and(|port| port != 0);
        (
            if explicit { 1 } else { 2 },
            import::age(object),
            name.clone(),
        )
    }

    fn judge_import(&mut self, name: &ObjectName, now: Timestamp) -> Option<Judged> {
        let object = self.imports.get(name).cloned();
        let unreadable = object.is_none() && self.may_be_unreadable("Import", &name.to_string());
        let leases = match &mut self.provider {
            Provider::Leases(leases) => leases,
            Provider::Cluster(_) if unreadable => {
                self.held_imports.insert(name.clone());
                return None;
            }
            Provider::Cluster(_) => {
                let outcome = self.reconcile_import(name, now)?;
                let import = outcome.served.and_then(|served| {
                    let object = object.as_ref()?;
                    import::translate(name, object, served.addresses, served.target_port)
                });
                return Some(Judged {
                    object: object?,
                    import,
                    proposed_port: outcome.target_port,
                    findings: outcome.findings,
                });
            }
        };
        let Some(object) = object else {
            if unreadable && leases.is_from_before(name) {
                self.held_imports.insert(name.clone());
            } else {
                leases.release(name);
            }
            return None;
        };
        leases.seen(name);
        let foreign_service = self
            .services
            .get(name)
            .is_some_and(|service| !backend::is_ours(service));
        if let Some(finding) = import::unfit(name, &object, foreign_service) {
            leases.release(name);
            return Some(Judged {
                object,
                import: None,
                proposed_port: None,
                findings: vec![ports::withheld(name, &finding), finding],
            });
        }
        let (addresses, leased) = leases.addresses(name);
        let service_finding = match leased {
            Ok(()) => import::addressable(name, &object, String::new()),
            Err(error) => Finding::invalid(
                IMPORT_SERVICE_VALID,
                reasons::ADDRESSES_EXHAUSTED,
                format!("Import {name}: {error}"),
            ),
        };
        let (target_port, port_finding) = lease_target_port(leases, name, &object);
        let import = if addresses.is_empty() {
            None
        } else {
            import::translate(name, &object, addresses, target_port)
        };
        Some(Judged {
            object,
            import,
            proposed_port: None,
            findings: vec![service_finding, port_finding],
        })
    }

    /// A lease that is not stored could be another Import's after a restart: it may not be used.
    fn withhold_unsaved(
        &mut self,
        judged: &mut BTreeMap<ObjectName, Option<Judged>>,
        error: &StateFileError,
    ) {
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            cause = format!("{cause}: {error}");
            source = error.source();
        }
        tracing::error!(error = %cause, "cannot store leases");
        let Provider::Leases(leases) = &self.provider else {
            return;
        };
        let unsaved = leases.unsaved();
        for name in unsaved.addresses.union(&unsaved.ports) {
            let Some(Some(judged)) = judged.get_mut(name) else {
                continue;
            };
            let finding = |kind| {
                let message = format!(
                    "Import {name}: its lease is not stored, so it is not used yet: {cause}"
                );
                Finding::invalid(kind, reasons::LEASE_NOT_STORED, message)
            };
            if unsaved.addresses.contains(name) {
                judged.import = None;
                judged.findings = vec![finding(IMPORT_SERVICE_VALID)];
            } else if let Some(import) = &mut judged.import {
                import.target_port = None;
                judged
                    .findings
                    .retain(|finding| finding.kind != IMPORT_TARGET_PORT_VALID);
                judged.findings.push(finding(IMPORT_TARGET_PORT_VALID));
            }
            self.dirty.imports.insert(name.clone());
        }
    }
}

fn lease_target_port(
    leases: &mut Leases,
    name: &ObjectName,
    object: &clusterlink_crds::Import,
) -> (Option<NonZeroU16>, Finding) {
    let requested = object.spec.target_port.and_then(NonZeroU16::new);
    let leased = leases.target_port(name, import::age(object), requested);
    let finding = ports::finding(name, requested, leased.as_ref().copied());
    (leased.ok(), finding)
}
