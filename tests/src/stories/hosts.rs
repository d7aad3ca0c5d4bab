//! The stage of plain hosts: each peer has a directory of manifests.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Labelled, Share, Side, Stage};
use crate::host::Host;
use crate::peer::Peer;
use crate::pki;
use crate::pod::Pod;
use crate::traffic::{Server, any};
use crate::world::{NAMESPACE, SOON, Verdict, World};

impl Side for Peer {
    fn peer(&self) -> &str {
        self.name()
    }

    fn apply(&self, file: &str, manifests: &[Value]) -> Result<()> {
        self.apply(file, manifests)
    }

    fn withdraw(&self, file: &str) -> Result<()> {
        self.delete(file)
    }

    fn label(&self, object: Labelled<'_>, key: &str, value: Option<&str>) -> Result<()> {
        let (kind, name, file, part) = match object {
            Labelled::Export(name) => ("Export", name, format!("{name}.yaml"), "/metadata"),
            Labelled::Import(name) => ("Import", name, format!("{name}.yaml"), "/metadata"),
            Labelled::Peer(name) => ("Peer", name, "peers.yaml".to_owned(), "/spec"),
            Labelled::Workload(pod) => {
                let name = pod.pod_name();
                ("Pod", name, format!("pod-{name}.yaml"), "/metadata")
            }
        };
        let mut manifests = self.read(&file)?;
        let is = |one: &&mut Value| one["kind"] == kind && one["metadata"]["name"] == name;
        let found = manifests.iter_mut().find(is);
        let found = found.with_context(|| format!("there is no {kind} {name} in {file}"))?;
        let part = found.pointer_mut(part).and_then(Value::as_object_mut);
        let part = part.with_context(|| format!("{kind} {name} is not whole"))?;
        match value {
            Some(value) => part.insert("labels".to_owned(), json!({key: value})),
            None => part.remove("labels"),
        };
        self.apply(&file, &manifests)
    }

    fn flows(&self) -> Result<Value> {
        self.flows()
    }

    fn status(&self) -> Result<Value> {
        self.status()
    }

    fn host(&self) -> &Host {
        self.host()
    }

    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn pid(&self) -> Result<u32> {
        self.pid()
    }

    fn renew(&self, files: &[(&str, &str)]) -> Result<()> {
        let certs = self.certs();
        files
            .iter()
            .try_for_each(|(file, content)| pki::put(&certs, file, content))
    }

    fn take_away(&self, file: &str) -> Result<()> {
        let path = self.certs().join(file);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }
}

impl Stage for World {
    fn west(&self) -> &dyn Side {
        &self.west
    }

    fn east(&self) -> &dyn Side {
        self.east()
    }

    fn soon(&self) -> Duration {
        SOON
    }

    fn refused(&self) -> Verdict {
        Verdict::Refused
    }

    fn share(&self, name: &str, mode: &str, flags: &[&str]) -> Result<Share> {
        let east = self.east();
        let server = Server::start(east.host(), mode, any(0), flags)?;
        let backend = SocketAddr::new(east.host().ipv4(), server.address.port());
        self.export(east, name, 80, backend)?;
        let address = self.import(name, 80, "static", &["east"])?;
        Ok(Share {
            name: name.to_owned(),
            server,
            address,
            ipv6: self.west.import_address(NAMESPACE, name, true)?,
        })
    }

    fn workload(&self, name: &str, change: impl FnOnce(Value) -> Value) -> Result<Pod> {
        self.workload(name, change)
    }

    fn stranger(&self) -> Result<Pod> {
        self.west.host().pod_with_network("unknown")
    }
}
