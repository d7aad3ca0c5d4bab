//! How a connection of a local client reached this gateway, and what that tells of it.

use std::{net::SocketAddr, os::fd::AsFd};

use clusterlink_model::Client;
use tokio::net::TcpStream;

use crate::{
    socket,
    view::{Connection, Found, Origin, Origins},
    worker::Worker,
};

/// Which kind of listener accepted a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// The one that the kernel steers connects to.
    Steering,
    /// One that gets connections to leased ports: all that the kernel hands over, or those to its own.
    ServicePath,
}

/// A connection that is for an import.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    /// Its connect was steered, and the kernel has a record of it.
    Steered(Origin),
    /// It came by the Service path: kube-proxy or a CNI sent it to the leased port of an import.
    Service {
        /// The number of the import.
        import: u32,
        /// The address and port that it was sent to.
        destination: SocketAddr,
        /// What the client connected to, if it was this node that translated that.
        asked: SocketAddr,
        /// The cgroup of the client's socket, once it was found by that.
        cgroup: Option<u64>,
    },
}

impl Arrival {
    /// What an accepted connection is for; `None` is counted, and such a connection is reset.
    pub(crate) fn of(
        worker: &Worker,
        way: Way,
        socket: &TcpStream,
        source: SocketAddr,
    ) -> Option<Self> {
        match way {
            Way::Steering => steered(worker, socket, source),
            Way::ServicePath => by_service_path(worker, socket, source),
        }
    }

    /// The number of the import that it is for.
    pub(crate) fn import(&self) -> u32 {
        match self {
            Self::Steered(origin) => origin.import,
            Self::Service { import, .. } => *import,
        }
    }

    /// Who the client is, as far as that is known now.
    pub(crate) fn client(&self, origins: &dyn Origins, source: SocketAddr) -> Client {
        match self {
            Self::Steered(origin) => origins.client(origin, source),
            Self::Service {
                cgroup: Some(cgroup),
                import,
                asked,
                ..
            } => {
                let origin = Origin {
                    import: *import,
                    destination: *asked,
                    cgroup: *cgroup,
                    cookie: 0,
                    same_namespace: true,
                };
                origins.client(&origin, source)
            }
            Self::Service { cgroup: None, .. } => origins.client_at(source),
        }
    }

    /// Who the client of an open flow is that was `before` and of whom `now` is known. A client of the
    /// Service path of whom nothing is known any more is still the one it was.
    pub(crate) fn client_after(&self, before: &Client, now: Client) -> Client {
        match (self, now) {
            (Self::Service { .. }, Client::Unknown) => before.clone(),
            (_, now) => now,
        }
    }

    /// Whether a client is a pod of which this node was only told on demand, and is told no more.
    pub(crate) fn is_forgotten(&self, before: &Client, now: &Client) -> bool {
        matches!(self, Self::Service { cgroup: None, .. })
            && matches!((before, now), (Client::Pod { .. }, Client::Unknown))
    }

    /// Notes how a client was found.
    pub(crate) fn found(&mut self, found: Found) -> Client {
        if let Self::Service { cgroup, .. } = self {
            *cgroup = found.cgroup;
        }
        found.client
    }

    /// Finds out who a client is that is not known; never, if there is nobody to ask.
    pub(crate) async fn look_up(&self, origins: &dyn Origins, source: SocketAddr) -> Found {
        match self {
            // What the kernel recorded needs no more than to be announced to this node.
            Self::Steered(_) => std::future::pending().await,
            Self::Service {
                destination, asked, ..
            } => {
                let connection = Connection {
                    source,
                    destination: *destination,
                    asked: *asked,
                };
                origins.look_up(connection).await
            }
        }
    }

    /// Why a client is refused of which nobody knows who it is.
    pub(crate) fn unknown(&self, source: SocketAddr) -> String {
        match self {
            Self::Steered(origin) => {
                format!("cgroup {} is no workload of this peer", origin.cgroup)
            }
            Self::Service { destination, .. } => format!(
                "{source} connected to {destination}, and is no client that this peer knows of: a node, with whoever is behind it, or a pod that was not announced"
            ),
        }
    }
}

fn steered(worker: &Worker, socket: &TcpStream, source: SocketAddr) -> Option<Arrival> {
    match worker.shared.origins.origin(socket.as_fd()) {
        Ok(Some(origin)) => return Some(Arrival::Steered(origin)),
        // Without the kernel's record nobody knows what was asked for, and by whom.
        Ok(None) => tracing::debug!(%source, "connection without a record is reset"),
        Err(error) => {
            tracing::warn!(%source, %error, "cannot read the record of a connection");
        }
    }
    worker.shared.metrics.unrecorded.inc();
    None
}

fn by_service_path(worker: &Worker, socket: &TcpStream, source: SocketAddr) -> Option<Arrival> {
    // Also what the kernel handed over it left as it was: the socket's own address is what the client
    // was sent to.
    let local = socket.local_addr().ok()?;
    let destination = SocketAddr::new(local.ip().to_canonical(), local.port());
    let Some(&import) = worker.view().targets.get(&destination) else {
        tracing::debug!(%source, %destination, "connection to a port of no import is reset");
        worker.shared.metrics.untargeted.inc();
        return None;
    };
    worker.shared.metrics.service_path.inc();
    Some(Arrival::Service {
        import,
        destination,
        asked: socket::original_destination(socket).unwrap_or(destination),
        cgroup: None,
    })
}
