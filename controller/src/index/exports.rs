//! Exports that are to be translated again.

use std::sync::Arc;

use clusterlink_model::{ObjectName, Resource, ResourceKey};
use jiff::Timestamp;

use super::{Index, Settled};
use crate::{
    status::{ExportStatus, dated},
    translate::{
        backend,
        export::{self, Host},
        import,
    },
};

impl Index {
    pub(super) fn settle_exports(&mut self, now: Timestamp, settled: &mut Settled) {
        let names = std::mem::take(&mut self.dirty.exports);
        let status = Arc::clone(&self.status);
        let mut board = status.lock();
        for name in names {
            let key = ResourceKey::Export(name.clone());
            let Some(object) = self.exports.get(&name).cloned() else {
                self.withdraw(&name);
                settled.changes.push((key, None));
                board.export(name, None);
                continue;
            };
            let host = export::host(&name, &object);
            let (mut export, mut finding) = export::translate(&name, &object, self.host(&host));
            let service = self.services.get(&host).cloned();
            self.permit(&name, service.as_deref(), &mut export, &mut finding);
            let before = board.exports.get(&name);
            let conditions = dated(
                vec![finding],
                before.map_or(&[], |status| &status.conditions),
                now,
                object.metadata.generation,
            );
            let status = ExportStatus {
                name: name.clone(),
                host: host.name.to_string(),
                port: object.spec.port,
                backend: export.backend.clone(),
                conditions,
                stale: false,
            };
            settled
                .changes
                .push((key, Some(Resource::Export(export.into()))));
            board.export(name, Some((status, &object)));
        }
    }

    /// A Service that is not ours counts before an Import of the same name, since such an Import
    /// only joins it.
    fn host(&self, host: &ObjectName) -> Host<'_> {
        let service = self
            .services
            .get(host)
            .filter(|service| !backend::is_ours(service));
        if let Some(service) = service {
            let slices = self.slices_by_service.get(host);
            let slices = slices.filter_map(|name| self.endpoint_slices.get(name).map(|s| &**s));
            return Host::Service(service, slices.collect());
        }
        match self.imports.get(host) {
            Some(object) => Host::Import {
                port: object.spec.port,
                usable: import::unfit(host, object, false).is_none(),
            },
            None => Host::Missing,
        }
    }
}
