//! Short ways to write down policies, clients, imports and exports, and one connection each way.

use std::{num::NonZeroU16, sync::Arc};

use crate::{
    Action, Backend, Client, Export, Import, Labels, LbScheme, ObjectName, Operator, PeerName,
    Policy, PolicyName, Requirement, Selector, Source, WorkloadAttributes,
    policy::{Decision, PolicySet},
};

pub(super) const OWN: &str = "here.example";
pub(super) const REMOTE: &str = "there.example";

pub(super) fn own_labels() -> Labels {
    labels([("region", "eu"), ("topology.kubernetes.io/zone", "a")])
}

pub(super) fn remote_labels() -> Labels {
    labels([("region", "us"), ("tier", "gold")])
}

pub(super) fn client_pod() -> Client {
    pod(workload(
        "shop",
        "cart",
        labels([("app", "cart"), ("app.kubernetes.io/name", "cart-server")]),
    ))
}

/// A client of this peer connects to `data/db` at the remote peer, through an import of
/// namespace `shop` with the label `class: gold`.
pub(super) fn egress(policies: Vec<Arc<Policy>>, client: &Client) -> Decision {
    let import = import(
        "shop",
        labels([("class", "gold")]),
        vec![source(REMOTE, "data", "db")],
    );
    PolicySet::new(policies).decide_egress(
        (&peer(OWN), &own_labels()),
        client,
        &import,
        &import.sources[0],
        &remote_labels(),
    )
}

/// A pod of the remote peer connects to the local export `data/db` with the label `class: gold`.
pub(super) fn ingress(policies: Vec<Arc<Policy>>) -> Decision {
    let attested = workload(
        "shop",
        "cart",
        labels([("app.kubernetes.io/name", "cart-server")]),
    );
    PolicySet::new(policies).decide_ingress(
        (&peer(OWN), &own_labels()),
        (&peer(REMOTE), &remote_labels()),
        Some(&attested),
        &export("data", "db", labels([("class", "gold")])),
    )
}

pub(super) fn decided(allowed: bool, policy: PolicyName) -> Decision {
    Decision {
        allowed,
        policy: Some(policy),
    }
}

pub(super) fn peer(name: &str) -> PeerName {
    PeerName::new(name).unwrap()
}

pub(super) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

pub(super) fn anything() -> Vec<Selector> {
    vec![Selector::default()]
}

pub(super) fn where_in(key: &str, values: &[&str]) -> Vec<Selector> {
    selector(
        key,
        Operator::In(values.iter().map(|v| (*v).to_owned()).collect()),
    )
}

pub(super) fn where_not_in(key: &str, values: &[&str]) -> Vec<Selector> {
    selector(
        key,
        Operator::NotIn(values.iter().map(|v| (*v).to_owned()).collect()),
    )
}

pub(super) fn selector(key: &str, operator: Operator) -> Vec<Selector> {
    vec![Selector {
        requirements: vec![Requirement {
            key: key.to_owned(),
            operator,
        }],
    }]
}

pub(super) fn privileged(name: &str) -> PolicyName {
    PolicyName::Privileged(name.into())
}

pub(super) fn namespaced(namespace: &str, name: &str) -> PolicyName {
    PolicyName::Namespaced(ObjectName::new(namespace, name))
}

pub(super) fn allow(name: PolicyName, from: Vec<Selector>, to: Vec<Selector>) -> Arc<Policy> {
    Arc::new(Policy {
        name,
        action: Action::Allow,
        from,
        to,
    })
}

pub(super) fn deny(name: PolicyName, from: Vec<Selector>, to: Vec<Selector>) -> Arc<Policy> {
    Arc::new(Policy {
        name,
        action: Action::Deny,
        from,
        to,
    })
}

pub(super) fn workload(
    namespace: &str,
    service_account: &str,
    labels: Labels,
) -> WorkloadAttributes {
    WorkloadAttributes {
        namespace: namespace.into(),
        service_account: service_account.into(),
        labels,
    }
}

pub(super) fn pod(attributes: WorkloadAttributes) -> Client {
    Client::Pod {
        name: ObjectName::new(attributes.namespace.clone(), "client"),
        attributes: Arc::new(attributes),
    }
}

pub(super) fn source(peer_name: &str, namespace: &str, name: &str) -> Source {
    Source {
        peer: peer(peer_name),
        export: ObjectName::new(namespace, name),
    }
}

pub(super) fn import(namespace: &str, labels: Labels, sources: Vec<Source>) -> Import {
    Import {
        name: ObjectName::new(namespace, "web"),
        labels,
        addresses: Vec::new(),
        port: NonZeroU16::MIN,
        target_port: None,
        sources,
        scheme: LbScheme::Random,
    }
}

pub(super) fn export(namespace: &str, name: &str, labels: Labels) -> Export {
    Export {
        name: ObjectName::new(namespace, name),
        labels,
        backend: Backend::Endpoints(Vec::new()),
    }
}
