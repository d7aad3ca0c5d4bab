//! The index as a whole: events in, resources and conditions out.

use std::sync::Arc;

use clusterlink_model::{LocalPeer, PeerName, Snapshot, Update};
use futures::FutureExt;
use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::{
    config::Config,
    publish::{Publisher, Subscription},
    source::Place,
    status::{Condition, ConditionStatus, ControllerStatus},
};

mod cluster;
mod conditions;
mod persistence;
mod random;
mod scale;

/// An index with a subscriber that follows it, over a state directory.
struct Harness {
    index: Index,
    status: Arc<SharedStatus>,
    publisher: Publisher,
    subscription: Subscription,
    /// What the subscriber has put together from its updates.
    seen: Snapshot,
    retry: bool,
    /// How much later it is than by the clock.
    later: SignedDuration,
}

impl Harness {
    /// A controller at the moment when every stream has been listed and is empty.
    fn empty(config: &Config) -> Self {
        let mut harness = Self::starting(config);
        harness.finish_lists();
        harness.settle();
        harness
    }

    /// A controller that has not heard anything yet.
    fn starting(config: &Config) -> Self {
        let leases = Leases::open(config).unwrap();
        Self::provided(Provider::Leases(Box::new(leases)), &config.state_dir)
    }

    fn provided(provider: Provider, state_dir: &std::path::Path) -> Self {
        let denies = ValidDenies::open(state_dir.join("policies.json")).unwrap();
        Self::with(provider, denies)
    }

    fn with(provider: Provider, denies: ValidDenies) -> Self {
        let status = Arc::new(SharedStatus::default());
        let publisher = Publisher::new();
        let subscription = publisher.subscriber().subscribe();
        let index = Index::new(provider, denies, Arc::clone(&status));
        Self {
            index,
            status,
            publisher,
            subscription,
            seen: Snapshot::default(),
            retry: false,
            later: SignedDuration::ZERO,
        }
    }

    fn finish_lists(&mut self) {
        for input in [
            Input::Export(Event::InitDone),
            Input::Import(Event::InitDone),
            Input::Peer(Event::InitDone),
            Input::AccessPolicy(Event::InitDone),
            Input::PrivilegedAccessPolicy(Event::InitDone),
            Input::Service(Event::InitDone),
            Input::EndpointSlice(Event::InitDone),
            Input::Pod(Box::new(Event::InitDone)),
            Input::Node(Box::new(Event::InitDone)),
        ] {
            assert!(!self.index.is_complete());
            self.index.apply(input);
        }
        assert_eq!(self.index.missing(), ["Namespace"]);
        self.index.apply(Input::Namespace(Event::InitDone));
        assert!(self.index.is_complete());
    }

    /// Settles, publishes, and lets the subscriber catch up.
    fn settle(&mut self) {
        let settled = self.index.settle(Timestamp::now() + self.later);
        self.retry = settled.retry;
        self.publisher.publish(settled.changes);
        if let Some(Some(update)) = self.subscription.next().now_or_never() {
            self.seen.apply(update);
        }
    }

    fn apply(&mut self, document: &Value) {
        self.index.apply(applied(document));
        self.settle();
    }

    fn delete(&mut self, document: &Value) {
        self.index.apply(deleted(document));
        self.settle();
    }

    fn problems(&mut self, problems: Vec<Problem>) {
        self.index.apply(Input::Problems(Arc::new(problems)));
        self.index.recheck_held();
        self.settle();
    }

    fn status(&self) -> Arc<ControllerStatus> {
        self.status.snapshot()
    }
}

fn config(directory: &tempfile::TempDir) -> Config {
    let peer = LocalPeer {
        name: PeerName::new("here").unwrap(),
        labels: Default::default(),
    };
    Config::new(
        peer,
        vec!["10.1.0.0/16".parse().unwrap()],
        directory.path().to_owned(),
    )
}

fn name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap();
    ObjectName::new(namespace, name)
}

fn applied(document: &Value) -> Input {
    fn event<K: DeserializeOwned>(document: &Value) -> Event<K> {
        Event::Apply(serde_json::from_value(document.clone()).unwrap())
    }
    match document["kind"].as_str().unwrap() {
        "Export" => Input::Export(event(document)),
        "Import" => Input::Import(event(document)),
        "Peer" => Input::Peer(event(document)),
        "AccessPolicy" => Input::AccessPolicy(event(document)),
        "PrivilegedAccessPolicy" => Input::PrivilegedAccessPolicy(event(document)),
        "Service" => Input::Service(event(document)),
        "EndpointSlice" => Input::EndpointSlice(event(document)),
        "Pod" => Input::Pod(Box::new(event(document))),
        "Node" => Input::Node(Box::new(event(document))),
        kind => panic!("no input for {kind}"),
    }
}

fn deleted(document: &Value) -> Input {
    fn turned<K>(event: Event<K>) -> Event<K> {
        match event {
            Event::Apply(object) => Event::Delete(object),
            other => other,
        }
    }
    match applied(document) {
        Input::Export(event) => Input::Export(turned(event)),
        Input::Import(event) => Input::Import(turned(event)),
        Input::Peer(event) => Input::Peer(turned(event)),
        Input::AccessPolicy(event) => Input::AccessPolicy(turned(event)),
        Input::PrivilegedAccessPolicy(event) => Input::PrivilegedAccessPolicy(turned(event)),
        Input::Service(event) => Input::Service(turned(event)),
        Input::EndpointSlice(event) => Input::EndpointSlice(turned(event)),
        Input::Pod(event) => Input::Pod(Box::new(turned(*event))),
        Input::Node(event) => Input::Node(Box::new(turned(*event))),
        other => other,
    }
}

/// A document of any kind: `at` is `namespace/name`.
fn document(kind: &str, at: &str, body: Value) -> Value {
    let api_version = match kind {
        "Service" | "Pod" | "Node" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        _ => "clusterlink.net/v1alpha1",
    };
    let name = name(at);
    let mut document = json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"namespace": &*name.namespace, "name": &*name.name},
    });
    if kind == "PrivilegedAccessPolicy" {
        document["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("namespace");
    }
    let Value::Object(body) = body else {
        panic!("a body is an object")
    };
    for (key, value) in body {
        match (key.as_str(), value) {
            ("metadata", Value::Object(metadata)) => {
                document["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .extend(metadata);
            }
            (_, value) => document[key] = value,
        }
    }
    document
}

fn export(at: &str, host: &str, port: u16) -> Value {
    document("Export", at, json!({"spec": {"host": host, "port": port}}))
}

fn import(at: &str, port: u16, target_port: u16) -> Value {
    let source = json!({"peer": "east", "exportName": "web", "exportNamespace": "ns"});
    document(
        "Import",
        at,
        json!({"spec": {"port": port, "targetPort": target_port, "sources": [source]}}),
    )
}

fn service(at: &str, port: u16) -> Value {
    document("Service", at, json!({"spec": {"ports": [{"port": port}]}}))
}

fn slice(at: &str, service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|a| json!({"addresses": [a]}))
        .collect();
    document(
        "EndpointSlice",
        at,
        json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"port": 8080}],
            "endpoints": endpoints,
        }),
    )
}

fn policy(kind: &str, at: &str, action: &str, valid: bool) -> Value {
    let to = if valid {
        json!({"workloadSelector": {}})
    } else {
        json!({"workloadSets": ["gold"]})
    };
    document(
        kind,
        at,
        json!({"spec": {"action": action, "from": [{"workloadSelector": {}}], "to": [to]}}),
    )
}

fn problem(kind: Option<&str>, object: Option<&str>) -> Problem {
    Problem {
        place: Place {
            file: "a.yaml".into(),
            document: None,
            line: None,
        },
        kind: kind.map(Into::into),
        object: object.map(Into::into),
        field: None,
        message: "cannot be read".into(),
        stale: true,
    }
}

/// The one condition of that type, which must be there.
fn condition<'a>(conditions: &'a [Condition], kind: &str) -> &'a Condition {
    conditions
        .iter()
        .find(|condition| condition.kind == kind)
        .unwrap()
}

/// All that a subscriber would be given who has nothing.
fn complete(harness: &Harness) -> Update {
    harness
        .publisher
        .subscriber()
        .subscribe()
        .next()
        .now_or_never()
        .flatten()
        .unwrap()
}
