//! Live flows are judged again whenever something changes that their verdict depends on.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use clusterlink_model::{
    Backend, Client, Export, Labels, LocalPeer, ObjectName, Source, WorkloadAttributes,
    policy::Decision,
};

use crate::{
    arrival::Arrival,
    flow::EndReason,
    link::Link,
    stream::Stream,
    view::{Origins, View},
    worker::abort,
};

/// A flow that is open.
pub(crate) struct Live {
    pub(crate) link: Rc<Link>,
    pub(crate) stream: Rc<Stream>,
    pub(crate) side: Side,
}

/// What the verdict of a flow depends on, by side.
pub(crate) enum Side {
    /// A local client of an import.
    Egress {
        arrival: Box<Arrival>,
        address: SocketAddr,
        import: ObjectName,
        source: Source,
        client: RefCell<Client>,
        /// It is a pod that this node is told of no more.
        is_forgotten: Cell<bool>,
    },
    /// A client of another peer.
    Ingress {
        export: ObjectName,
        workload: RefCell<Option<Arc<WorkloadAttributes>>>,
    },
}

impl Live {
    pub(crate) fn is_ingress_of(&self, link: &Rc<Link>, id: u32) -> bool {
        matches!(self.side, Side::Ingress { .. })
            && self.stream.id == id
            && Rc::ptr_eq(&self.link, link)
    }

    /// The caller attests other attributes of the client.
    pub(crate) fn attested(&self, attributes: Option<Arc<WorkloadAttributes>>) {
        if let Side::Ingress { workload, .. } = &self.side {
            self.stream
                .flow
                .update(|record| record.client = ingress_client(attributes.as_deref()));
            *workload.borrow_mut() = attributes;
        }
    }

    pub(crate) fn abort(&self, reason: EndReason) {
        abort(&self.stream, reason);
    }

    /// Where the client of the flow is, if it is a pod that this node is told of no more.
    pub(crate) fn forgotten_at(&self) -> Option<SocketAddr> {
        match &self.side {
            Side::Egress {
                address,
                is_forgotten,
                ..
            } => is_forgotten.get().then_some(*address),
            Side::Ingress { .. } => None,
        }
    }

    /// Finds out who a forgotten client is; never, if there is nobody to ask.
    pub(crate) async fn look_up(&self, origins: &dyn Origins) -> Client {
        match &self.side {
            Side::Egress {
                arrival, address, ..
            } => arrival.look_up(origins, *address).await.client,
            Side::Ingress { .. } => std::future::pending().await,
        }
    }

    /// Judges the flow by `view`; it ends if it is denied now.
    pub(crate) fn judge(&self, view: &View, origins: &dyn Origins) {
        let now = match &self.side {
            Side::Egress {
                arrival, address, ..
            } => arrival.client(origins, *address),
            Side::Ingress { .. } => Client::Unknown,
        };
        self.judge_as(view, now);
    }

    /// The same, when it is known who a local client is.
    pub(crate) fn judge_as(&self, view: &View, now: Client) {
        let judged = match &self.side {
            Side::Egress {
                arrival,
                address,
                import,
                source,
                client,
                is_forgotten,
            } => {
                is_forgotten.set(arrival.is_forgotten(&client.borrow(), &now));
                let now = arrival.client_after(&client.borrow(), now);
                if *client.borrow() != now {
                    if let Client::Pod { attributes, .. } = &now {
                        self.link.attest(self.stream.id, Some(attributes));
                    }
                    *client.borrow_mut() = now;
                }
                let client = client.borrow();
                egress(view, &client, address.ip(), import, source)
            }
            Side::Ingress { export, workload } => {
                let workload = workload.borrow();
                ingress(view, &self.link, workload.as_deref(), export)
            }
        };
        match judged {
            Ok(decision) if decision.allowed => {}
            Ok(decision) => {
                self.stream
                    .flow
                    .update(|record| record.decision = Some(decision));
                self.abort(EndReason::Denied);
            }
            Err(reason) => self.abort(reason),
        }
    }
}

/// Judges a local client's flow to one source. A source that has left its import gets no new flows
/// and keeps those that it has: sources are moved without losing a connection.
pub(crate) fn egress(
    view: &View,
    client: &Client,
    address: IpAddr,
    import: &ObjectName,
    source: &Source,
) -> Result<Decision, EndReason> {
    if !view.ready {
        return Err(EndReason::NotReady);
    }
    if *client == Client::Unknown {
        return Err(EndReason::IdentityUnknown);
    }
    if *client == Client::Outside && !view.admits_outside(address) {
        return Err(EndReason::Outside);
    }
    let import = view
        .snapshot
        .imports
        .get(import)
        .ok_or(EndReason::Removed)?;
    if !view.snapshot.peers.contains_key(&source.peer) {
        return Err(EndReason::Removed);
    }
    Ok(decide_egress(view, client, import, source))
}

/// The decision alone, for a source of an import that exists.
pub(crate) fn decide_egress(
    view: &View,
    client: &Client,
    import: &clusterlink_model::Import,
    source: &Source,
) -> Decision {
    let LocalPeer { name, labels } = &*view.local;
    let source_labels = view.labels_of(&source.peer);
    view.policies
        .decide_egress((name, labels), client, import, source, source_labels)
}

/// Judges a stream that another peer opened.
pub(crate) fn ingress(
    view: &View,
    link: &Link,
    workload: Option<&WorkloadAttributes>,
    export: &ObjectName,
) -> Result<Decision, EndReason> {
    if !view.ready {
        return Err(EndReason::NotReady);
    }
    match view.snapshot.exports.get(export) {
        Some(export) => Ok(decide_ingress(view, link, workload, export)),
        None => {
            // To a caller that no policy could ever allow, a missing export looks denied.
            let missing = Export {
                name: export.clone(),
                labels: Labels::new(),
                backend: Backend::Unavailable("".into()),
            };
            let decision = decide_ingress(view, link, workload, &missing);
            if decision.allowed {
                Err(EndReason::Removed)
            } else {
                Ok(decision)
            }
        }
    }
}

fn decide_ingress(
    view: &View,
    link: &Link,
    workload: Option<&WorkloadAttributes>,
    export: &Export,
) -> Decision {
    let caller = &link.identity.name;
    let own = view
        .snapshot
        .peers
        .get(caller)
        .and_then(|peer| peer.labels.as_ref());
    let said = link.labels();
    let labels = own.unwrap_or(&said);
    let LocalPeer {
        name,
        labels: own_labels,
    } = &*view.local;
    view.policies
        .decide_ingress((name, own_labels), (caller, labels), workload, export)
}

/// How a local client is shown.
pub(crate) fn egress_client(client: &Client) -> String {
    match client {
        Client::Pod { name, .. } => format!("pod {name}"),
        Client::Host => "host".to_owned(),
        Client::Outside => "outside".to_owned(),
        Client::Unknown => "unknown".to_owned(),
    }
}

/// How a remote client is shown.
pub(crate) fn ingress_client(workload: Option<&WorkloadAttributes>) -> String {
    workload.map_or_else(
        || "host".to_owned(),
        |workload| {
            format!(
                "{}/serviceaccount {}",
                workload.namespace, workload.service_account
            )
        },
    )
}
